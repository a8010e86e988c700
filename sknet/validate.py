"""Evaluate a checkpoint on the validation split: predict every sample, and count the predictions.

python -m sknet.validate --data_dir DIR --ckpt_path PATH [-c RECIPE] [--json OUT] [--out DIR]
msrun --worker_num 2 --local_worker_num 2 --join=True sknet/validate.py --data_dir DIR …
"""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from infra.base.commands import HIDDEN, OPTIONS, app_of, start
from infra.base.console import console
from infra.base.files import is_directory
from infra.base.progress import Progress
from sknet import outputs, program
from sknet.device import choose_device
from sknet.errors import CheckpointError, UserError
from sknet.options import DataOptions
from sknet.planning import check_classes, check_model, open_data
from sknet.recipe import Recipe, changed_recipe, load_recipe
from sknet.records import CheckpointChecks, Evaluation, Run
from sknet.records.evaluation import SPLIT
from sknet.records.preprocessing import other_preprocessing, other_than_source
from sknet.records.training import STATE_FILE, run_of, state_file, weights_file

if TYPE_CHECKING:
    from sknet.data.shards import ShardSet
    from sknet.evaluation.predictions import Predictions
    from sknet.models.sknet import SKNet
    from sknet.records.calibration import Calibration
    from sknet.world import World


def main(arguments: "Options") -> None:
    """Evaluate; rank 0 prints the device, a line for each resolution, and writes the files."""
    distribute = program.is_distributed(arguments.distribute, "sknet/validate.py")
    warnings: list[str] = []  # they come after the device, which is the first line
    given = _given_recipe(arguments, warnings.append)
    weights = weights_file(arguments.ckpt_path)
    recipe, run = _recipe_and_run(arguments, given, weights, warnings.append)
    device = choose_device(arguments.device_target, recipe)
    _prepare_outputs(arguments)
    _refuse_other_classes(recipe, run, open_data(arguments.data_dir).classes)
    # Importing MindSpore takes seconds, so wrong options are refused before.
    console().show(Progress(phase="loading MindSpore"))
    from sknet.data.data_directory import shards_at
    from sknet.models import create_model, fold
    from sknet.models.weights import load_weights, source_of
    from sknet.world import join_world, set_device

    if run is None and (other := other_than_source(recipe, source_of(weights))):
        warnings.append(f"warning: {other}")
    set_device(device.target, jit_level=recipe.jit_level)
    world = join_world(distribute=distribute)
    if world.rank == 0:
        print(device, *warnings, sep="\n", flush=True)
    shards = shards_at(
        arguments.data_dir,
        arguments.shards_dir,
        rank=world.rank,
        num_workers=os.cpu_count() or 1,
        splits=(arguments.split,),
        max_quarantine=arguments.max_quarantine,
        on_leak=arguments.on_leak,
        report=lambda line: print(line, flush=True),
    )
    network = create_model(recipe.model, num_classes=len(shards.classes))
    console().show(Progress(phase="checking the checkpoint"))
    _check(arguments, network, recipe, shards, world)
    load_weights(network, weights)
    console().show(Progress(phase="compiling the graph"))
    _evaluate(arguments, fold(network), recipe, shards, world)
    # msrun ends all ranks when the first one leaves, so they wait for each other.
    world.sum(0.0)


def _given_recipe(arguments: "Options", warn: Callable[[str], object]) -> Recipe | None:
    if arguments.config is None:
        return None
    return load_recipe(arguments.config, arguments.set, warn=warn)


