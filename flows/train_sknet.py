"""train-sknet: stage → convert → train → validate → promote → report.

python -m flows.train_sknet --recipe NAME|PATH --data SOURCE --store URI --workers N
"""

import argparse
import sys
from typing import TypeVar

from prefect import flow
from pydantic import BaseModel, ValidationError

from flows.command import quieten, run_flow, stoppable
from flows.summary import print_summary
from infra.artifacts import open_store
from sknet.data.conversion.converter import DEFAULT_QUALITY
from sknet.data.sources import open_source
from sknet.data.staging import MAX_QUARANTINE
from sknet.errors import UserError
from sknet.recipe import load_recipe
from tasks.convert import ConversionSettings, convert, stage
from tasks.programs import LaunchSettings, gang_of
from tasks.promote import promote
from tasks.report import report
from tasks.results import StageResult, results_of
from tasks.train import train
from tasks.validate import validate

# Four shards of the original bytes, made on this host.
AS_IT_IS = ConversionSettings()
HERE = LaunchSettings()
Settings = TypeVar("Settings", bound=BaseModel)


@flow(name="train-sknet", log_prints=False)
@stoppable
def train_sknet(
    recipe: str = "skresnet18_digits",
    data: str = "digits",
    store: str = "artifacts",
    workers: int = 2,
    overrides: list[str] | None = None,
    device_target: str = "CPU",
    conversion: ConversionSettings = AS_IT_IS,
    launch: LaunchSettings = HERE,
    full: bool = False,
) -> list[StageResult]:
    """Train, validate and report one recipe; finished stages are found in the store."""
    choices = load_recipe(recipe, overrides or ())
    dataset = stage(data, store, full=full, max_quarantine=conversion.max_quarantine)
    shards = convert(data, dataset, store, conversion, workers, launch)
    checkpoint = train(choices, shards, store, workers, device_target, launch)
    evaluation = validate(choices, checkpoint, shards, store, device_target)
    promotion = promote(choices, checkpoint, evaluation, store)
    pages = report(store, wait_for=[promotion])
    return results_of(dataset, shards, checkpoint, evaluation, promotion, pages)


def main(arguments: argparse.Namespace) -> None:
    """Check the input before anything starts, run the flow, print the summary."""
    # The flow loads it too, and says what it ignores.
    recipe = load_recipe(arguments.recipe, arguments.set, say_ignored=False)
    recipe.global_batch(arguments.workers)
    launch = settings_of(LaunchSettings, arguments)
    gang_of(launch, recipe, arguments.workers, arguments.device_target)
    for _ in open_source(arguments.data).files():
        pass
    conversion = settings_of(ConversionSettings, arguments)
    open_store(arguments.store)
    quieten()
    results = train_sknet(
        recipe=arguments.recipe,
        data=arguments.data,
        store=arguments.store,
        workers=arguments.workers,
        overrides=arguments.set,
        device_target=arguments.device_target,
        conversion=conversion,
        launch=launch,
        full=arguments.full,
    )
    print_summary(results)


def parser() -> argparse.ArgumentParser:
    """The options."""
    result = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    result.add_argument("--recipe", default="skresnet18_digits", help="a name or a YAML file")
    result.add_argument("--data", default="digits", help="digits, fashion-mnist:DIR, DIR or s3://…")
    result.add_argument("--store", default="artifacts", help="a path, file:///… or s3://…")
    result.add_argument("--workers", type=positive, default=2, help="ranks, on all hosts")
    result.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    result.add_argument("--device_target", choices=("CPU", "Ascend"), default="CPU")
    result.add_argument("--shards", default=4, help="of each split, or 'auto': of about 256 MiB")
    result.add_argument("--shorter-side", metavar="PIXELS", help="resize larger images to it")
    result.add_argument("--quality", default=DEFAULT_QUALITY, help="of resized images")
    unusable = "of the samples that may be left out"
    result.add_argument("--max-quarantine", default=MAX_QUARANTINE, metavar="SHARE", help=unusable)
    result.add_argument("--full", action="store_true", help="read unchanged files again")
    where = "'local', or a Ray cluster that converts and trains: 'ray:auto', 'ray://HOST:PORT'"
    result.add_argument("--launcher", default="local", help=where)
    result.add_argument("--hosts", default=1, help="of the cluster, that share the workers")
    wait = "until training takes fewer hosts than that"
    result.add_argument("--wait-for-hosts", default=60, metavar="SECONDS", help=wait)
    return result


def settings_of(model: type[Settings], arguments: argparse.Namespace) -> Settings:
    """The settings that the options name. Raises UserError naming the option that is wrong."""
    try:
        return model.model_validate({name: getattr(arguments, name) for name in model.model_fields})
    except ValidationError as error:
        fault = error.errors()[0]
        if not fault["loc"]:
            raise UserError(fault["msg"].removeprefix("Value error, ")) from None
        option = str(fault["loc"][0]).replace("_", "-")
        raise UserError(f"--{option} is {fault['input']!r}: {fault['msg']}") from None


def positive(text: str) -> int:
    """A count of at least one."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


if __name__ == "__main__":
    sys.exit(run_flow(main, parser().parse_args()))
