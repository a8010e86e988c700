"""Checkpoints as directories: `step-00001234/{model.ckpt, state.json}`, complete or absent.

A checkpoint is written under another name, synced and renamed. `state.json` holds the size and the
SHA-256 of every other file, so that damage is detected, reported and skipped. `docs/training.md`
describes the layout and what is done about each kind of damage.
"""

import json
import re
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, get_args

import mindspore as ms
import numpy as np
import numpy.typing as npt
from mindspore import Tensor, nn

from infra.base.files import file_sha256, fsync, set_access
from infra.base.records import MAX_RECORD_BYTES
from infra.base.shortages import room
from sknet.errors import CheckpointError, UserError, shortened
from sknet.models.weight_files import read_weights
from sknet.models.weights import set_exactly
from sknet.records import Checkpoint, CheckpointFile, Run
from sknet.records.training import MODEL_FILE, STATE_FILE
from sknet.world import World

STATISTICS_FILE = "statistics.npy"
FORMAT: int = Checkpoint.model_fields["format_version"].default
_READ_FORMATS: tuple[int, ...] = get_args(Checkpoint.model_fields["format_version"].annotation)

_NAME = re.compile(r"step-\d{8}")
_SAVING, _REMOVING = ".saving", ".removing"
# The fields of a run that follow from the number of ranks for which it was planned.
_WORLD_FIELDS = {"world_size", "global_batch_size", "steps_per_epoch"}

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Snapshot:
    """A copy of the whole state of a training step in host memory."""

    parameters: dict[str, Array]
    """Weights, statistics and optimizer state of rank 0, by name."""
    statistics: npt.NDArray[np.float32] | None = None
    """The statistics of all ranks (ranks, values), where they differ between ranks."""

    def find_non_finite(self) -> str | None:
        """Return the name of values that are not all finite; None if all are.

        The statistics of all ranks are the same array on each of them, so that all find it.
        """
        for name, values in self.parameters.items():
            if not np.isfinite(values).all():
                return name
        if self.statistics is not None:
            for rank, own in enumerate(self.statistics):
                if not np.isfinite(own).all():
                    return f"BatchNorm of rank {rank}"
        return None

    @property
    def num_bytes(self) -> int:
        """Approximate size of the checkpoint."""
        own = 0 if self.statistics is None else self.statistics.nbytes
        return own + sum(array.nbytes for array in self.parameters.values())


def parameters_of(step_cell: nn.Cell) -> dict[str, Array]:
    """Return copies of all parameters by name, in their order."""
    return {p.name: np.array(p.asnumpy()) for p in step_cell.get_parameters()}


def checkpoint_name(step: int) -> str:
    """Return the name of the directory of a checkpoint."""
    return f"step-{step:08}"


def write(snapshot: Snapshot, directory: Path, state: Checkpoint) -> Path:
    """Write a checkpoint into a directory of checkpoints and return its path.

    Args:
        snapshot: The state of the training step.
        directory: The directory of checkpoints.
        state: The state of the loop; its `files` are filled in.

    Raises:
        OSError: The disk doesn't accept it. Nothing is left behind.
    """
    staging = directory / _SAVING
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir(parents=True)
        _write_files(staging, snapshot, state)
        final = directory / checkpoint_name(state.step)
        _remove(final)
        staging.rename(final)
    except OSError:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    fsync(directory)
    return final


def _write_files(staging: Path, snapshot: Snapshot, state: Checkpoint) -> None:
    parameters = [
        {"name": name, "data": Tensor(array)} for name, array in snapshot.parameters.items()
    ]
    ms.save_checkpoint(parameters, str(staging / MODEL_FILE), crc_check=True)
    names = [MODEL_FILE]
    if snapshot.statistics is not None:
        np.save(staging / STATISTICS_FILE, snapshot.statistics, allow_pickle=False)
        names.append(STATISTICS_FILE)
    files = tuple(
        CheckpointFile(
            name=name,
            size=(staging / name).stat().st_size,
            sha256=file_sha256(staging / name),
        )
        for name in names
    )
    state.model_copy(update={"files": files}).write(staging / STATE_FILE)
    # MindSpore makes a file that only its owner may read.
    set_access(staging / MODEL_FILE, (staging / STATE_FILE).stat())
    for path in (*(staging / name for name in names), staging / STATE_FILE, staging):
        fsync(path)


