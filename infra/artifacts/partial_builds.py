"""A build's finished parts kept on S3 while it goes on, so that another host can take it up.

    .work/<kind>/<key>/kept.json         which files they are; replaced whole
    .work/<kind>/<key>/objects/<sha256>  the files

A part is a directory that is renamed to its place once it is finished, and never changes. The file
list is replaced after the files are there, and files that it no longer names go after that: at any
moment what it names is whole.
"""

import logging
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from uuid import uuid4

from infra.artifacts.records import FileEntry, FilePath
from infra.base.files import file_sha256, scan
from infra.base.records import MAX_DOCUMENT_BYTES, RecordError, SealedRecord
from infra.s3 import Bucket, DamagedObjectError, Expect

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0


class Kept(SealedRecord):
    """What is kept of a build."""

    place: FilePath
    """The directory in the workspace."""
    newest: str
    """The last of its parts, by name."""
    files: tuple[FileEntry, ...]
    """Relative to the place."""


class Keeper:
    """Keeps a directory's parts while the context is entered, and once more at its end."""

    def __init__(self, bucket: Bucket, prefix: str, workspace: Path, directory: Path) -> None:
        self._bucket, self._prefix = bucket, prefix
        self._workspace, self._directory = workspace, directory
        self._known: dict[tuple[int, int, int], str] = {}
        self._kept: tuple[str, ...] = ()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="keeper", daemon=True)

    def __enter__(self) -> None:
        self._kept = _parts(self._directory)
        self._thread.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._ended.wait(POLL_SECONDS):
            self._keep_what_is_new()
        self._keep_what_is_new()

    def _keep_what_is_new(self) -> None:
        parts = _parts(self._directory)
        if not parts or parts == self._kept:
            return
        try:
            self._keep(parts)
        except FileNotFoundError:
            return  # an old part has just been removed: look again
        except OSError as error:
            logger.warning("%s is on this host only for now: %s", parts[-1], error)
            return
        self._kept = parts

    def _keep(self, parts: tuple[str, ...]) -> None:
        copies = self._workspace / f".kept-{uuid4().hex}"
        copies.mkdir()
        try:
            files = tuple(self._upload(name, path) for name, path in self._frozen(parts, copies))
        finally:
            shutil.rmtree(copies)
        place = self._directory.relative_to(self._workspace).as_posix()
        kept = Kept(place=place, newest=parts[-1], files=files)
        self._bucket.put(f"{self._prefix}kept.json", kept.encode(), expected=Expect.ANY)
        wanted = {f"{self._prefix}objects/{file.sha256}" for file in files}
        there = [listed.key for listed in self._bucket.list(f"{self._prefix}objects/")]
        self._bucket.delete(key for key in there if key not in wanted)

    def _frozen(self, parts: tuple[str, ...], copies: Path) -> Iterator[tuple[str, Path]]:
        """Every file; of the loose ones a copy, as they go on growing."""
        for part in parts:
            for name, _ in scan(self._directory / part):
                yield f"{part}/{name}", self._directory / part / name
        for path in sorted(self._directory.iterdir()):
            if path.is_file() and not path.name.startswith("."):
                yield path.name, shutil.copyfile(path, copies / path.name)

    def _upload(self, name: str, path: Path) -> FileEntry:
        status = path.stat()
        identity = (status.st_ino, status.st_size, status.st_mtime_ns)
        if identity not in self._known:
            self._known[identity] = file_sha256(path)
        entry = FileEntry(path=name, size=status.st_size, sha256=self._known[identity])
        key = f"{self._prefix}objects/{entry.sha256}"
        if (there := self._bucket.head(key)) is None or there.size != entry.size:
            self._bucket.upload(
                path, key, size=entry.size, sha256=entry.sha256, expected=Expect.ANY
            )
        return entry


def restore(bucket: Bucket, prefix: str, workspace: Path) -> None:
    """Bring what was kept into a workspace, unless what is there is as new.

    What is damaged is left out and said: a build goes on from an older part, or from the start.

    Raises:
        S3Error: the bucket can't be reached.
    """
    stored = bucket.get(f"{prefix}kept.json", max_bytes=MAX_DOCUMENT_BYTES)
    if stored is None:
        return
    try:
        kept = Kept.decode(stored.content)
    except RecordError as error:
        logger.warning("%skept.json is not valid, what it kept is lost: %s", prefix, error)
        return
    directory = workspace / kept.place
    if (here := _parts(directory)) and here[-1] >= kept.newest:
        return
    coming = workspace / f".coming-{uuid4().hex}"
    try:
        _download(bucket, prefix, kept, coming)
        directory.mkdir(parents=True, exist_ok=True)
        for path in sorted(coming.iterdir()):
            target = directory / path.name
            if target.is_dir():
                shutil.rmtree(target)
            path.rename(target)
        logger.info("going on from %s, kept by another host", kept.newest)
    finally:
        shutil.rmtree(coming, ignore_errors=True)


def _download(bucket: Bucket, prefix: str, kept: Kept, coming: Path) -> None:
    coming.mkdir()
    left_out = set()
    for file in kept.files:
        part = file.path.partition("/")[0]
        if part in left_out:
            continue
        path = coming / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        key = f"{prefix}objects/{file.sha256}"
        try:
            bucket.download(key, path, size=file.size, sha256=file.sha256)
        except DamagedObjectError as error:
            logger.warning("what was kept as %s is damaged and left out: %s", part, error)
            left_out.add(part)
            shutil.rmtree(coming / part, ignore_errors=True)


def _parts(directory: Path) -> tuple[str, ...]:
    if not directory.is_dir():
        return ()
    return tuple(
        sorted(p.name for p in directory.iterdir() if p.is_dir() and not p.name.startswith("."))
    )
