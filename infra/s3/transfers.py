"""From a file into an object whose bytes are known to be the file's."""

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from s3transfer.utils import ReadFileChunk

from infra.s3.attempts import Attempt, Limits, Operation, Request
from infra.s3.errors import (
    Absent,
    AnswerError,
    ConditionFailed,
    DamagedObjectError,
    PreconditionError,
    S3Error,
)
from infra.s3.multipart import Assembly, Part, in_order, parts_of
from infra.s3.objects import (
    ABSENT,
    ANY,
    SHA256_NAME,
    Expect,
    checksum,
    condition,
    etag_of,
    head,
    length_of,
    recorded_sha256,
)

UPLOAD_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file that is said to have these bytes."""

    path: Path
    size: int
    sha256: str

    @property
    def metadata(self) -> dict[str, str]:
        """That its object carries."""
        return {SHA256_NAME: self.sha256}

    def opened(self, part: Part) -> Any:
        """A part of it, for botocore."""
        return ReadFileChunk.from_filename(str(self.path), part.start, part.size)

    def is_object(self, found: dict[str, Any] | None) -> bool:
        """Whether S3's word on an object is that it was written with these bytes."""
        return (
            found is not None
            and length_of(found) == self.size
            and recorded_sha256(found) == self.sha256
        )


def upload(
    operation: Operation,
    target: dict[str, str],
    file: LocalFile,
    expected: Expect | str,
    limits: Limits,
) -> None:
    """Raises S3Error, PreconditionError, and the file's own OSError."""
    parts = parts_of(file.size, limits.part_bytes)
    try:
        if len(parts) == 1:
            _put(operation, target, file, parts[0], expected)
        else:
            _check_condition(operation, target, expected)
            LargeUpload(operation, target, parts, file, expected, limits.threads).run()
    except (ConditionFailed, Absent):
        found = head(operation, target)
        if not file.is_object(found):
            etag = etag_of(found) if found else None
            raise PreconditionError.found(operation.what, etag) from None


def _put(
    operation: Operation,
    target: dict[str, str],
    file: LocalFile,
    whole: Part,
    expected: Expect | str,
) -> None:
    # The server computes the checksum of what it stores, and refuses another than this.
    options = {"ChecksumSHA256": checksum(file.sha256), **condition(expected)}

    def request(client: Any, _: Attempt) -> None:
        with file.opened(whole) as body:
            client.put_object(**target, Body=body, Metadata=file.metadata, **options)

    operation.run(request, file.size)


def _check_condition(operation: Operation, target: dict[str, str], expected: Expect | str) -> None:
    """A request more saves sending in vain. Raises ConditionFailed."""
    if expected is ANY:
        return
    found = head(operation, target)
    if (etag_of(found) if found else ABSENT) != expected:
        raise ConditionFailed


class LargeUpload(Assembly):
    """A file in parts, each compared with its checksum by the server; the file with its own."""

    def __init__(
        self,
        operation: Operation,
        target: dict[str, str],
        parts: list[Part],
        file: LocalFile,
        expected: Expect | str,
        threads: int,
    ) -> None:
        creation = {"Metadata": file.metadata, "ChecksumAlgorithm": "CRC32"}
        super().__init__(
            operation,
            target,
            parts,
            threads=threads,
            creation=creation,
            condition=condition(expected),
        )
        self._file = file

    def send(self, client: Any, upload_id: str, part: Part) -> dict[str, Any]:
        """See Assembly."""
        with self._file.opened(part) as body:
            answer: dict[str, Any] = client.upload_part(
                **self._target,
                UploadId=upload_id,
                PartNumber=part.number,
                Body=body,
                ChecksumAlgorithm="CRC32",
            )
        return answer

    def is_done(self) -> bool:
        """See Assembly."""
        return self._file.is_object(head(self._operation, self._target))

    def begin_check(self) -> Callable[[Part], None]:
        """See Assembly."""
        digest = hashlib.sha256()
        path, size, expected = self._file.path, self._file.size, self._file.sha256

        def check(part: Part) -> None:
            with path.open("rb") as file:
                file.seek(part.start)
                for at in range(part.start, part.stop, UPLOAD_BLOCK):
                    digest.update(file.read(min(UPLOAD_BLOCK, part.stop - at)))
            if part.stop == size and digest.hexdigest() != expected:
                found = f"{path} has SHA-256 {digest.hexdigest()}, expected {expected}"
                raise S3Error(0, f"{self._operation.what}: {found}")

        return check


