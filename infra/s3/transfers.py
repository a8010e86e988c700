"""Transfers between files and objects, in which the bytes of both are checked to be the same."""

import contextlib
import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from s3transfer.utils import ReadFileChunk

from infra.base.progress import Count, uncounted
from infra.s3.attempts import Attempt, Limits, Operation, Request
from infra.s3.errors import (
    Absent,
    AnswerError,
    ConditionFailed,
    DamagedObjectError,
    PreconditionError,
    S3Error,
)
from infra.s3.multipart import MultipartWrite, Part, map_in_order, parts_of
from infra.s3.objects import SHA256_NAME, Expect, etag_of, head, length_of, sha256_of
from infra.s3.writing import Writing, blocks, of_parts, part_sum, put_sum

DOWNLOAD_BLOCK = 256 << 10
"""Bytes per read and write. Larger blocks of page cache are memory that was rarely in use before,
which a virtual machine must first get from its host: a write then takes up to five times longer."""

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file, and the size and SHA-256 that it is expected to have."""

    path: Path
    size: int
    sha256: str
    count: Count = uncounted
    """Counts the bytes that are sent; those of a failed attempt are sent again."""

    @property
    def metadata(self) -> dict[str, str]:
        """Metadata of the file's object."""
        return {SHA256_NAME: self.sha256}

    @contextlib.contextmanager
    def open_part(self, part: Part) -> Iterator[ReadFileChunk]:
        """Open a part of the file in the form that botocore needs, to send it."""
        # It counts backwards, too, if botocore goes back to send it again.
        sent = [lambda bytes_transferred: self.count(bytes_transferred)]
        with ReadFileChunk.from_filename(str(self.path), part.start, part.size, sent) as body:
            try:
                yield body
            except BaseException:
                self.count(-body.tell())
                raise

    def md5(self, problem: str) -> bytes:
        """Return the MD5 of the file, which is read once more, and compared with its SHA-256.

        Raises:
            S3Error: The file has other bytes; `problem` begins the message.
        """
        md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
        for block in blocks(self.path, 0, self.size):
            md5.update(block)
            sha256.update(block)
        self.require(sha256.hexdigest(), problem)
        return md5.digest()

    def require(self, found: str, problem: str) -> None:
        """Check the SHA-256 of the bytes that were read.

        Raises:
            S3Error: The file has other bytes than expected; `problem` begins the message.
        """
        if found != self.sha256:
            raise S3Error(0, f"{problem}: {self.path} has SHA-256 {found}, expected {self.sha256}")

    def is_object(self, found: dict[str, Any] | None) -> bool:
        """Tell whether an object, according to S3's answer, was written with these bytes."""
        return (
            found is not None and length_of(found) == self.size and sha256_of(found) == self.sha256
        )


def upload(
    operation: Operation,
    target: dict[str, str],
    file: LocalFile,
    expected: Expect | str,
    limits: Limits,
    writing: Writing,
) -> None:
    """Write a file into an object.

    Raises:
        S3Error: S3 refused, can't be reached in time, or the file has other bytes than expected.
        PreconditionError: Something else is there than expected, and not these bytes.
        OSError: The file can't be read.
    """
    parts = parts_of(file.size, limits.part_bytes)
    in_parts = len(parts) > 1
    try:
        condition = writing.condition(operation, target, expected, in_parts=in_parts)
        if in_parts:
            _LargeUpload(operation, target, parts, file, condition, limits.threads, writing).run()
        else:
            _put(operation, target, file, parts[0], condition, writing)
    except (ConditionFailed, Absent):
        found = head(operation, target)
        if not file.is_object(found):
            etag = etag_of(found) if found else None
            raise PreconditionError.found(operation.problem, etag) from None
    if (writing.profile.part_sum if in_parts else writing.profile.put_sum) == "none":
        reader = ObjectReader(operation, target, size=file.size, limits=limits, count=uncounted)
        if (stored := reader.sha256()) != file.sha256:
            raise S3Error(
                0, f"{operation.problem}: read back, its SHA-256 is {stored}, not {file.sha256}"
            )


def _put(
    operation: Operation,
    target: dict[str, str],
    file: LocalFile,
    whole: Part,
    condition: dict[str, str],
    writing: Writing,
) -> None:
    # The server computes the checksum of what it stores, and refuses it if it differs.
    total = put_sum(writing.profile.put_sum, file.sha256, lambda: file.md5(operation.problem))

    def request(client: Any, _: Attempt) -> None:
        with file.open_part(whole) as body:
            client.put_object(**target, Body=body, Metadata=file.metadata, **total, **condition)

    operation.run(request, file.size)


class _LargeUpload(MultipartWrite):
    """An upload in parts. The server checks each part's sum; the file's SHA-256 is checked here.

    Each of these checks reads the parts once more.
    """

    def __init__(
        self,
        operation: Operation,
        target: dict[str, str],
        parts: list[Part],
        file: LocalFile,
        condition: dict[str, str],
        threads: int,
        writing: Writing,
    ) -> None:
        self._sum = writing.profile.part_sum
        creation = {"Metadata": file.metadata, **of_parts(self._sum)}
        super().__init__(
            operation, target, parts, threads=threads, creation=creation, condition=condition
        )
        self._file = file

    def send(self, client: Any, upload_id: str, part: Part) -> dict[str, Any]:
        # As a header: the trailer that an SDK sends is more than many servers understand.
        total = part_sum(self._sum, blocks(self._file.path, part.start, part.stop))
        with self._file.open_part(part) as body:
            answer: dict[str, Any] = client.upload_part(
                **self._target, UploadId=upload_id, PartNumber=part.number, Body=body, **total
            )
        return answer

    def is_done(self) -> bool:
        return self._file.is_object(head(self._operation, self._target))

    def new_check(self) -> Callable[[Part], None]:
        digest = hashlib.sha256()
        file = self._file

        def check(part: Part) -> None:
            for block in blocks(file.path, part.start, part.stop):
                digest.update(block)
            if part.stop == file.size:
                file.require(digest.hexdigest(), self._operation.problem)

        return check