def read_state(checkpoint: Path) -> Checkpoint:
    """Return the state of a checkpoint after its files were verified.

    Raises:
        UserError: A file is missing or damaged.
    """
    state = Checkpoint.read(checkpoint / STATE_FILE)
    for file in state.files:
        path = checkpoint / file.name
        if not path.is_file():
            raise UserError(f"checkpoint file {path} is missing")
        if path.stat().st_size != file.size or file_sha256(path) != file.sha256:
            raise UserError(f"checkpoint file {path} is damaged (SHA-256 differs)")
    return state


def restore(step_cell: nn.Cell, checkpoint: Path) -> None:
    """Set all parameters of a training step from a checkpoint.

    Raises:
        UserError: The file doesn't fit the training step.
    """
    file = checkpoint / MODEL_FILE
    set_exactly(step_cell, read_weights(file), file)


def read_statistics(checkpoint: Path) -> npt.NDArray[np.float32] | None:
    """Return `Snapshot.statistics` of a verified checkpoint."""
    path = checkpoint / STATISTICS_FILE
    if not path.is_file():
        return None
    values: npt.NDArray[np.float32] = np.load(path, allow_pickle=False)
    return values


def list_checkpoints(directory: Path) -> list[Path]:
    """Return all checkpoints in a directory from oldest to newest, damaged ones included."""
    if not directory.is_dir():
        return []
    return sorted(path for path in directory.iterdir() if _NAME.fullmatch(path.name))


def newest_valid(
    directory: Path, run: Run, on_skip: Callable[[Path, str], None], *, last: int | None = None
) -> tuple[Path, Checkpoint] | None:
    """Return the newest checkpoint of a run that is not damaged, if there is one.

    Args:
        directory: The directory of checkpoints.
        run: The run. Its checkpoints may have been planned for another number of ranks.
        on_skip: Called with the path and the fault of each newer checkpoint that is damaged.
        last: Largest step that counts; None: any.

    Raises:
        UserError: A checkpoint belongs to another run, so that resuming would mix two trainings, or
            has another format, in which it may be valid.
    """
    found = list_checkpoints(directory)
    if last is not None:
        found = [path for path in found if path.name <= checkpoint_name(last)]
    for path in reversed(found):
        _refuse_other_format(path)
        try:
            state = read_state(path)
        except UserError as error:
            on_skip(path, str(error))
            continue
        # Earlier versions recorded choices that change nothing in a checkpoint.
        there, wanted = (
            each.model_copy(update={"recipe": each.recipe.of_training()})
            for each in (state.run, run)
        )
        changed = [
            name for name in Run.model_fields if getattr(there, name) != getattr(wanted, name)
        ]
        if set(changed) - _WORLD_FIELDS:
            raise UserError(
                f"{directory} holds checkpoints of another run ({_described(there, wanted)}): "
                "give another --ckpt_save_dir or remove them"
            )
        return path, state
    return None


def newest_of_all(
    directory: Path,
    run: Run,
    world: World,
    on_skip: Callable[[Path, str], None],
    report: Callable[[str], None],
) -> tuple[Path, Checkpoint] | None:
    """Return the newest checkpoint that all ranks have, each in its host's directory.

    A rank on another host may find one damaged, which the others then don't use either.

    Args:
        directory: The directory of checkpoints.
        run: The run.
        world: The ranks, all of which have to call this.
        on_skip: As for `newest_valid`.
        report: Told if a rank lacks the newest one.

    Raises:
        UserError: As of `newest_valid`; or some ranks have a checkpoint, and others have none.
    """
    newest = newest_valid(directory, run, on_skip)
    while True:
        step = newest[1].step if newest else 0
        steps = [int(each) for each in world.gather(b"%d" % step)]
        common = min(steps)
        if max(steps) == common:
            return newest
        if not common:
            raise UserError(
                f"rank {world.rank} finds step {step} in {directory}, other ranks find another "
                "one: all need the same --ckpt_save_dir on a shared file system"
            )
        report(f"rank {steps.index(common)} has only {checkpoint_name(common)}: all start there")
        newest = newest_valid(directory, run, on_skip, last=common)


def _described(found: Run, wanted: Run) -> str:
    """Describe how a run differs from the one that is wanted, by name and both values."""
    there, here = dict(found.recipe) | dict(found), dict(wanted.recipe) | dict(wanted)
    return "; ".join(
        f"{name} is {shortened(there[name])} there, {shortened(here[name])} here"
        for name in here
        if name not in {"recipe", *_WORLD_FIELDS} and there[name] != here[name]
    )


