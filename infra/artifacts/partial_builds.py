"""Uploads the finished parts of a build under way to S3, so that another host can resume it.

    .work/<kind>/<key>/kept.json         which files there are, and who uploads them
    .work/<kind>/<key>/objects/<sha256>  the files

A part is a directory that is renamed to its final name once it is finished, and never changes after
that. The list of files is replaced when the files are there, and files that it no longer names are
removed afterwards: at any moment, everything that the list names is there.

Each uploader writes its name into the list before it begins, and replaces only its own lists. So
one that was cut off, and comes back when another one has taken over, changes nothing any more.
"""

import logging
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from uuid import uuid4

from infra.artifacts.documents import MAX_DOCUMENT_BYTES, SealedRecord, StoreError
from infra.artifacts.records import FileEntry, FilePath
from infra.base.files import file_sha256, scan
from infra.base.interrupts import saving
from infra.s3 import Bucket, DamagedObjectError, Expect, PreconditionError

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0

NUM_DOWNLOADED = 2
"""Parts that come to a host: the newest, and one more for hosts to which that comes damaged, so
that hosts of one build have one in common."""


class UploadedParts(SealedRecord):
    """What has been uploaded of a build."""

    place: FilePath
    """The directory of the parts, relative to the workspace."""
    newest: str
    """The last of the parts by name; empty if there is none."""
    files: tuple[FileEntry, ...]
    """The files, relative to the directory of the parts."""
    uploader: str = ""
    """Random name of the uploader, which alone replaces this list."""


class PartUploader:
    """Uploads a directory's parts while its context is open, and once more at the end."""

    def __init__(
        self, bucket: Bucket, prefix: str, workspace: Path, directory: Path, *, is_only_copy: bool
    ) -> None:
        """Prepare for the parts in `directory`, a directory of the workspace.

        Args:
            bucket: The store.
            prefix: Where the parts go.
            workspace: The workspace.
            directory: Where the parts appear.
            is_only_copy: Whether the workspace vanishes with the context, so that what can't be
                uploaded is lost, which is an error.
        """
        self._bucket, self._prefix = bucket, prefix
        self._workspace, self._directory = workspace, directory
        self._is_only_copy = is_only_copy
        self._name, self._etag = uuid4().hex, ""
        self._sha256s: dict[tuple[int, int, int], str] = {}
        self._known: set[str] = set()  # keys of what this uploader has uploaded
        self._uploaded: tuple[str, ...] = ()
        self._from_the_start: tuple[str, ...] = ()
        self._failure: OSError | None = None
        self._is_taken_over = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="part uploader", daemon=True)

    def __enter__(self) -> None:
        """Take over from an earlier uploader.

        Raises:
            S3Error: The bucket can't be reached.
            StoreError: This host may not write it.
        """
        self._uploaded = self._from_the_start = _parts(self._directory)
        place = self._directory.relative_to(self._workspace).as_posix()
        empty = UploadedParts(place=place, newest="", files=())
        self._etag = take_over(self._bucket, self._prefix, self._name, empty)
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
        if self._is_only_copy and self._failure and error is None:
            raise self._failure

    def _work(self) -> None:
        while not self._ended.wait(POLL_SECONDS):
            self._upload_if_new()
        self._upload_if_new()

    def _upload_if_new(self) -> None:
        parts = _parts(self._directory)
        if self._is_taken_over or not parts or parts == self._uploaded:
            return
        try:
            self._upload(parts)
        except FileNotFoundError:
            return  # an old part has just been removed: look again later
        except PreconditionError as error:
            self._is_taken_over = True
            self._fail(parts[-1], error, "another host has taken over")
        except OSError as error:
            self._fail(parts[-1], error, error.strerror or str(error))
        except Exception as error:  # noqa: BLE001 (the next part is tried again)
            self._fail(parts[-1], error, str(error))
        else:
            self._failure = None
            self._uploaded = parts

    def _fail(self, newest: str, error: Exception, reason: str) -> None:
        logger.warning("%s is not uploaded: %s", newest, reason)
        self._failure = OSError(0, f"the last checkpoint, {newest}, is not uploaded: {reason}")
        self._failure.__cause__ = error

    def _upload(self, parts: tuple[str, ...]) -> None:
        """Upload parts and list them.

        Raises:
            PreconditionError: Another uploader has taken over.
        """
        copies = self._workspace / f".kept-{uuid4().hex}"
        copies.mkdir()
        try:
            files = tuple(
                self._upload_file(name, path) for name, path in self._files(parts, copies)
            )
        finally:
            shutil.rmtree(copies)
        # Before the list is replaced: what comes later may be another uploader's.
        present = [found.key for found in self._bucket.list(f"{self._prefix}objects/")]
        self._replace_list(
            UploadedParts(
                place=self._directory.relative_to(self._workspace).as_posix(),
                newest=parts[-1],
                files=files,
                uploader=self._name,
            )
        )
        wanted = {f"{self._prefix}objects/{file.sha256}" for file in files}
        self._bucket.delete(key for key in present if key not in wanted)

    def _replace_list(self, listed: UploadedParts) -> None:
        key = f"{self._prefix}kept.json"
        try:
            self._etag = self._bucket.put(key, listed.encode(), expected=self._etag)
        except PreconditionError:
            # An earlier list may have been written although its answer was lost.
            stored = self._bucket.get(key, max_bytes=MAX_DOCUMENT_BYTES)
            if stored is None or _uploader_of(stored.content) != self._name:
                raise
            self._etag = self._bucket.put(key, listed.encode(), expected=stored.etag)

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
        if not self._is_there(key, entry):
            self._bucket.upload(
                path, key, size=entry.size, sha256=entry.sha256, expected=Expect.ANY
            )
            self._known.add(key)
        return entry

    def _is_there(self, key: str, entry: FileEntry) -> bool:
        """Tell whether a file need not be uploaded.

        What this uploader did not find at its start may be there and damaged: a part that another
        host found so is made again with the same bytes.
        """
        if entry.path.partition("/")[0] not in self._from_the_start:
            return key in self._known
        present = self._bucket.head(key)
        return present is not None and present.size == entry.size


