"""Checkpoints saved beside the training: it goes on while a thread writes what it was."""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from sknet.errors import CheckpointError
from sknet.records import Checkpoint
from sknet.training import checkpoint
from sknet.training.checkpoint import Snapshot

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
