"""From a file into an object whose bytes are known to be the file's."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s3transfer.utils import ReadFileChunk

from infra.s3.attempts import Attempt, Operation
from infra.s3.errors import Absent, ConditionFailed, PreconditionError, S3Error
from infra.s3.limits import Limits
from infra.s3.multipart import Assembly
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
from infra.s3.parts import Part, parts_of

BLOCK = 1 << 20


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
                for at in range(part.start, part.stop, BLOCK):
                    digest.update(file.read(min(BLOCK, part.stop - at)))
            if part.stop == size and digest.hexdigest() != expected:
                found = f"{path} has SHA-256 {digest.hexdigest()}, expected {expected}"
                raise S3Error(0, f"{self._operation.what}: {found}")

        return check