def _refuse_other_format(checkpoint: Path) -> None:
    path = checkpoint / STATE_FILE
    try:
        if path.stat().st_size > MAX_RECORD_BYTES:
            return
        version = json.loads(path.read_bytes())["format_version"]
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return  # damaged, which read_state reports
    if not isinstance(version, int) or version == FORMAT:
        return
    if version in _READ_FORMATS:
        raise UserError(
            f"{checkpoint} was trained by an older version, which augmented images otherwise "
            f"(format {version}, this one trains on {FORMAT}): finish the training with that "
            "version, or give another --ckpt_save_dir to train anew"
        )
    raise UserError(
        f"{checkpoint} was written by {'a newer' if version > FORMAT else 'an older'} version "
        f"(format {version}, this one reads {FORMAT}): use that version, or give "
        "another --ckpt_save_dir"
    )


def remove_old(directory: Path, keep: int, best_step: int | None) -> None:
    """Remove all checkpoints but the newest `keep` and the best one, and leftovers of killed saves.

    No save may be in progress.
    """
    for name in (_SAVING, _REMOVING):
        shutil.rmtree(directory / name, ignore_errors=True)
    for path in list_checkpoints(directory)[:-keep]:
        if best_step is None or path.name != checkpoint_name(best_step):
            _remove(path)


def set_aside(checkpoint: Path) -> Path:
    """Rename a damaged checkpoint so that it is never listed again, and return its new path."""
    aside = checkpoint.with_name(f"damaged-{checkpoint.name}")
    _remove(aside)
    return checkpoint.rename(aside)


def _remove(path: Path) -> None:
    """Remove a directory or file in one step for readers: half a directory would look damaged."""
    removing = path.with_name(_REMOVING)
    for target in (removing, path):
        if target.is_dir() and not target.is_symlink():
            if target is path:
                path.rename(removing)
            shutil.rmtree(removing)
        else:
            target.unlink(missing_ok=True)


class Saver:
    """Writes checkpoints in a thread, one at a time, and removes old ones.

    If the disk doesn't accept a checkpoint, a warning is reported and the training continues. Only
    for the last checkpoint this is an error.
    """

    def __init__(self, directory: Path, keep: int, report: Callable[[str], None]) -> None:
        self._directory, self._keep, self._report = directory, keep, report
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(self, snapshot: Snapshot, state: Checkpoint) -> None:
        """Start to write a checkpoint as soon as the previous one is written.

        Raises:
            BaseException: The error that ended the previous save, if the disk was not the cause.
        """
        self._wait()
        self._start(snapshot, state, self._warn)

    def save_last(self, snapshot: Snapshot, state: Checkpoint) -> None:
        """Write a checkpoint before returning.

        Raises:
            CheckpointError: The disk doesn't accept it.
        """
        self._wait()
        self._start(snapshot, state, self._refuse)
        self._wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Whatever ended the training, the checkpoint being written is of a valid state before it.
        if self._thread:
            self._thread.join()

    def _start(
        self, snapshot: Snapshot, state: Checkpoint, on_fault: Callable[[str], None]
    ) -> None:
        def work() -> None:
            try:
                try:
                    write(snapshot, self._directory, state)
                except OSError as error:
                    on_fault(self._describe(error, snapshot, state))
                else:
                    remove_old(self._directory, self._keep, state.best_step)
            except BaseException as error:  # noqa: BLE001 (raised again by the training's thread)
                self._error = error

        self._thread = threading.Thread(target=work, name="saver", daemon=True)
        self._thread.start()

    def _wait(self) -> None:
        if self._thread:
            self._thread.join()
            self._thread = None
        if self._error:
            raise self._error

    def _describe(self, error: OSError, snapshot: Snapshot, state: Checkpoint) -> str:
        existing = list_checkpoints(self._directory)
        return (
            f"{checkpoint_name(state.step)} was not saved: {error.strerror} "
            f"(it {room(snapshot.num_bytes, self._directory)}); "
            f"the newest checkpoint is {existing[-1].name if existing else 'none'}"
        )

    def _warn(self, fault: str) -> None:
        self._report(f"warning: {fault}; the training continues")

    def _refuse(self, fault: str) -> None:
        raise CheckpointError(f"{fault}: make room, then start the same command again")
