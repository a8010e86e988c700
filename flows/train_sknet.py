"""train-sknet: stage → convert → train → validate → promote → report.

python -m flows.train_sknet --recipe NAME|PATH --data SOURCE --store URI --workers N
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from cyclopts import Parameter
from prefect import flow
from pydantic import BaseModel, ValidationError

from flows.command import call, prepare, run_flow, show_warning, stoppable
from flows.parameters import RecipeName, Workers, checked_recipe, recipe_for
from flows.summary import print_summary, show
from infra.artifacts import absolute_uri, default_store, open_store
from infra.base.commands import (
    OPTIONS,
    STORE,
    ConsoleOptions,
    Flag,
    Texts,
    app_of,
    parsed_by,
    start,
)
from infra.base.console import console
from infra.base.options import positive_int
from sknet.data.conversion.converter import DEFAULT_QUALITY
from sknet.data.copies.leaks import ON_LEAK, OnLeak
from sknet.data.quarantine import DEFAULT_LIMIT
from sknet.data.sources import absolute, open_source
from sknet.device import Choice
from sknet.errors import UserError
from sknet.judgement import NO_FLOORS, Floors
from sknet.planning import check_source
from tasks.catalog.passports import Issuer
from tasks.convert import ConversionSettings, convert
from tasks.errors import NotPromotedError
from tasks.pages import run_name
from tasks.programs import THIS_HOST, LaunchSettings, chosen_device, device_of
from tasks.promote import promote
from tasks.report import report
from tasks.results import TaskResult
from tasks.stage import stage
from tasks.train import train
from tasks.validate import validate

DEFAULT_RECIPE = "skresnet18_digits"
DEFAULT_CONVERSION = ConversionSettings()
Settings = TypeVar("Settings", bound=BaseModel)


@flow(
    name="train-sknet",
    log_prints=False,
    flow_run_name=run_name(lambda recipe, **_: Path(recipe).stem),
)
@stoppable
def train_sknet(
    recipe: RecipeName = DEFAULT_RECIPE,
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
    Issuer.read()  # refuses a card or a key that the promotion can't use
    open_store(store)
    max_quarantine = conversion.max_quarantine
    dataset = stage(data, store, full=full, max_quarantine=max_quarantine, on_leak=on_leak).result()
    shards = convert(data, dataset, store, conversion, workers, launch).result()
    checkpoint = train(choices, shards, store, workers, device, launch).result()
    evaluation = validate(choices, checkpoint, shards, store, device).result()
    promotion = promote(choices, checkpoint, evaluation, store, floors).result()
    pages = report(store, wait_for=[promotion]).result()
    return show([dataset, shards, checkpoint, evaluation, promotion, pages])


def main(arguments: "Options") -> None:
    """Check the input before anything starts, run the flow, print the summary."""
    store = arguments.store or default_store()
    launch = settings_of(LaunchSettings, arguments)
    # A run's flow loads it again, and warns then of the keys that it ignores.
    warn = show_warning if arguments.dry_run else lambda _: None
    recipe = checked_recipe(arguments.recipe, arguments.set, arguments.workers, launch, warn=warn)
    # A cluster is asked by the flow.
    device = device_of(launch, recipe, arguments.device_target) if launch.is_local else None
    source = open_source(arguments.data)
    check_source(recipe, arguments.workers, source)
    floors = settings_of(Floors, arguments)
    floors.check(source.classes, source.titles)
    for _ in source.files():
        pass
    Issuer.read()
    conversion = settings_of(ConversionSettings, arguments)
    if arguments.dry_run:
        from flows.dry_run import Choices, print_plan

        print_plan(Choices(recipe, source, store, device, arguments, conversion))
        return
    open_store(store)
    console().say(f"start: recipe {arguments.recipe}, data {arguments.data}")
    prepare()
    results = call(
        train_sknet,
        recipe=arguments.recipe,
        data=absolute(arguments.data),
        store=absolute_uri(store),
        workers=arguments.workers,
        overrides=[*arguments.set],
        device_target=arguments.device_target,
        conversion=conversion,
        launch=launch,
        floors=floors,
        on_leak=arguments.on_leak,
        full=arguments.full,
    )
    print_summary(results, arguments.store)
    promotion = next(each for each in results if each.task == "promote")
    if arguments.fail_if_not_promoted and promotion.status == "refused":
        raise NotPromotedError(f"not promoted: {promotion.facts['judged']}")


def _plain(value: object) -> object:
    return [*value] if isinstance(value, tuple) else value


def settings_of(model: type[Settings], arguments: "Options") -> Settings:
    """Return the settings that the options choose.

    Raises:
        UserError: An option has a wrong value; the message names it.
    """
    try:
        return model.model_validate(
            {name: _plain(getattr(arguments, name)) for name in model.model_fields}
        )
    except ValidationError as error:
        fault = error.errors()[0]
        message = fault["msg"].removeprefix("Value error, ")
        if not fault["loc"]:
            raise UserError(message) from None
        option = str(fault["loc"][0]).replace("_", "-")
        raise UserError(f"--{option} is {fault['input']!r}: {message}") from None


@dataclass(frozen=True, kw_only=True)
class Options(ConsoleOptions):
    """The options of a run. Those of conversion, hosts and floors are checked by their settings."""

    recipe: Annotated[
        str,
        Parameter(show_default="skresnet18_folder; the digits and Fashion-MNIST have their own"),
    ] = ""
    """A recipe's name, or a YAML file; `sknet recipes` lists the names."""
    data: Annotated[str, Parameter(alias="--source")] = "digits"
    """Source of the images: digits, fashion-mnist:DIR, DIR or s3://…"""
    store: Annotated[str | None, STORE] = None
    """The artifact store: a path, file:///… or s3://…"""
    workers: Annotated[int, parsed_by(positive_int)] = 2
    """Number of ranks on all hosts. Another number is another training, with a key of its own:
    batches, learning rates or the rounding of sums differ."""
    set: Texts = ()
    """KEY=VALUE: change a choice of the recipe; may be repeated. `sknet recipes --explain KEY` says
    what a key means."""
    device_target: Annotated[
        Choice | None, Parameter(show_default="the recipe's, which is auto")
    ] = None
    """auto: Ascend if the hosts that train have cards, else CPU."""
    shards: str = "4"
    """Number of shards of each split, or auto: one for every 256 MiB of images."""
    shorter_side: str | None = None
    """Resize images whose shorter side is longer than this, in pixels; without it, the original
    bytes are stored."""
    quality: str = str(DEFAULT_QUALITY)
    """JPEG quality of resized images, 1 to 100."""
    max_quarantine: Annotated[str | None, Parameter(show_default=str(DEFAULT_LIMIT))] = None
    """Largest fraction of unreadable images tolerated, from 0 to 1."""
    balanced_floor: Annotated[str | None, Parameter(show_default="any")] = None
    """Lowest balanced accuracy, from 0 to 1, at which a checkpoint is promoted."""
    class_floor: Texts = ()
    """CLASS=FRACTION: lowest recall of a class, from 0 to 1, at which a checkpoint is promoted; may
    be repeated."""
    on_leak: OnLeak = ON_LEAK
    """What to do if an image is in several splits: record it (warn), refuse the source, or drop its
    copies from the split that matters less."""
    full: Flag = False
    """Read files again that haven't changed."""
    launcher: str = "local"
    """local, or the Ray cluster that converts and trains: ray:auto or ray://HOST:PORT."""
    hosts: str = "1"
    """Number of hosts that share the workers equally."""
    wait_for_hosts: str = "60"
    """Seconds to wait for that many hosts before training with fewer."""
    dry_run: Flag = False
    """Print the resolved recipe, what would be reused and built, and the sizes; change nothing."""
    fail_if_not_promoted: Flag = False
    """End with exit code 1 if the checkpoint is not promoted."""

    def __post_init__(self) -> None:
        """Choose the recipe for the data, if none is given."""
        object.__setattr__(self, "recipe", self.recipe or recipe_for(self.data))


DEFAULTS = Options()


def command(options: Annotated[Options, OPTIONS] = DEFAULTS) -> int:
    """Train, validate, promote and report one recipe; what the store has already is reused.

    Example: `sknet run --recipe skresnet18_digits --data digits --workers 2`
    """
    return run_flow(main, options)


if __name__ == "__main__":
    sys.exit(start(app_of(command, "python -m flows.train_sknet")))