class ObjectReader:
    """Reads one object of a known size.

    Its methods raise S3Error if S3 refuses or can't be reached in time, and DamagedObjectError if
    the object is missing or not as expected, at a second attempt too.
    """

    def __init__(
        self,
        operation: Operation,
        address: dict[str, str],
        *,
        size: int,
        limits: Limits,
        count: Count,
    ) -> None:
        self._count = count
        self._counting, self._num_counted = threading.Lock(), 0
        self._operation = operation
        self._address = address
        self._size = size
        self._limits = limits
        self._parts = parts_of(size, limits.part_bytes)

    def into_file(self, file: int, sha256: str) -> None:
        """Write the object into a new file, given as its descriptor; check its SHA-256."""
        self._twice(lambda: self._fill(file, sha256))

    def sha256(self) -> str:
        """Return the SHA-256 of the stored bytes, in hexadecimal digits."""
        found, written = self._twice(self._digest)
        if written in (None, found):
            return found
        self._uncount()  # the reason may be the connection: read it once more
        return self._twice(self._digest)[0]

    def _twice(self, read: Callable[[], R]) -> R:
        for _ in range(2):
            number = 0
            try:
                return read()
            except Absent:
                number, finding = errno.ENOENT, "no such object"
            except ConditionFailed:
                finding = "it was replaced while it was read"
            except AnswerError as error:
                finding = str(error)
            self._uncount()
        raise DamagedObjectError(number, f"{self._operation.problem}: {finding}")

    def _fill(self, file: int, sha256: str) -> None:
        if len(self._parts) == 1:
            version = {}
        else:
            found = head(self._operation, self._address)
            if found is None:
                raise Absent
            _check_length(found, self._size)
            version = {"IfMatch": found["ETag"]}
        os.ftruncate(file, self._size)

        def fetch(part: Part) -> Part:
            self._operation.run(
                lambda client, attempt: self._write(client, attempt, version, part, file), part.size
            )
            return part

        arrived = hashlib.sha256()
        for part in map_in_order(fetch, self._parts, self._limits.threads):
            for at in range(part.start, part.stop, DOWNLOAD_BLOCK):
                arrived.update(os.pread(file, min(DOWNLOAD_BLOCK, part.stop - at), at))
        if arrived.hexdigest() != sha256:
            raise AnswerError(f"its SHA-256 is {arrived.hexdigest()}, expected {sha256}")

    def _write(
        self, client: Any, attempt: Attempt, version: dict[str, str], part: Part, file: int
    ) -> None:
        answer = self._get(client, version, part)
        position = part.start
        with self._counted() as count, contextlib.closing(answer["Body"]) as body:
            _check_length(answer, part.size)
            for block in body.iter_chunks(DOWNLOAD_BLOCK):
                count(len(block))
                rest = memoryview(block)
                while rest:
                    with attempt.effect():
                        written = os.pwrite(file, rest, position)
                    rest = rest[written:]
                    position += written

    def _digest(self) -> tuple[str, str | None]:
        """Return the SHA-256 of the stored bytes, and the one with which they were written."""
        whole, written = hashlib.sha256(), None
        version: dict[str, str] = {}

        def update(part: Part) -> Request[tuple["hashlib._Hash", dict[str, Any]]]:
            def request(client: Any, _: Attempt) -> tuple["hashlib._Hash", dict[str, Any]]:
                extended = whole.copy()
                answer = self._get(client, version, part)
                with self._counted() as count, contextlib.closing(answer["Body"]) as body:
                    _check_length(answer, part.size)
                    for block in body.iter_chunks(DOWNLOAD_BLOCK):
                        count(len(block))
                        extended.update(block)
                return extended, answer

            return request

        for part in self._parts:
            whole, answer = self._operation.run(update(part), part.size)
            version = {"IfMatch": f'"{etag_of(answer)}"'}
            written = sha256_of(answer)
        return whole.hexdigest(), written

    @contextlib.contextmanager
    def _counted(self) -> Iterator[Count]:
        """Yield what counts the bytes of an attempt; if it fails, they are read again."""
        num_bytes = 0

        def count(more: int) -> None:
            nonlocal num_bytes
            num_bytes += more
            self._add(more)

        try:
            yield count
        except BaseException:
            self._add(-num_bytes)
            raise

    def _add(self, num_bytes: int) -> None:
        with self._counting:
            self._num_counted += num_bytes
        self._count(num_bytes)

    def _uncount(self) -> None:
        """Take back what was counted, because all of it is read again."""
        self._add(-self._num_counted)

    def _get(self, client: Any, version: dict[str, str], part: Part) -> dict[str, Any]:
        span = {} if len(self._parts) == 1 else {"Range": part.range}
        answer: dict[str, Any] = client.get_object(**self._address, **span, **version)
        return answer


def _check_length(answer: dict[str, Any], expected: int) -> None:
    length = length_of(answer)
    if length != expected:
        raise AnswerError(f"{length:,} bytes, expected {expected:,}")
