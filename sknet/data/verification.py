"""Files verified by SHA-256 once a host: ranks and later runs trust an unchanged file."""

import fcntl
import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from sknet.cache import cache_directory, is_settled


def damaged(files: Iterable[tuple[Path, str]]) -> Iterator[Path]:
    """Those of (path, sha256) whose content is another one.

    What was found sound is remembered by device, inode, size and times. Processes of a host share
    the work: none waits for a file before all others are done. Raises OSError.
    """
    busy = []
    for path, sha256 in files:
        verdict = _verdict(path, sha256, wait=False)
        if verdict is None:
            busy.append((path, sha256))
        elif not verdict:
            yield path
    for path, sha256 in busy:
        if not _verdict(path, sha256, wait=True):
            yield path


def file_sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verdict(path: Path, sha256: str, *, wait: bool) -> bool | None:
    """Whether the content is sound; None if another process is finding out, unless `wait`."""
    found = path.stat()
    times = (found.st_mtime_ns, found.st_ctime_ns)
    facts = (sha256, found.st_dev, found.st_ino, found.st_size, *times)
    name = hashlib.sha256(repr(facts).encode()).hexdigest()[:32]
    directory = cache_directory("verified")
    record = directory / name  # empty: that it is there says all
    if record.exists():
        return True
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = os.open(directory / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError:  # no cache here: every process finds out for itself
        return file_sha256(path) == sha256
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return None
        if record.exists():
            return True
        began = time.time_ns()
        if file_sha256(path) != sha256:
            return False
        if is_settled(max(times), began):
            record.touch()
        return True
    finally:
        os.close(lock)
