"""Artifacts' files on this host: fetched once, checked, and within a limit of bytes.

    <root>/<digest>/files/         files of the artifact with this digest, each of them whole
    <root>/<digest>/verified.json  the status of each when it was found to be right
    <root>/<digest>.use            shared by the processes that use it, so that none loses its files
    <root>/<digest>.fetch          held by the one that fetches
    <root>/.damaged/               files that `check` found damaged; beside the limit

What was least recently used goes first. A file whose status has changed since it was verified, or
that was verified before the machine went down, is read whole before it is trusted again.
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

from infra.artifacts.inspection import damage_of
from infra.artifacts.records import Damage, FileEntry, Manifest, StoreError
from infra.base.files import file_sha256, scan
from infra.base.locks import exclusive, share_for_life
from infra.base.verified import FileStatus, read_verified, write_verified

logger = logging.getLogger(__name__)

FETCHERS = 8
"""Files fetched at a time: more than one hides the latency of small ones."""

Fetch = Callable[[FileEntry, Path], None]
"""Writes the file of an entry, exactly as the entry describes it, to a path."""


class CacheFullError(StoreError):
    """The limit leaves no room for what is needed."""


class Cache:
    """Safe for any number of threads and processes of one host."""

    _in_use: set[tuple[Path, int]] = set()  # noqa: RUF012 (of this process, by all its caches)

    def __init__(self, root: Path, limit: int | None = None) -> None:
        """`limit` counts bytes of files; None: half of the file system that `root` is on."""
        self.root = root
        self._limit = limit

    def bring(self, manifest: Manifest, entries: tuple[FileEntry, ...], fetch: Fetch) -> Path:
        """Have these files of an artifact here; return the directory they are in.

        They stay at least until this process ends.

        Raises:
            CacheFullError: what other processes use leaves too little room.
        """
        place = self.root / manifest.digest
        self._use(place)
        with exclusive(place.with_suffix(".fetch")):
            began = time.time_ns()
            known = read_verified(place / "verified.json", manifest.digest)
            missing = [entry for entry in entries if not _is_right(place, entry, known)]
            if missing:
                self._make_room(sum(entry.size for entry in missing), manifest)
                _fetch_all(place, missing, fetch)
            _remember(place, manifest, entries, began)
            os.utime(place)
        return place / "files"

    def check(self, manifest: Manifest, fetch: Fetch) -> tuple[Damage, ...]:
        """Read the files of an artifact that are here whole; fetch again what is damaged.

        A damaged file is set aside under ``.damaged/``.

        Returns:
            What was wrong.
        """
        place = self.root / manifest.digest
        if not place.is_dir():
            return ()
        self._use(place)
        with exclusive(place.with_suffix(".fetch")):
            here = [e for e in manifest.files if os.path.lexists(place / "files" / e.path)]
            found = [(e, d) for e in here if (d := damage_of(e, place / "files")) is not None]
            for entry, _ in found:
                aside = self.root / ".damaged" / f"{manifest.digest}-{uuid4().hex}" / entry.path
                aside.parent.mkdir(parents=True)
                (place / "files" / entry.path).rename(aside)
                logger.warning("%s of the cache is damaged, moved to %s", entry.path, aside)
            if found:
                again = [entry for entry, _ in found]
                _fetch_all(place, again, fetch)
        return tuple(damage for _, damage in found)

    @property
    def limit(self) -> int:
        """Bytes of files that may be here."""
        if self._limit is not None:
            return self._limit
        return shutil.disk_usage(self.root).total // 2

    def _use(self, place: Path) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        user = (place, os.getpid())
        if user not in self._in_use:
            share_for_life(place.with_suffix(".use"))
            self._in_use.add(user)
        (place / "files").mkdir(parents=True, exist_ok=True)

    def _make_room(self, needed: int, manifest: Manifest) -> None:
        sizes = {place: _num_bytes(place) for place in self._places()}
        excess = sum(sizes.values()) + needed - self.limit
        for place in sorted(sizes, key=_last_used):
            if excess <= 0:
                return
            if _evict(place):
                excess -= sizes[place]
        if excess > 0:
            raise CacheFullError(
                f"{manifest.kind}/{manifest.key} needs {needed} bytes in the cache {self.root}, "
                f"{excess} more than its limit of {self.limit} leaves beside what is in use: "
                "raise SKNET_CACHE_GB, or let SKNET_CACHE name a bigger disk"
            )

    def _places(self) -> Iterator[Path]:
        for path in self.root.iterdir():
            if path.is_dir() and not path.name.startswith("."):
                yield path


def _fetch_all(place: Path, entries: list[FileEntry], fetch: Fetch) -> None:
    def fetch_one(entry: FileEntry) -> None:
        # Of its own name, as a fetch that was given up may still write.
        part = place / f".part-{uuid4().hex}"
        try:
            fetch(entry, part)
            path = place / "files" / entry.path
            path.parent.mkdir(parents=True, exist_ok=True)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    for leftover in place.glob(".part-*"):
        leftover.unlink()
    with ThreadPoolExecutor(min(FETCHERS, len(entries))) as fetchers:
        try:
            for _ in fetchers.map(fetch_one, entries):
                pass
        except BaseException:
            fetchers.shutdown(wait=False, cancel_futures=True)
            raise


def _is_right(place: Path, entry: FileEntry, known: Mapping[str, FileStatus]) -> bool:
    path = place / "files" / entry.path
    status = _status(path)
    if status is None or status.size != entry.size:
        return False
    return known.get(entry.path) == status or file_sha256(path) == entry.sha256


def _status(path: Path) -> FileStatus | None:
    try:
        return FileStatus.of(path.lstat())
    except (FileNotFoundError, NotADirectoryError):
        return None


def _remember(
    place: Path, manifest: Manifest, entries: tuple[FileEntry, ...], began_ns: int
) -> None:
    """Keep the status of these files, which were found right after `began_ns`."""
    known = read_verified(place / "verified.json", manifest.digest)
    files = dict(known)
    for entry in entries:
        status = _status(place / "files" / entry.path)
        if status is not None and status.had_settled(began_ns):
            files[entry.path] = status
    if files != known:
        write_verified(place / "verified.json", manifest.digest, files)


def _num_bytes(place: Path) -> int:
    with suppress(FileNotFoundError):  # another process has just removed it
        return sum(status.st_size for _, status in scan(place / "files"))
    return 0


def _last_used(place: Path) -> float:
    with suppress(FileNotFoundError):
        return place.stat().st_mtime
    return 0.0


def _evict(place: Path) -> bool:
    """Remove it, unless a process uses it."""
    with suppress(BlockingIOError), exclusive(place.with_suffix(".use"), wait=False):
        doomed = place.with_name(f".evicted-{uuid4().hex}")
        with suppress(FileNotFoundError):
            place.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)
        logger.info("removed %s from the cache", place.name)
        return True
    return False
