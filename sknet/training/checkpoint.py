"""Checkpoints as directories: `step-00001234/{model.ckpt, state.json}`, whole or absent.

Written beside its place, synced, and renamed, with `state.json` holding the size and SHA-256 of
every other file: what is damaged is recognised, named and skipped. `docs/training.md` has the
layout and what is done about each kind of damage.
"""

import json
import os
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
from mindspore import Tensor, nn, ops

from infra.base.files import file_sha256
from infra.base.records import MAX_RECORD_BYTES
from sknet.errors import CheckpointError, UserError
from sknet.models.weight_files import read_weights
from sknet.models.weights import set_exactly
from sknet.records import Checkpoint, CheckpointFile, Run
from sknet.training import checkpoint
from sknet.training.step import moving_statistics

MODEL_FILE = "model.ckpt"

STATE_FILE = "state.json"

STATISTICS_FILE = "statistics.npy"

FORMAT: int = get_args(Checkpoint.model_fields["format_version"].annotation)[0]

# What follows from the number of ranks for which a run was planned.
_OF_THE_WORLD = {"world_size", "global_batch_size", "steps_per_epoch"}

_NAME = re.compile(r"step-\d{8}")

_SAVING, _REMOVING = ".saving", ".removing"

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Snapshot:
    """A training step's whole state in host memory, apart from what goes on training."""

    parameters: dict[str, Array]
    """Weights, statistics, optimizer; of rank 0."""
    statistics: npt.NDArray[np.float32] | None = None
    """Each rank's own (ranks, values), where they differ: see sknet.training.checkpoint."""

    @property
    def num_bytes(self) -> int:
        """About the size of the checkpoint."""
        own = 0 if self.statistics is None else self.statistics.nbytes
        return own + sum(array.nbytes for array in self.parameters.values())


def parameters_of(step_cell: nn.Cell) -> dict[str, Array]:
    """Copies of all parameters, in their order."""
    return {p.name: np.array(p.asnumpy()) for p in step_cell.get_parameters()}


def checkpoint_name(step: int) -> str:
    """Of the directory."""
    return f"step-{step:08}"


def write(snapshot: Snapshot, directory: Path, state: Checkpoint) -> Path:
    """Write the snapshot, and the state with its files, as `directory/step-<step>`; return that.

    Raises OSError, leaving nothing behind, if the disk doesn't take it.
    """
    staging = directory / _SAVING
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir(parents=True)
        _fill(staging, snapshot, state)
        final = directory / checkpoint_name(state.step)
        _remove(final)
        staging.rename(final)
    except OSError:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    _sync(directory)
    return final


def _fill(staging: Path, snapshot: Snapshot, state: Checkpoint) -> None:
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
    for path in (*(staging / name for name in names), staging / STATE_FILE, staging):
        _sync(path)


def read_state(checkpoint: Path) -> Checkpoint:
    """The state of a checkpoint directory, its files verified. Raises UserError naming a fault."""
    state = Checkpoint.read(checkpoint / STATE_FILE)
    for file in state.files:
        path = checkpoint / file.name
        if not path.is_file():
            raise UserError(f"checkpoint file {path} is missing")
        if path.stat().st_size != file.size or file_sha256(path) != file.sha256:
            raise UserError(f"checkpoint file {path} is damaged (SHA-256 differs)")
    return state


def newest_valid(
    directory: Path, run: Run, on_skip: Callable[[Path, str], None]
) -> tuple[Path, Checkpoint] | None:
    """The newest sound checkpoint of the run, which may be planned for another number of ranks.

    `on_skip` gets path and fault of each newer one that is not sound. Raises UserError for a
    checkpoint of another run, as continuing it would mix two trainings, and for one in another
    format, which may be sound.
    """
    for path in reversed(list_checkpoints(directory)):
        _refuse_other_format(path)
        try:
            state = read_state(path)
        except UserError as error:
            on_skip(path, str(error))
            continue
        changed = [
            name for name in Run.model_fields if getattr(state.run, name) != getattr(run, name)
        ]
        if set(changed) - _OF_THE_WORLD:
            raise UserError(
                f"{directory} holds checkpoints of another run (other {', '.join(changed)}): "
                "give another --ckpt_save_dir or remove them"
            )
        return path, state
    return None


def restore(step_cell: nn.Cell, checkpoint: Path) -> None:
    """Load all parameters. Raises UserError if the file has another content."""
    file = checkpoint / MODEL_FILE
    set_exactly(step_cell, read_weights(file), file)


def read_statistics(checkpoint: Path) -> npt.NDArray[np.float32] | None:
    """`Snapshot.statistics`, of a checkpoint that was found to be valid."""
    path = checkpoint / STATISTICS_FILE
    if not path.is_file():
        return None
    values: npt.NDArray[np.float32] = np.load(path, allow_pickle=False)
    return values


