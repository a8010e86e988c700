"""This host's copies of artifacts: fetched once, verified, and within a limit of bytes.

    <root>/<digest>/files/         files of the artifact with this digest, each of them whole
    <root>/<digest>/verified.json  their statuses when they were verified
    <root>/<digest>.use            a lock that all processes share that use the files
    <root>/<digest>.fetch          a lock for the one process that fetches
    <root>/.damaged/               files that `Cache.check` found damaged; beside the limit

The least recently used artifacts are evicted first. A file is read whole before it is trusted,
unless it was verified before and hasn't changed since (`infra.base.verified`).
"""

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from infra.artifacts.documents import StoreError
from infra.artifacts.inspection import compare_directory
from infra.artifacts.records import Damage, FileEntry, Manifest
from infra.base.files import file_sha256, scan
from infra.base.locks import exclusive, share_for_life
from infra.base.progress import Count
from infra.base.verified import FileStatus, read_verified, write_verified

logger = logging.getLogger(__name__)

TRANSFERS = 8
"""Files that are transferred at a time: several, to hide the latency of small ones."""

Download = Callable[[FileEntry, Path, Count], None]
"""Writes the file of an entry, exactly as the entry describes it, to a path, and counts bytes."""


class CacheFullError(StoreError):
    """The limit of the cache leaves no room for what is needed."""


class Cache:
    """A directory of copies, safe for any number of threads and processes of one host."""

    _in_use: set[tuple[Path, int]] = set()  # noqa: RUF012 (by this process, in all its caches)

    def __init__(self, root: Path, limit: int | None = None) -> None:
        """Use a directory, and a limit in bytes (default: half of the file system of `root`)."""
        self.root = root
        self._limit = limit

    def fetch(self, manifest: Manifest, entries: tuple[FileEntry, ...], download: Download) -> Path:
        """Make files of an artifact available here, and return the directory that holds them.

        They stay at least until this process ends.

        Args:
            manifest: The artifact.
            entries: Those of its files that are wanted.
            download: Gets a file that isn't here.

        Raises:
            CacheFullError: What other processes use leaves too little room.
        """
        directory = self.root / manifest.digest
        self._use(directory)
        with exclusive(directory.with_suffix(".fetch")):
            began = time.time_ns()
            verified = read_verified(directory / "verified.json", manifest.digest)
            missing = [entry for entry in entries if not _is_right(directory, entry, verified)]
            if missing:
                self._make_room(sum(entry.size for entry in missing), manifest)
                _download_all(manifest, directory, missing, download)
            _remember(directory, manifest, entries, verified, began)
            os.utime(directory)
        return directory / "files"

    def has(self, manifest: Manifest, entry: FileEntry) -> bool:
        """Tell whether a file of an artifact is here, verified or not."""
        status = _status(self.root / manifest.digest / "files" / entry.path)
        return status is not None and status.size == entry.size

    def check(self, manifest: Manifest, download: Download) -> tuple[Damage, ...]:
        """Read the files of an artifact that are here, and fetch damaged ones again.

        Damaged files are moved to ``.damaged/``.

        Returns:
            What was wrong.
        """
        directory = self.root / manifest.digest
        if not directory.is_dir():
            return ()
        self._use(directory)
        with exclusive(directory.with_suffix(".fetch")):
            differences, _ = compare_directory(directory / "files", manifest, "full")
            damages = [each for each in differences if each.problem not in ("missing", "extra")]
            for damage in damages:
                aside = self.root / ".damaged" / f"{manifest.digest}-{uuid4().hex}" / damage.path
                aside.parent.mkdir(parents=True)
                (directory / "files" / damage.path).rename(aside)
                logger.warning("%s of the cache is damaged, moved to %s", damage.path, aside)
            if damages:
                paths = {damage.path for damage in damages}
                again = [entry for entry in manifest.files if entry.path in paths]
                _download_all(manifest, directory, again, download)
        return tuple(damages)

    @property
    def limit(self) -> int:
        """How many bytes of files may be here."""
        if self._limit is not None:
            return self._limit
        return shutil.disk_usage(self.root).total // 2

    def _use(self, directory: Path) -> None:
        directory.parent.mkdir(parents=True, exist_ok=True)
        user = (directory, os.getpid())
        if user not in self._in_use:
            share_for_life(directory.with_suffix(".use"))
            self._in_use.add(user)
        (directory / "files").mkdir(parents=True, exist_ok=True)

    def _make_room(self, needed: int, manifest: Manifest) -> None:
        sizes = {directory: _num_bytes(directory) for directory in self._directories()}
        excess = sum(sizes.values()) + needed - self.limit
        for directory in sorted(sizes, key=_last_used):
            if excess <= 0:
                return
            if _evict(directory):
                excess -= sizes[directory]
        if excess > 0:
            raise CacheFullError(
                f"{manifest.kind}/{manifest.key} needs {needed} bytes in the cache {self.root}, "
                f"{excess} more than its limit of {self.limit} leaves beside what is in use: "
                "raise SKNET_CACHE_GB, or let SKNET_CACHE name a bigger disk"
            )

    def _directories(self) -> Iterator[Path]:
        for path in self.root.iterdir():
            if path.is_dir() and not path.name.startswith("."):
                yield path


def _download_all(
    manifest: Manifest, directory: Path, entries: list[FileEntry], download: Download
) -> None:
    def download_one(entry: FileEntry) -> None:
        # Under a name of its own, because a download that was given up may still write.
        part = directory / f".part-{uuid4().hex}"
        try:
            download(entry, part, count)
            path = directory / "files" / entry.path
            path.parent.mkdir(parents=True, exist_ok=True)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    for leftover in directory.glob(".part-*"):
        leftover.unlink()
    with (
        manifest.work("downloading", entries) as count,
        ThreadPoolExecutor(min(TRANSFERS, len(entries))) as pool,
    ):
        try:
            for _ in pool.map(download_one, entries):
                pass
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _is_right(directory: Path, entry: FileEntry, verified: Mapping[str, FileStatus]) -> bool:
    path = directory / "files" / entry.path
    status = _status(path)
    if status is None or status.size != entry.size:
        return False
    return verified.get(entry.path) == status or file_sha256(path) == entry.sha256


def _status(path: Path) -> FileStatus | None:
    try:
        return FileStatus.of(path.lstat())
    except (FileNotFoundError, NotADirectoryError):
        return None


def _remember(
    directory: Path,
    manifest: Manifest,
    entries: tuple[FileEntry, ...],
    verified: Mapping[str, FileStatus],
    began_ns: int,
) -> None:
    """Remember the statuses of these files, which were verified after `began_ns`."""
    statuses = {entry.path: _status(directory / "files" / entry.path) for entry in entries}
    settled = {path: s for path, s in statuses.items() if s is not None and s.had_settled(began_ns)}
    if settled.items() - verified.items():
        write_verified(directory / "verified.json", manifest.digest, {**verified, **settled})


def _num_bytes(directory: Path) -> int:
    with suppress(FileNotFoundError):  # another process has just evicted it
        return sum(status.st_size for _, status in scan(directory / "files"))
    return 0


def _last_used(directory: Path) -> float:
    with suppress(FileNotFoundError):
        return directory.stat().st_mtime
    return 0.0


def _evict(directory: Path) -> bool:
    """Remove an artifact's files, unless a process uses them."""
    with suppress(BlockingIOError), exclusive(directory.with_suffix(".use"), wait=False):
        doomed = directory.with_name(f".evicted-{uuid4().hex}")
        with suppress(FileNotFoundError):
            directory.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)
        logger.info("removed %s from the cache", directory.name)
        return True
    return False