def _recipe_and_run(
    arguments: "Options",
    given: Recipe | None,
    weights: Path,
    warn: Callable[[str], object],
) -> tuple[Recipe, Run | None]:
    """Return the recipe to evaluate by, and the training that the weights are from, if it is known.

    The recipe is that of --config, or else that of the training, changed by --set.

    Args:
        arguments: The options.
        given: The recipe of --config.
        weights: The file of weights.
        warn: Called with a line if the recipe's preprocessing differs from that of the training.

    Raises:
        UserError: There is no recipe, or it is wrong or for another network.
    """
    try:
        run = run_of(weights)
    except UserError:
        if given is None:
            raise
        run = None  # the checks of the checkpoint say it
    if run is None:
        if given is None:
            raise UserError(
                f"{weights} comes without a {STATE_FILE}, which has its recipe: give --config"
            )
        warn(
            f"warning: {weights} comes without a readable {STATE_FILE}: it can't be checked "
            "whether it was trained on these classes with this preprocessing"
        )
        return given, None
    where = f"recipe of {arguments.ckpt_path}"
    recipe = given or changed_recipe(run.evaluated_recipe, arguments.set, where=where)
    check_model(recipe, run, arguments.ckpt_path)
    if other := other_preprocessing(recipe, run.recipe):
        warn(f"warning: {other}")
    return recipe, run


def _refuse_other_classes(recipe: Recipe, run: Run | None, classes: tuple[str, ...]) -> None:
    """Check that data has the classes of the checkpoint, in their order.

    Raises:
        UserError: It has others.
    """
    check_classes(recipe, len(classes))
    if run is None or classes == run.classes:
        return
    if len(classes) != len(run.classes):
        raise UserError(
            f"the data set has {len(classes)} classes, but the checkpoint was trained on "
            f"{len(run.classes)}"
        )
    label, found, expected = next(
        (label, found, expected)
        for label, (found, expected) in enumerate(zip(classes, run.classes, strict=True))
        if found != expected
    )
    raise UserError(
        f"the data set's classes are not those of the checkpoint: class {label} is {found!r} "
        f"instead of {expected!r}; name and order the folders as they were in training"
    )


def _prepare_outputs(arguments: "Options") -> None:
    outputs.prepare_file(arguments.json, "--json")
    if arguments.out:
        outputs.prepare_directory(arguments.out, "--out")


def _check(
    arguments: "Options",
    network: "SKNet",
    recipe: Recipe,
    shards: "ShardSet",
    world: "World",
) -> None:
    """Make all checks of a checkpoint for --out; otherwise verify that its files are undamaged.

    Raises:
        CheckpointError: A check failed.
        UserError: A file is damaged.
    """
    from sknet.evaluation.checks import check_checkpoint
    from sknet.records.evaluation import CHECKS_FILE
    from sknet.training.checkpoint import read_state

    given: Path = arguments.ckpt_path
    if arguments.out and is_directory(given):
        checks = check_checkpoint(given, network, recipe, shards.record)
        if world.rank == 0:
            with outputs.writing(arguments.out, "--out"):
                checks.write(arguments.out / CHECKS_FILE)
        _refuse_failed(checks, given)
    elif state := state_file(weights_file(given)):
        read_state(state.parent)


def _refuse_failed(checks: CheckpointChecks, checkpoint: Path) -> None:
    failed = [f"{check.name}: {check.detail}" for check in checks.checks if not check.passed]
    if failed:
        raise CheckpointError(f"{checkpoint} is not evaluated: {'; '.join(failed)}")


def _evaluate(
    arguments: "Options",
    network: "SKNet",
    recipe: Recipe,
    shards: "ShardSet",
    world: "World",
) -> None:
    """Predict on all ranks; count, print and write on rank 0."""
    from sknet.evaluation.predicting import predict
    from sknet.evaluation.predictions import BATCH_SIZE

    predictions = predict(
        network,
        recipe,
        shards,
        split=arguments.split,
        batch_size=BATCH_SIZE,
        resolutions=recipe.resolutions,
        world=world,
        with_average_precision=True,
        on_progress=_show,
    )
    if arguments.out:
        from sknet.evaluation.attention import measure_attention
        from sknet.records.evaluation import ATTENTION_FILE

        console().show(Progress(phase="measuring attention"))
        # All ranks compute it: the others would have to wait for rank 0 anyway.
        attention = measure_attention(
            network, recipe, shards, split=arguments.split, batch_size=BATCH_SIZE
        )
        if world.rank == 0:
            with outputs.writing(arguments.out, "--out"):
                attention.write(arguments.out / ATTENTION_FILE)
    if world.rank == 0:
        _report(arguments, recipe, shards, predictions)