DOWNLOAD_BLOCK = 256 << 10
"""Bytes per read and write. Page cache in bigger pieces is memory that was rarely in use before,
which a virtual machine must first get from its host: up to five times the time of a write."""

R = TypeVar("R")


class Reading:
    """One object of a known size. Its methods raise S3Error, DamagedObjectError."""

    def __init__(
        self, operation: Operation, where: dict[str, str], *, size: int, limits: Limits
    ) -> None:
        self._operation = operation
        self._where = where
        self._size = size
        self._limits = limits
        self._parts = parts_of(size, limits.part_bytes)

    def into_file(self, file: int, sha256: str) -> None:
        """Fill a new file, given as its descriptor."""
        self._twice(lambda: self._fill(file, sha256))

    def sha256(self) -> str:
        """The digest of what is stored, in hexadecimal digits."""
        found, recorded = self._twice(self._digest)
        # The difference may have come up on the way.
        return found if recorded in (None, found) else self._twice(self._digest)[0]

    def _twice(self, look: Callable[[], R]) -> R:
        for _ in range(2):
            number = 0
            try:
                return look()
            except Absent:
                number, finding = errno.ENOENT, "no such object"
            except ConditionFailed:
                finding = "it was replaced while it was read"
            except AnswerError as error:
                finding = str(error)
        raise DamagedObjectError(number, f"{self._operation.what}: {finding}")

    def _fill(self, file: int, sha256: str) -> None:
        if len(self._parts) == 1:
            version = {}
        else:
            found = head(self._operation, self._where)
            if found is None:
                raise Absent
            self._expect_length(found, self._size)
            version = {"IfMatch": found["ETag"]}
        os.ftruncate(file, self._size)

        def fetch(part: Part) -> Part:
            self._operation.run(
                lambda client, attempt: self._write(client, attempt, version, part, file), part.size
            )
            return part

        arrived = hashlib.sha256()
        for part in in_order(fetch, self._parts, self._limits.threads):
            for at in range(part.start, part.stop, DOWNLOAD_BLOCK):
                arrived.update(os.pread(file, min(DOWNLOAD_BLOCK, part.stop - at), at))
        if arrived.hexdigest() != sha256:
            raise AnswerError(f"its SHA-256 is {arrived.hexdigest()}, expected {sha256}")

    def _write(
        self, client: Any, attempt: Attempt, version: dict[str, str], part: Part, file: int
    ) -> None:
        answer = self._ask(client, version, part)
        position = part.start
        with contextlib.closing(answer["Body"]) as body:
            self._expect_length(answer, part.size)
            for block in body.iter_chunks(DOWNLOAD_BLOCK):
                rest = memoryview(block)
                while rest:
                    with attempt.effect():
                        written = os.pwrite(file, rest, position)
                    rest = rest[written:]
                    position += written

    def _digest(self) -> tuple[str, str | None]:
        """Of the object, and the one that it was written with."""
        whole, recorded = hashlib.sha256(), None
        version: dict[str, str] = {}

        def update(part: Part) -> Request[tuple["hashlib._Hash", dict[str, Any]]]:
            def request(client: Any, _: Attempt) -> tuple["hashlib._Hash", dict[str, Any]]:
                further = whole.copy()
                answer = self._ask(client, version, part)
                with contextlib.closing(answer["Body"]) as body:
                    self._expect_length(answer, part.size)
                    for block in body.iter_chunks(DOWNLOAD_BLOCK):
                        further.update(block)
                return further, answer

            return request

        for part in self._parts:
            whole, answer = self._operation.run(update(part), part.size)
            version = {"IfMatch": f'"{etag_of(answer)}"'}
            recorded = recorded_sha256(answer)
        return whole.hexdigest(), recorded

    def _ask(self, client: Any, version: dict[str, str], part: Part) -> dict[str, Any]:
        span = {} if len(self._parts) == 1 else {"Range": part.range}
        answer: dict[str, Any] = client.get_object(**self._where, **span, **version)
        return answer

    def _expect_length(self, answer: dict[str, Any], expected: int) -> None:
        length = length_of(answer)
        if length != expected:
            raise AnswerError(f"{length:,} bytes, expected {expected:,}")
