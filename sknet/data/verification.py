"""Verifies files by SHA-256 once on each host: ranks and later runs trust an unchanged file."""

import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from infra.base.files import cache_directory, file_sha256
from infra.base.progress import Count, work
from infra.base.verified import FileStatus, read_verified, write_verified


def damaged(files: Iterable[tuple[Path, str]]) -> Iterator[Path]:
    """Yield the files whose content doesn't have the expected SHA-256.

    Undamaged files are remembered in the host's cache. The processes of a host share the work: none
    waits for a file that another one is reading before it has looked at all others.

    Args:
        files: Path and expected SHA-256 of each file.

    Raises:
        OSError: A file can't be read.
    """
    files, busy = list(files), []
    num_bytes = sum(path.stat().st_size for path, _ in files)
    with work(f"verifying {len(files)} files", num_bytes) as count:
        for path, sha256 in files:
            matches = _matches(path, sha256, count, wait=False)
            if matches is None:
                busy.append((path, sha256))
            elif not matches:
                yield path
        for path, sha256 in busy:
            if not _matches(path, sha256, count, wait=True):
                yield path


def _matches(path: Path, sha256: str, count: Count, *, wait: bool) -> bool | None:
    """Tell whether a file has this SHA-256.

    Returns:
        None if another process is reading the file, unless `wait`.
    """
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]
    memory = cache_directory("verified") / f"{name}.json"
    if _is_remembered(memory, path, sha256):
        count(path.stat().st_size)
        return True
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(memory.with_suffix(".lock"), fallback_to_soft=False)
        lock.acquire(blocking=wait)
    except Timeout:
        return None
    except OSError:  # there is no cache: every process reads the file itself
        return file_sha256(path, count) == sha256
    try:
        if _is_remembered(memory, path, sha256):
            count(path.stat().st_size)
            return True
        began = time.time_ns()
        status = FileStatus.of(path.stat())
        matches = file_sha256(path, count) == sha256
        if matches and status.had_settled(began):
            write_verified(memory, sha256, {"file": status})
        return matches
    finally:
        lock.release()


def _is_remembered(memory: Path, path: Path, sha256: str) -> bool:
    return read_verified(memory, sha256).get("file") == FileStatus.of(path.stat())