def _show(fraction: float) -> None:
    console().show(Progress(phase="predicting", fraction=fraction))


def _report(
    arguments: "Options",
    recipe: Recipe,
    shards: "ShardSet",
    predictions: "dict[int, Predictions]",
) -> None:
    """Print the counts at each resolution, and write the files that the options name."""
    import numpy as np

    from sknet.data.reading.pipeline import sample_keys
    from sknet.evaluation.files import write_files
    from sknet.evaluation.predictions import detailed

    split = arguments.split
    keys = sample_keys(shards, split, np.arange(shards.num_samples(split)))
    leaked = shards.record.dataset.leaked(split)
    evaluations = {
        side: detailed(
            at_side,
            keys,
            leaked,
            split=split,
            resolution=side,
            num_classes=len(shards.classes),
        )
        for side, at_side in predictions.items()
    }
    if arguments.out:
        with outputs.writing(arguments.out, "--out"):
            write_files(arguments.out, recipe, shards, keys, predictions, evaluations)
    for evaluation in evaluations.values():
        print(_line(evaluation, predictions[evaluation.resolution].calibration), flush=True)
    outputs.write_json(evaluations[recipe.image_resize], arguments.json)


def _line(evaluation: Evaluation, calibration: "Calibration | None") -> str:
    low, high = evaluation.interval_top1
    parts = [
        f"accuracy@1 {evaluation.accuracy_top1:.2%} ({evaluation.correct_top1}/{evaluation.seen})",
        f"95 % interval {low:.2%} to {high:.2%}",
    ]
    if without := evaluation.without_leaked:
        correct, seen = without
        parts.append(f"without leaked images {correct / seen:.2%} ({correct}/{seen})")
    if evaluation.is_top5_telling:
        parts.append(
            f"accuracy@5 {evaluation.accuracy_top5:.2%} "
            f"({evaluation.correct_top5}/{evaluation.seen})"
        )
    for name, value in evaluation.means.items():
        if value:
            parts.append(f"{name} {value.value:.2%}")
    parts.append(f"loss {evaluation.loss:.4f}")
    error = f"calibration error {evaluation.calibration_error:.4f}"
    parts.append(f"{error} ({calibration.describe()})" if calibration else error)
    return f"{evaluation.resolution}x{evaluation.resolution}: {', '.join(parts)}"


@dataclass(frozen=True, kw_only=True)
class Options(DataOptions):
    """The options, which have MindCV's names where MindCV has them."""

    ckpt_path: Path
    """File of weights, or the directory of a checkpoint."""
    config: Annotated[
        str | None,
        Parameter(alias="-c", show_default="that of the checkpoint's training"),
    ] = None
    """Recipe: its name, or the path of a YAML file."""
    # For the promotion alone, which counts how often the sealed test split is looked at.
    split: Annotated[Literal["val", "test"], HIDDEN] = SPLIT
    """Split that is predicted."""
    json: Path | None = None
    """File for the counts at the recipe's resolution."""
    out: Path | None = None
    """New directory for counts, predictions, attention and examples; if `--ckpt-path` is a
    directory, the checkpoint is checked in full before."""


def command(options: Annotated[Options, OPTIONS]) -> int:
    """Evaluate a checkpoint on the validation split: predict every sample, and count.

    Example: `sknet validate --data-dir digits --ckpt-path ckpt/step-000000500`
    """
    return program.run(main, options)


if __name__ == "__main__":
    sys.exit(start(app_of(command, "python -m sknet.validate")))
