"""Files verified by SHA-256 once a host: ranks and later runs trust an unchanged file."""

import hashlib
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from infra.base.files import cache_directory, file_sha256
from infra.base.verified import FileStatus, read_verified, write_verified


def damaged(files: Iterable[tuple[Path, str]]) -> Iterator[Path]:
    """Yield those of (path, SHA-256) whose content is another one.

    A file that was found sound is remembered in the host's cache. The processes of a host share
    the work: none waits for another's file before all others are done.

    Raises:
        OSError: A file can't be read.
    """
    busy = []
    for path, sha256 in files:
        sound = _is_sound(path, sha256, wait=False)
        if sound is None:
            busy.append((path, sha256))
        elif not sound:
            yield path
    for path, sha256 in busy:
        if not _is_sound(path, sha256, wait=True):
            yield path


def _is_sound(path: Path, sha256: str, *, wait: bool) -> bool | None:
    """Whether a file has this SHA-256; None if another process is reading it, unless `wait`."""
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]
    memory = cache_directory("verified") / f"{name}.json"
    if _is_known(memory, path, sha256):
        return True
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(memory.with_suffix(".lock"))
        lock.acquire(blocking=wait)
    except Timeout:
        return None
    except OSError:  # there is no cache here: every process finds out for itself
        return file_sha256(path) == sha256
    try:
        if _is_known(memory, path, sha256):
            return True
        began = time.time_ns()
        status = FileStatus.of(path.stat())
        if file_sha256(path) != sha256:
            return False
        if status.had_settled(began):
            write_verified(memory, sha256, {path.name: status})
        return True
    finally:
        lock.release()


def _is_known(memory: Path, path: Path, sha256: str) -> bool:
    return read_verified(memory, sha256).get(path.name) == FileStatus.of(path.stat())
