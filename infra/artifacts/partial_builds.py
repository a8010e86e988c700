"""Uploads the finished parts of a build under way to S3, so that another host can resume it.

    .work/<kind>/<key>/kept.json         which files there are
    .work/<kind>/<key>/objects/<sha256>  the files

A part is a directory that is renamed to its final name once it is finished, and never changes after
that. The list of files is replaced when the files are there, and files that it no longer names are
removed afterwards: at any moment, everything that the list names is there.
"""

import logging
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from uuid import uuid4

from infra.artifacts.documents import MAX_DOCUMENT_BYTES, SealedRecord, StoreError
from infra.artifacts.records import FileEntry, FilePath
from infra.base.files import file_sha256, scan
from infra.base.interrupts import saving
from infra.s3 import Bucket, DamagedObjectError, Expect

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0


class UploadedParts(SealedRecord):
    """What has been uploaded of a build."""

    place: FilePath
    """The directory of the parts, relative to the workspace."""
    newest: str
    """The last of the parts by name."""
    files: tuple[FileEntry, ...]
    """The files, relative to the directory of the parts."""


class PartUploader:
    """Uploads a directory's parts while its context is open, and once more at the end."""

    def __init__(self, bucket: Bucket, prefix: str, workspace: Path, directory: Path) -> None:
        """Prepare for the parts in `directory`, a directory of the workspace."""
        self._bucket, self._prefix = bucket, prefix
        self._workspace, self._directory = workspace, directory
        self._sha256s: dict[tuple[int, int, int], str] = {}
        self._uploaded: tuple[str, ...] = ()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="part uploader", daemon=True)

    def __enter__(self) -> None:
        self._uploaded = _parts(self._directory)
        self._thread.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        with saving():  # what was saved last is on this host only
            self._thread.join()

    def _work(self) -> None:
        while not self._ended.wait(POLL_SECONDS):
            self._upload_if_new()
        self._upload_if_new()

    def _upload_if_new(self) -> None:
        parts = _parts(self._directory)
        if not parts or parts == self._uploaded:
            return
        try:
            self._upload(parts)
        except FileNotFoundError:
            return  # an old part has just been removed: look again later
        except OSError as error:
            logger.warning("%s is on this host only for now: %s", parts[-1], error)
            return
        self._uploaded = parts

    def _upload(self, parts: tuple[str, ...]) -> None:
        copies = self._workspace / f".kept-{uuid4().hex}"
        copies.mkdir()
        try:
            files = tuple(
                self._upload_file(name, path) for name, path in self._files(parts, copies)
            )
        finally:
            shutil.rmtree(copies)
        place = self._directory.relative_to(self._workspace).as_posix()
        listed = UploadedParts(place=place, newest=parts[-1], files=files)
        self._bucket.put(f"{self._prefix}kept.json", listed.encode(), expected=Expect.ANY)
        wanted = {f"{self._prefix}objects/{file.sha256}" for file in files}
        present = [found.key for found in self._bucket.list(f"{self._prefix}objects/")]
        self._bucket.delete(key for key in present if key not in wanted)

    def _files(self, parts: tuple[str, ...], copies: Path) -> Iterator[tuple[str, Path]]:
        """Yield the files of the parts; and copies of those beside them, which may still grow."""
        for part in parts:
            for name, _ in scan(self._directory / part):
                yield f"{part}/{name}", self._directory / part / name
        for path in sorted(self._directory.iterdir()):
            if path.is_file() and not path.name.startswith("."):
                yield path.name, shutil.copyfile(path, copies / path.name)

    def _upload_file(self, name: str, path: Path) -> FileEntry:
        status = path.stat()
        identity = (status.st_ino, status.st_size, status.st_mtime_ns)
        if identity not in self._sha256s:
            self._sha256s[identity] = file_sha256(path)
        entry = FileEntry(path=name, size=status.st_size, sha256=self._sha256s[identity])
        key = f"{self._prefix}objects/{entry.sha256}"
        present = self._bucket.head(key)
        if present is None or present.size != entry.size:
            self._bucket.upload(
                path, key, size=entry.size, sha256=entry.sha256, expected=Expect.ANY
            )
        return entry


def download_parts(bucket: Bucket, prefix: str, workspace: Path) -> None:
    """Download uploaded parts into a workspace, unless what is there is as new.

    Damaged parts are left out with a warning: the build then resumes from an older one, or starts
    again.

    Raises:
        S3Error: The bucket can't be reached.
    """
    stored = bucket.get(f"{prefix}kept.json", max_bytes=MAX_DOCUMENT_BYTES)
    if stored is None:
        return
    try:
        uploaded = UploadedParts.decode(stored.content)
    except StoreError as error:
        logger.warning("%skept.json is not valid, its parts are lost: %s", prefix, error)
        return
    directory = workspace / uploaded.place
    if (here := _parts(directory)) and here[-1] >= uploaded.newest:
        return
    coming = workspace / f".coming-{uuid4().hex}"
    try:
        _download(bucket, prefix, uploaded, coming)
        directory.mkdir(parents=True, exist_ok=True)
        for path in sorted(coming.iterdir()):
            target = directory / path.name
            if target.is_dir():
                shutil.rmtree(target)
            path.rename(target)
        logger.info("resuming from %s, uploaded by another host", uploaded.newest)
    finally:
        shutil.rmtree(coming, ignore_errors=True)


def _download(bucket: Bucket, prefix: str, uploaded: UploadedParts, coming: Path) -> None:
    coming.mkdir()
    left_out = set()
    for file in uploaded.files:
        part = file.path.partition("/")[0]
        if part in left_out:
            continue
        path = coming / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        key = f"{prefix}objects/{file.sha256}"
        try:
            bucket.download(key, path, size=file.size, sha256=file.sha256)
        except DamagedObjectError as error:
            logger.warning("the uploaded part %s is damaged and left out: %s", part, error)
            left_out.add(part)
            shutil.rmtree(coming / part, ignore_errors=True)


def _parts(directory: Path) -> tuple[str, ...]:
    if not directory.is_dir():
        return ()
    return tuple(
        sorted(p.name for p in directory.iterdir() if p.is_dir() and not p.name.startswith("."))
    )
