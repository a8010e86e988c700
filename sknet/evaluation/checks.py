"""Check a finished checkpoint before it is evaluated.

The result is a list of checks with what was found, whatever the directory contains. A check is left
out if it needs something that another check has refused.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from mindspore import nn

from infra.base.files import file_sha256
from sknet.errors import UserError, shortened
from sknet.models.weight_files import Values, printable, read_weights
from sknet.models.weights import STATE, STATE_PREFIXES
from sknet.recipe import Recipe
from sknet.records import Check, Checkpoint, CheckpointChecks, Shards
from sknet.records.evaluation import SPLIT
from sknet.records.training import MODEL_FILE, STATE_FILE

# State of a training step that belongs to no single parameter.
_OF_NO_PARAMETER = ("moments.beta_1_power", "moments.beta_2_power", "ema.updates")
# Prefixes of the state that a training step has for each parameter.
_PREFIXES = ("moments.first.", "moments.second.", *STATE_PREFIXES)
# Number of faults that the detail of a check lists.
_MAX_LISTED = 3

Shapes = dict[str, tuple[int, ...]]


def check_checkpoint(
    directory: Path, network: nn.Cell, recipe: Recipe, shards: Shards
) -> CheckpointChecks:
    """Return all checks of a checkpoint's directory.

    Args:
        directory: The checkpoint.
        network: A fresh network of the recipe's model.
        recipe: The recipe of the training.
        shards: The shards on which it was trained.
    """
    checks: list[Check] = []
    try:
        state = Checkpoint.read(directory / STATE_FILE)
    except UserError as error:
        checks.append(_failed("state", _without_directory(error, directory)))
    else:
        checks.append(Check(name="state", passed=True, detail=f"step {shortened(state.step)}"))
        checks += _state_checks(state, network, recipe, shards)
        checks.append(_files_check(directory, state))
    checks += _weight_checks(directory / MODEL_FILE, network)
    return CheckpointChecks(checks=tuple(checks))


def _state_checks(
    state: Checkpoint, network: nn.Cell, recipe: Recipe, shards: Shards
) -> Iterator[Check]:
    yield _recipe_check(state, recipe)
    yield _shards_check(state, shards)
    yield _check(
        "run",
        _run_faults(state, network, shards),
        f"{shortened(state.run.total_steps)} steps in all",
    )
    yield _check("progress", _progress_faults(state), f"all {shortened(state.step)} steps are done")
    yield _check("layouts", _layout_faults(state), f"{len(state.layouts)} in order")
    yield _check(
        "evaluations",
        _evaluation_faults(state, shards),
        f"{len(state.evaluations)} in order",
    )


def _recipe_check(state: Checkpoint, recipe: Recipe) -> Check:
    found, expected = state.run.recipe.all_choices(), recipe.all_choices()
    faults = [
        f"{key} is {shortened(found[key])}, expected {shortened(expected[key])}"
        for key in expected
        if found[key] != expected[key]
    ]
    return _check("recipe", faults, f"digest {recipe.of_training().digest}")


def _shards_check(state: Checkpoint, shards: Shards) -> Check:
    faults = []
    if state.run.shards_digest != shards.content_digest:
        faults.append(f"digest is {state.run.shards_digest}, expected {shards.content_digest}")
    found, expected = state.run.classes, shards.dataset.classes
    faults += _difference("number of classes", len(found), len(expected))
    for number, (one, other) in enumerate(zip(found, expected, strict=False)):
        faults += _difference(f"class {number}", one, other)
    return _check("shards", faults, f"digest {shards.content_digest}")


def _run_faults(state: Checkpoint, network: nn.Cell, shards: Shards) -> Iterator[str]:
    run, num_samples = state.run, shards.num_samples("train")
    try:
        batch = run.recipe.global_batch(run.world_size)
    except UserError as error:
        yield str(error)
        return
    yield from _difference("global batch", run.global_batch_size, batch)
    yield from _difference("steps per epoch", run.steps_per_epoch, num_samples // batch)
    num_params = sum(
        parameter.size
        for parameter in network.trainable_params()
        if parameter.name.split(".")[0] not in run.recipe.freeze
    )
    yield from _difference("trainable parameters", state.num_params, num_params)


def _progress_faults(state: Checkpoint) -> Iterator[str]:
    run = state.run
    yield from _difference("step", state.step, run.total_steps)
    yield from _difference("samples seen", state.samples_seen, state.step * run.global_batch_size)
    yield from _difference("epoch", state.epoch, state.step // run.steps_per_epoch)


def _layout_faults(state: Checkpoint) -> Iterator[str]:
    first_steps = [layout.first_step for layout in state.layouts]
    if first_steps[:1] != [0]:
        yield f"first steps are {shortened(first_steps)}, expected them from 0 on"
    if sorted({*first_steps}) != first_steps or any(step >= state.step for step in first_steps):
        yield (
            f"first steps are {shortened(first_steps)}, expected them rising, below "
            f"{shortened(state.step)}"
        )
    for layout in state.layouts:
        if not state.run.recipe.can_divide(state.run.global_batch_size, layout.world_size):
            yield (
                f"{shortened(layout.world_size)} ranks can't share a global batch of "
                f"{shortened(state.run.global_batch_size)}"
            )


def _evaluation_faults(state: Checkpoint, shards: Shards) -> Iterator[str]:
    run, epochs = state.run, [epoch for epoch, _ in state.evaluations]
    if sorted({*epochs}) != epochs:
        yield f"epochs are {shortened(epochs)}, expected them rising"
    yield from _difference("last epoch", epochs[-1:], [run.recipe.epoch_size])
    seen = shards.num_samples(SPLIT)
    for epoch, evaluation in state.evaluations:
        of_epoch = f"of epoch {shortened(epoch)}:"
        yield from _difference(f"{of_epoch} split", evaluation.split, SPLIT)
        yield from _difference(
            f"{of_epoch} resolution", evaluation.resolution, run.recipe.image_resize
        )
        yield from _difference(f"{of_epoch} seen", evaluation.seen, seen)
        yield from _difference(f"{of_epoch} seen of all classes", sum(evaluation.class_seen), seen)
        yield from _difference(
            f"{of_epoch} correct of all classes",
            sum(evaluation.class_correct),
            evaluation.correct_top1,
        )
        if not evaluation.correct_top1 <= evaluation.correct_top5 <= evaluation.seen:
            yield f"{of_epoch} correct@1, correct@5 and seen do not rise"
    # Of equal counts, the first one is the best.
    best = max(state.evaluations, key=lambda entry: entry[1].correct_top1, default=None)
    yield from _difference("best count", state.best_top1, best and best[1].correct_top1)
    yield from _difference("best step", state.best_step, best and best[0] * run.steps_per_epoch)


def _files_check(directory: Path, state: Checkpoint) -> Check:
    names = [file.name for file in state.files]
    faults = (
        [] if names == [MODEL_FILE] else [f"files are {shortened(names)}, expected {MODEL_FILE}"]
    )
    for file in state.files:
        path = directory / file.name
        try:
            size, sha256 = path.stat().st_size, file_sha256(path)
        except OSError as error:
            faults.append(f"{file.name} can't be read: {error.strerror}")
            continue
        faults += _difference(f"size of {file.name}", size, file.size)
        faults += _difference(f"sha256 of {file.name}", sha256, file.sha256)
    return _check("files", faults, f"{len(names)} as recorded")


def _weight_checks(file: Path, network: nn.Cell) -> Iterator[Check]:
    try:
        values = read_weights(file)
    except UserError as error:
        yield _failed("weights", _without_directory(error, file.parent))
        return
    yield Check(name="weights", passed=True, detail=f"{len(values)} arrays")
    shapes = {parameter.name: tuple(parameter.shape) for parameter in network.get_parameters()}
    yield _check("parameters", _parameter_faults(values, shapes), f"{len(shapes)} of the network")
    finite = (f"{printable(name)} has values that are not" for name in _where(values, _not_finite))
    yield _check("finite", finite, "all values")
    variances = {name: v for name, v in values.items() if name.endswith(".moving_variance")}
    faults = (
        f"{printable(name)} has values that are not" for name in _where(variances, _not_positive)
    )
    yield _check("positive variances", faults, f"all of {len(variances)} arrays")


def _parameter_faults(values: Values, shapes: Shapes) -> Iterator[str]:
    """Yield what differs from the network's parameters and the state of a training step."""
    yield from (f"{name} is missing" for name in shapes if name not in values)
    for name, value in values.items():
        prefix = next((each for each in _PREFIXES if name.startswith(each)), "")
        parameter = name.removeprefix(prefix)
        if parameter in shapes:
            yield from _difference(f"shape of {name}", value.shape, shapes[parameter])
            yield from _difference(f"type of {name}", value.dtype.name, "float32")
        elif name not in (*STATE, *_OF_NO_PARAMETER):
            yield f"{printable(name)} is unknown"


