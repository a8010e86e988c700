"""One training a directory: two would mix their checkpoints."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sknet.errors import UserError

# The ranks of a job that was just killed get time to end.
LOCK_SECONDS = 60


@contextmanager
def locked(directory: Path, rank: int) -> Iterator[None]:
    """The rank's place in the directory, whose lock ends with the process at the latest.

    Raises UserError if another process holds it for LOCK_SECONDS, or the directory can't be
    written.
    """
    try:
        opened = (directory / f".rank-{rank}.lock").open("w")
    except OSError as error:
        raise UserError(f"{directory} can't be written: {error.strerror}") from None
    with opened as lock:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise UserError(
                        f"another training has been at work in {directory} for {LOCK_SECONDS} s: "
                        "wait for it, or give another directory"
                    ) from None
                time.sleep(0.5)
        yield
