"""Whether a finished checkpoint is what it should be, found out before it is evaluated.

Whatever the directory holds, the result is a list of checks with what was found: a check that
needs what another one refused is not made.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from mindspore import nn

from infra.base.files import file_sha256
from sknet.errors import UserError
from sknet.models.weight_files import Values, printable, read_weights
from sknet.models.weights import STATE, STATE_PREFIXES
from sknet.recipe import Recipe
from sknet.records import Check, Checkpoint, CheckpointChecks, Shards
from sknet.training.checkpoint import MODEL_FILE, STATE_FILE

# What a training step keeps under these prefixes and not for one parameter.
_OF_NO_PARAMETER = ("moments.beta_1_power", "moments.beta_2_power", "ema.updates")
_PREFIXES = ("moments.first.", "moments.second.", *STATE_PREFIXES)
_SHOWN = 3
"""Faults of a check that its detail names."""

Shapes = dict[str, tuple[int, ...]]


def check_checkpoint(
    directory: Path, network: nn.Cell, recipe: Recipe, shards: Shards
) -> CheckpointChecks:
    """All checks of a checkpoint's directory, against what it should be of.

    `network` is a fresh one of the recipe's model.
    """
    checks: list[Check] = []
    try:
        state = Checkpoint.read(directory / STATE_FILE)
    except UserError as error:
        checks.append(_failed("state", _told(error, directory)))
    else:
        checks.append(Check(name="state", passed=True, detail=f"step {_short(state.step)}"))
        checks += _of_state(state, network, recipe, shards)
        checks.append(_files(directory, state))
    checks += _of_weights(directory / MODEL_FILE, network)
    return CheckpointChecks(checks=tuple(checks))


def _of_state(
    state: Checkpoint, network: nn.Cell, recipe: Recipe, shards: Shards
) -> Iterator[Check]:
    yield _recipe(state, recipe)
    yield _shards(state, shards)
    yield _verdict(
        "run", _run_faults(state, network, shards), f"{_short(state.run.total_steps)} steps in all"
    )
    yield _verdict("progress", _progress_faults(state), f"all {_short(state.step)} steps are done")
    yield _verdict("layouts", _layout_faults(state), f"{len(state.layouts)} in order")
    yield _verdict(
        "evaluations",
        _evaluation_faults(state, shards),
        f"{len(state.evaluations)} in order",
    )


def _recipe(state: Checkpoint, recipe: Recipe) -> Check:
    found, expected = state.run.recipe.choices(), recipe.choices()
    faults = [
        f"{key} is {_short(found[key])}, expected {_short(expected[key])}"
        for key in expected
        if found[key] != expected[key]
    ]
    return _verdict("recipe", faults, f"digest {recipe.digest}")


def _shards(state: Checkpoint, shards: Shards) -> Check:
    faults = []
    if state.run.shards_digest != shards.content_digest:
        faults.append(f"digest is {state.run.shards_digest}, expected {shards.content_digest}")
    found, expected = state.run.classes, shards.dataset.classes
    faults += _unequal("number of classes", len(found), len(expected))
    for number, (one, other) in enumerate(zip(found, expected, strict=False)):
        faults += _unequal(f"class {number}", one, other)
    return _verdict("shards", faults, f"digest {shards.content_digest}")


def _run_faults(state: Checkpoint, network: nn.Cell, shards: Shards) -> Iterator[str]:
    run, num_samples = state.run, shards.num_samples("train")
    try:
        batch = run.recipe.global_batch(run.world_size)
    except UserError as error:
        yield str(error)
        return
    yield from _unequal("global batch", run.global_batch_size, batch)
    yield from _unequal("steps per epoch", run.steps_per_epoch, num_samples // batch)
    num_params = sum(
        parameter.size
        for parameter in network.trainable_params()
        if parameter.name.split(".")[0] not in run.recipe.freeze
    )
    yield from _unequal("trainable parameters", state.num_params, num_params)


def _progress_faults(state: Checkpoint) -> Iterator[str]:
    run = state.run
    yield from _unequal("step", state.step, run.total_steps)
    yield from _unequal("samples seen", state.samples_seen, state.step * run.global_batch_size)
    yield from _unequal("epoch", state.epoch, state.step // run.steps_per_epoch)


def _layout_faults(state: Checkpoint) -> Iterator[str]:
    first_steps = [layout.first_step for layout in state.layouts]
    if first_steps[:1] != [0]:
        yield f"first steps are {_short(first_steps)}, expected them from 0 on"
    if sorted({*first_steps}) != first_steps or any(step >= state.step for step in first_steps):
        yield (
            f"first steps are {_short(first_steps)}, expected them rising, below "
            f"{_short(state.step)}"
        )
    for layout in state.layouts:
        if not state.run.recipe.can_divide(state.run.global_batch_size, layout.world_size):
            yield (
                f"{_short(layout.world_size)} ranks can't share a global batch of "
                f"{_short(state.run.global_batch_size)}"
            )


def _evaluation_faults(state: Checkpoint, shards: Shards) -> Iterator[str]:
    run, epochs = state.run, [epoch for epoch, _ in state.evaluations]
    if sorted({*epochs}) != epochs:
        yield f"epochs are {_short(epochs)}, expected them rising"
    yield from _unequal("last epoch", epochs[-1:], [run.recipe.epoch_size])
    seen = shards.num_samples("val")
    for epoch, evaluation in state.evaluations:
        of_epoch = f"of epoch {_short(epoch)}:"
        yield from _unequal(f"{of_epoch} split", evaluation.split, "val")
        yield from _unequal(
            f"{of_epoch} resolution", evaluation.resolution, run.recipe.image_resize
        )
        yield from _unequal(f"{of_epoch} seen", evaluation.seen, seen)
        yield from _unequal(f"{of_epoch} seen of all classes", sum(evaluation.class_seen), seen)
        yield from _unequal(
            f"{of_epoch} correct of all classes",
            sum(evaluation.class_correct),
            evaluation.correct_top1,
        )
        if not evaluation.correct_top1 <= evaluation.correct_top5 <= evaluation.seen:
            yield f"{of_epoch} correct@1, correct@5 and seen do not rise"
    # The first of equals.
    best = max(state.evaluations, key=lambda entry: entry[1].correct_top1, default=None)
    yield from _unequal("best count", state.best_top1, best and best[1].correct_top1)
    yield from _unequal("best step", state.best_step, best and best[0] * run.steps_per_epoch)


def _files(directory: Path, state: Checkpoint) -> Check:
    names = [file.name for file in state.files]
    faults = [] if names == [MODEL_FILE] else [f"files are {_short(names)}, expected {MODEL_FILE}"]
    for file in state.files:
        path = directory / file.name
        try:
            size, sha256 = path.stat().st_size, file_sha256(path)
        except OSError as error:
            faults.append(f"{file.name} can't be read: {error.strerror}")
            continue
        faults += _unequal(f"size of {file.name}", size, file.size)
        faults += _unequal(f"sha256 of {file.name}", sha256, file.sha256)
    return _verdict("files", faults, f"{len(names)} as recorded")


def _of_weights(file: Path, network: nn.Cell) -> Iterator[Check]:
    try:
        values = read_weights(file)
    except UserError as error:
        yield _failed("weights", _told(error, file.parent))
        return
    yield Check(name="weights", passed=True, detail=f"{len(values)} arrays")
    shapes = {parameter.name: tuple(parameter.shape) for parameter in network.get_parameters()}
    yield _verdict("parameters", _parameter_faults(values, shapes), f"{len(shapes)} of the network")
    finite = (f"{printable(name)} has values that are not" for name in _where(values, _not_finite))
    yield _verdict("finite", finite, "all values")
    variances = {name: v for name, v in values.items() if name.endswith(".moving_variance")}
    faults = (
        f"{printable(name)} has values that are not" for name in _where(variances, _not_positive)
    )
    yield _verdict("positive variances", faults, f"all of {len(variances)} arrays")


def _parameter_faults(values: Values, shapes: Shapes) -> Iterator[str]:
    """Each is there, and nothing else but what a training step keeps beside them."""
    yield from (f"{name} is missing" for name in shapes if name not in values)
    for name, value in values.items():
        prefix = next((each for each in _PREFIXES if name.startswith(each)), "")
        parameter = name.removeprefix(prefix)
        if parameter in shapes:
            yield from _unequal(f"shape of {name}", value.shape, shapes[parameter])
            yield from _unequal(f"type of {name}", value.dtype.name, "float32")
        elif name not in (*STATE, *_OF_NO_PARAMETER):
            yield f"{printable(name)} is unknown"


def _where(values: Values, fault: Callable[[npt.NDArray[np.generic]], bool]) -> Iterator[str]:
    return (name for name, value in values.items() if value.dtype.kind == "f" and fault(value))


def _not_finite(value: npt.NDArray[np.generic]) -> bool:
    return not np.isfinite(value).all()


def _not_positive(value: npt.NDArray[np.generic]) -> bool:
    return not np.greater(value, 0).all()


def _unequal(what: str, found: object, expected: object) -> Iterator[str]:
    if found != expected:
        yield f"{what} is {_short(found)}, expected {_short(expected)}"


def _verdict(name: str, faults: Sequence[str] | Iterator[str], detail: str) -> Check:
    faults = list(faults)
    if not faults:
        return Check(name=name, passed=True, detail=detail)
    more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
    return _failed(name, "; ".join(faults[:_SHOWN]) + more)


def _failed(name: str, detail: str) -> Check:
    return Check(name=name, passed=False, detail=" ".join(detail.split()))


def _told(error: UserError, directory: Path) -> str:
    """Without where the checkpoint lies: it is the same anywhere."""
    return str(error).replace(f"{directory}{os.sep}", "")


def _short(value: object) -> str:
    """Fit for one line: what a file holds may be long and strange."""
    try:
        text = ascii(value)
    except ValueError:  # Python prints no number of more than 4300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 100 else f"{text[:100]}…"