def _uploader_of(content: bytes) -> str:
    """Return the uploader that a list names; empty if it is no list."""
    try:
        return UploadedParts.decode(content).uploader
    except StoreError:
        return ""


def take_over(
    bucket: Bucket, prefix: str, uploader: str, absent: UploadedParts | None = None
) -> str:
    """Write a new uploader into the list of a build, which no earlier one can replace any more.

    Args:
        bucket: The store.
        prefix: Where the parts are.
        uploader: Name of the new one.
        absent: What is written in place of a list that isn't there or isn't valid; None: nothing.

    Returns:
        The ETag of the list; empty if there is none.

    Raises:
        S3Error: The bucket can't be reached.
        StoreError: This host may not write it.
    """
    key = f"{prefix}kept.json"
    while True:
        stored = bucket.get(key, max_bytes=MAX_DOCUMENT_BYTES)
        listed = absent
        if stored is not None:
            with suppress(StoreError):
                listed = UploadedParts.decode(stored.content)
        if listed is None:
            return ""
        mine = UploadedParts(
            place=listed.place, newest=listed.newest, files=listed.files, uploader=uploader
        )
        expected = Expect.ABSENT if stored is None else stored.etag
        with suppress(PreconditionError):  # the other one has written meanwhile
            return bucket.put(key, mine.encode(), expected=expected)


def download_parts(bucket: Bucket, prefix: str, workspace: Path) -> None:
    """Download the newest uploaded parts into a workspace, unless what is there is as new.

    In place of a damaged one, of which a warning tells, an older one comes; if all are damaged,
    none comes, and the build starts again.

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
    if not uploaded.newest:
        return
    directory = workspace / uploaded.place
    if (here := _parts(directory)) and here[-1] >= uploaded.newest:
        return
    coming = workspace / f".coming-{uuid4().hex}"
    try:
        whole = _download(bucket, prefix, uploaded, coming)
        directory.mkdir(parents=True, exist_ok=True)
        for path in sorted(coming.iterdir()):
            target = directory / path.name
            if target.is_dir():
                shutil.rmtree(target)
            path.rename(target)
        if whole:
            logger.info("%s has come from the store, uploaded by another host", whole[0])
    finally:
        shutil.rmtree(coming, ignore_errors=True)


def _download(bucket: Bucket, prefix: str, uploaded: UploadedParts, coming: Path) -> list[str]:
    """Download the newest parts that are whole, and the files beside the parts.

    Returns:
        The names of the parts, the newest first.
    """
    coming.mkdir()
    of_part: dict[str, list[FileEntry]] = {}
    beside = []
    for file in uploaded.files:
        part, slash, _ = file.path.partition("/")
        if slash:
            of_part.setdefault(part, []).append(file)
        else:
            beside.append(file)
    whole: list[str] = []
    for part in sorted(of_part, reverse=True):
        if len(whole) == NUM_DOWNLOADED:
            break
        try:
            _download_files(bucket, prefix, of_part[part], coming)
        except DamagedObjectError as error:
            logger.warning("the uploaded part %s is damaged and left out: %s", part, error)
            shutil.rmtree(coming / part, ignore_errors=True)
        else:
            whole.append(part)
    for file in beside:
        try:
            _download_files(bucket, prefix, [file], coming)
        except DamagedObjectError as error:
            logger.warning("the uploaded file %s is damaged and left out: %s", file.path, error)
    return whole


def _download_files(bucket: Bucket, prefix: str, files: Sequence[FileEntry], coming: Path) -> None:
    """Download files of the list.

    Raises:
        DamagedObjectError: One is missing, or has other bytes.
    """
    for file in files:
        path = coming / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        key = f"{prefix}objects/{file.sha256}"
        bucket.download(key, path, size=file.size, sha256=file.sha256)


def _parts(directory: Path) -> tuple[str, ...]:
    if not directory.is_dir():
        return ()
    return tuple(
        sorted(p.name for p in directory.iterdir() if p.is_dir() and not p.name.startswith("."))
    )