def list_checkpoints(directory: Path) -> list[Path]:
    """From the oldest on, sound or not."""
    if not directory.is_dir():
        return []
    return sorted(path for path in directory.iterdir() if _NAME.fullmatch(path.name))


def remove_old(directory: Path, keep: int, best_step: int | None) -> None:
    """Keep the newest `keep` checkpoints, and the best one whatever its age.

    What a kill left of others goes too, so no save may be under way.
    """
    for name in (_SAVING, _REMOVING):
        shutil.rmtree(directory / name, ignore_errors=True)
    for path in list_checkpoints(directory)[:-keep]:
        if best_step is None or path.name != checkpoint_name(best_step):
            _remove(path)


def set_aside(checkpoint: Path) -> Path:
    """Rename a damaged one so that it never counts as a checkpoint; return where it is now."""
    aside = checkpoint.with_name(f"damaged-{checkpoint.name}")
    _remove(aside)
    return checkpoint.rename(aside)


def _refuse_other_format(checkpoint: Path) -> None:
    path = checkpoint / STATE_FILE
    try:
        if path.stat().st_size > MAX_RECORD_BYTES:
            return
        version = json.loads(path.read_bytes())["format_version"]
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return  # damaged, which is for read_state to say
    if isinstance(version, int) and version != FORMAT:
        raise UserError(
            f"{checkpoint} was written by {'a newer' if version > FORMAT else 'an older'} version "
            f"(format {version}, this one reads {FORMAT}): go on with that version, or give "
            "another --ckpt_save_dir"
        )


def _remove(path: Path) -> None:
    """At once for all who look: a half removed directory would look damaged."""
    removing = path.with_name(_REMOVING)
    for place in (removing, path):
        if place.is_dir() and not place.is_symlink():
            if place is path:
                path.rename(removing)
            shutil.rmtree(removing)
        else:
            place.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


Statistics = npt.NDArray[np.float32]


def gather(step_cell: nn.Cell) -> Statistics:
    """All ranks' statistics (ranks, values), on every rank; to be called by all of them."""
    own = np.concatenate([p.asnumpy().reshape(-1) for p in moving_statistics(step_cell)])
    gathered: Statistics = ops.AllGather()(Tensor(own[None])).asnumpy()
    return np.array(gathered)


def assign(step_cell: nn.Cell, gathered: Statistics, rank: int, world_size: int) -> None:
    """Set what `gather` returned: the rank's own, or their mean in another world."""
    values = gathered[rank] if len(gathered) == world_size else gathered.mean(axis=0)
    start = 0
    for parameter in moving_statistics(step_cell):
        part = values[start : start + parameter.size]
        parameter.set_data(Tensor(part.reshape(parameter.shape)))
        start += parameter.size


_MEGABYTE = 1e6


class Saver:
    """Writes one checkpoint at a time and keeps the newest few and the best.

    A disk that doesn't take a checkpoint costs that one: `say` gets a warning, and the training
    goes on. Only of the last one is that an error.
    """

    def __init__(self, directory: Path, keep: int, say: Callable[[str], None]) -> None:
        self._directory, self._keep, self._say = directory, keep, say
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(self, snapshot: Snapshot, state: Checkpoint) -> None:
        """Start to write, once the one before is written; raises what befell that."""
        self._wait()
        self._start(snapshot, state, self._warn)

    def save_last(self, snapshot: Snapshot, state: Checkpoint) -> None:
        """Write it before this returns. Raises CheckpointError if the disk doesn't take it."""
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
        # Whatever ended the training, what is being written is of a sound state before it.
        if self._thread:
            self._thread.join()

    def _start(
        self, snapshot: Snapshot, state: Checkpoint, on_fault: Callable[[str], None]
    ) -> None:
        def work() -> None:
            try:
                try:
                    checkpoint.write(snapshot, self._directory, state)
                except OSError as error:
                    on_fault(self._describe(error, snapshot, state))
                else:
                    checkpoint.remove_old(self._directory, self._keep, state.best_step)
            except BaseException as error:  # noqa: BLE001 (raised again by the training)
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
        free = shutil.disk_usage(self._directory).free / _MEGABYTE
        there = checkpoint.list_checkpoints(self._directory)
        return (
            f"{checkpoint.checkpoint_name(state.step)} was not saved: {error.strerror} (it needs "
            f"{snapshot.num_bytes / _MEGABYTE:.3g} MB, {free:.3g} MB are free in "
            f"{self._directory}); the newest checkpoint is {there[-1].name if there else 'none'}"
        )

    def _warn(self, fault: str) -> None:
        self._say(f"warning: {fault}; the training goes on")

    def _refuse(self, fault: str) -> None:
        raise CheckpointError(f"{fault}: make room, then start the same command again")