def _where(values: Values, fault: Callable[[npt.NDArray[np.generic]], bool]) -> Iterator[str]:
    return (name for name, value in values.items() if value.dtype.kind == "f" and fault(value))


def _not_finite(value: npt.NDArray[np.generic]) -> bool:
    return not np.isfinite(value).all()


def _not_positive(value: npt.NDArray[np.generic]) -> bool:
    return not np.greater(value, 0).all()


def _difference(what: str, found: object, expected: object) -> Iterator[str]:
    if found != expected:
        yield f"{what} is {shortened(found)}, expected {shortened(expected)}"


def _check(name: str, faults: Sequence[str] | Iterator[str], detail: str) -> Check:
    faults = list(faults)
    if not faults:
        return Check(name=name, passed=True, detail=detail)
    more = f"; and {len(faults) - _MAX_LISTED} more" if len(faults) > _MAX_LISTED else ""
    return _failed(name, "; ".join(faults[:_MAX_LISTED]) + more)


def _failed(name: str, detail: str) -> Check:
    return Check(name=name, passed=False, detail=" ".join(detail.split()))


def _without_directory(error: UserError, directory: Path) -> str:
    """Return the message without the checkpoint's directory, so that it is the same everywhere."""
    return str(error).replace(f"{directory}{os.sep}", "")
