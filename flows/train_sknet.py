"""train-sknet: stage → convert → train → validate → promote → report.

python -m flows.train_sknet --recipe NAME|PATH --data SOURCE --store URI --workers N
"""

import argparse
import sys
from pathlib import Path
from typing import TypeVar, get_args

from prefect import flow
from pydantic import BaseModel, ValidationError

from flows.command import call, prepare, run_flow, stoppable
from flows.parameters import RecipeName, Workers, checked_recipe
from flows.summary import print_summary, show
from infra.artifacts import absolute_uri, default_store, open_store
from infra.base.options import positive_int
from sknet.data.conversion.converter import DEFAULT_QUALITY
from sknet.data.copies.leaks import ON_LEAK, OnLeak
from sknet.data.quarantine import DEFAULT_LIMIT
from sknet.data.sources import absolute, open_source
from sknet.device import CHOICES, Choice
from sknet.errors import UserError
from sknet.judgement import NO_FLOORS, Floors
from sknet.planning import check_source
from tasks.convert import ConversionSettings, convert
from tasks.pages import run_name
from tasks.programs import THIS_HOST, LaunchSettings, chosen_device, device_of
from tasks.promote import promote
from tasks.report import report
from tasks.results import TaskResult
from tasks.stage import stage
from tasks.train import train
from tasks.validate import validate

DEFAULT_CONVERSION = ConversionSettings()
Settings = TypeVar("Settings", bound=BaseModel)


@flow(
    name="train-sknet",
    log_prints=False,
    flow_run_name=run_name(lambda recipe, **_: Path(recipe).stem),
)
@stoppable
def train_sknet(
    recipe: RecipeName = "skresnet18_digits",
    data: str = "digits",
    store: str | None = None,
    workers: Workers = 2,
    overrides: list[str] | None = None,
    device_target: Choice | None = None,
    conversion: ConversionSettings = DEFAULT_CONVERSION,
    launch: LaunchSettings = THIS_HOST,
    floors: Floors = NO_FLOORS,
    on_leak: OnLeak = ON_LEAK,
    full: bool = False,
) -> list[TaskResult]:
    """Train, validate, promote and report one recipe; what the store has already is reused.

    Args:
        recipe: A recipe of the project, or the path of a YAML file.
        data: Source of the images: digits, fashion-mnist:DIR, DIR, or s3://BUCKET/PREFIX.
        store: The artifact store: a path, or s3://BUCKET/PREFIX. Empty: what SKNET_STORE says on
            the worker, or artifacts.
        workers: Number of ranks on all hosts.
        overrides: Texts of the form KEY=VALUE that change the recipe.
        device_target: Empty: what the recipe says. auto: Ascend if the hosts that train have cards.
        conversion: How images are stored in shards.
        launch: The hosts that convert and train.
        floors: What a checkpoint needs to be promoted, besides the recipe's min_accuracy.
        on_leak: What happens if an image is in several splits. warn: it is recorded. refuse: the
            run ends. drop: its copies are left out of the split that matters less.
        full: Whether to read files again that haven't changed.
    """
    store = store or default_store()
    choices = checked_recipe(recipe, overrides or (), workers, launch)
    device = chosen_device(launch, choices, device_target)
    source = open_source(data)
    check_source(choices, workers, source)
    floors.check(source.classes, source.titles)
    open_store(store)
    max_quarantine = conversion.max_quarantine
    dataset = stage(data, store, full=full, max_quarantine=max_quarantine, on_leak=on_leak).result()
    shards = convert(data, dataset, store, conversion, workers, launch).result()
    checkpoint = train(choices, shards, store, workers, device, launch).result()
    evaluation = validate(choices, checkpoint, shards, store, device).result()
    promotion = promote(choices, checkpoint, evaluation, store, floors).result()
    pages = report(store, wait_for=[promotion]).result()
    return show([dataset, shards, checkpoint, evaluation, promotion, pages])


def main(arguments: argparse.Namespace) -> None:
    """Check the input before anything starts, run the flow, print the summary."""
    launch = settings_of(LaunchSettings, arguments)
    # The flow loads it again, and warns of the keys that it ignores.
    recipe = checked_recipe(
        arguments.recipe, arguments.set, arguments.workers, launch, warn=lambda _: None
    )
    if launch.is_local:
        device_of(launch, recipe, arguments.device_target)
    source = open_source(arguments.data)
    check_source(recipe, arguments.workers, source)
    floors = settings_of(Floors, arguments)
    floors.check(source.classes, source.titles)
    for _ in source.files():
        pass
    conversion = settings_of(ConversionSettings, arguments)
    open_store(arguments.store)
    prepare()
    results = call(
        train_sknet,
        recipe=arguments.recipe,
        data=absolute(arguments.data),
        store=absolute_uri(arguments.store),
        workers=arguments.workers,
        overrides=arguments.set,
        device_target=arguments.device_target,
        conversion=conversion,
        launch=launch,
        floors=floors,
        on_leak=arguments.on_leak,
        full=arguments.full,
    )
    print_summary(results)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    result = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    default = "(default: %(default)s)"
    result.add_argument(
        "--recipe", default="skresnet18_digits", help=f"a name or a YAML file {default}"
    )
    result.add_argument(
        "--data",
        default="digits",
        help=f"source of the images: digits, fashion-mnist:DIR, DIR or s3://… {default}",
    )
    result.add_argument(
        "--store",
        default=default_store(),
        help="a path, file:///… or s3://… (default: SKNET_STORE, or artifacts)",
    )
    result.add_argument(
        "--workers", type=positive_int, default=2, help=f"number of ranks on all hosts {default}"
    )
    result.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a choice of the recipe; may be repeated",
    )
    result.add_argument(
        "--device_target",
        choices=CHOICES,
        help="auto: Ascend if the hosts that train have cards, else CPU (default: the recipe's, "
        "which is auto unless it says otherwise)",
    )
    result.add_argument(
        "--shards",
        default=4,
        help="number of shards of each split, or 'auto': one for every 256 MiB of images "
        f"{default}",
    )
    result.add_argument(
        "--shorter-side",
        metavar="PIXELS",
        help="resize images whose shorter side is longer than this (default: store the "
        "original bytes)",
    )
    result.add_argument(
        "--quality", default=DEFAULT_QUALITY, help=f"JPEG quality of resized images {default}"
    )
    result.add_argument(
        "--max-quarantine",
        metavar="FRACTION",
        help=f"largest fraction of unreadable images tolerated (default: {DEFAULT_LIMIT})",
    )
    result.add_argument(
        "--balanced-floor",
        metavar="FRACTION",
        help="lowest balanced accuracy at which a checkpoint is promoted (default: any)",
    )
    result.add_argument(
        "--class-floor",
        action="append",
        default=[],
        metavar="CLASS=FRACTION",
        help="lowest recall of a class at which a checkpoint is promoted; may be repeated",
    )
    result.add_argument(
        "--on-leak",
        choices=get_args(OnLeak),
        default=ON_LEAK,
        help="what to do if an image is in several splits: record it, refuse the source, or drop "
        f"its copies from the split that matters less {default}",
    )
    result.add_argument("--full", action="store_true", help="read files again that haven't changed")
    result.add_argument(
        "--launcher",
        default="local",
        help="'local', or the Ray cluster that converts and trains: 'ray:auto' or "
        f"'ray://HOST:PORT' {default}",
    )
    result.add_argument(
        "--hosts", default=1, help=f"number of hosts that share the workers equally {default}"
    )
    result.add_argument(
        "--wait-for-hosts",
        default=60,
        metavar="SECONDS",
        help=f"seconds to wait for that many hosts before training with fewer {default}",
    )
    return result


def settings_of(model: type[Settings], arguments: argparse.Namespace) -> Settings:
    """Return the settings that the options choose.

    Raises:
        UserError: An option has a wrong value; the message names it.
    """
    try:
        return model.model_validate({name: getattr(arguments, name) for name in model.model_fields})
    except ValidationError as error:
        fault = error.errors()[0]
        message = fault["msg"].removeprefix("Value error, ")
        if not fault["loc"]:
            raise UserError(message) from None
        option = str(fault["loc"][0]).replace("_", "-")
        raise UserError(f"--{option} is {fault['input']!r}: {message}") from None


if __name__ == "__main__":
    sys.exit(run_flow(main, parser().parse_args()))
