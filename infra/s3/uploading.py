"""From a file into an object whose bytes are known to be the file's."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from s3transfer.utils import ReadFileChunk

from infra.s3.attempts import Attempt, Operation
from infra.s3.errors import Absent, ConditionFailed, PreconditionError, S3Error, UploadGone
from infra.s3.limits import Limits
from infra.s3.multipart import assemble
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
RESTARTS = 3


class FileUpload:
    """One file on its way to one object."""

    def __init__(
        self,
        operation: Operation,
        where: dict[str, str],
        path: Path,
        *,
        size: int,
        sha256: str,
        expected: Expect | str,
        limits: Limits,
    ) -> None:
        self._operation = operation
        self._where = where
        self._path = path
        self._size = size
        self._sha256 = sha256
        self._expected = expected
        self._limits = limits

    def run(self) -> None:
        """Raises S3Error, PreconditionError."""
        parts = parts_of(self._size, self._limits.part_bytes)
        try:
            if len(parts) == 1:
                self._put(parts[0])
            else:
                self._check_condition()
                self._assemble(parts)
        except (ConditionFailed, Absent):
            found = self._found()
            if not self._is_ours(found):
                etag = etag_of(found) if found else None
                raise PreconditionError.found(self._operation.what, etag) from None

    def _put(self, whole: Part) -> None:
        # The server computes the checksum of what it stores, and refuses another than this.
        options = {"ChecksumSHA256": checksum(self._sha256), **condition(self._expected)}

        def put(client: Any, _: Attempt) -> None:
            with self._opened(whole) as body:
                client.put_object(**self._where, Body=body, Metadata=self._metadata, **options)

        self._operation.run(put, self._size)

    def _check_condition(self) -> None:
        """A request more saves sending in vain. Raises ConditionFailed."""
        if self._expected is ANY:
            return
        found = self._found()
        if (etag_of(found) if found else ABSENT) != self._expected:
            raise ConditionFailed

    def _assemble(self, parts: Sequence[Part]) -> None:
        """Raises S3Error, ConditionFailed, Absent."""
        for _ in range(RESTARTS):
            try:
                assemble(
                    self._operation,
                    self._where,
                    parts,
                    self._send,
                    check=self._comparison(),
                    limits=self._limits,
                    creation={"Metadata": self._metadata, "ChecksumAlgorithm": "CRC32"},
                    condition=condition(self._expected),
                )
                return
            except UploadGone:
                # By an earlier try of the completion, if the object is there.
                if self._is_ours(self._found()):
                    return
        raise S3Error(0, f"{self._operation.what}: the upload was aborted {RESTARTS} times")

    def _send(self, client: Any, upload_id: str, part: Part) -> dict[str, Any]:
        with self._opened(part) as body:
            answer: dict[str, Any] = client.upload_part(
                **self._where,
                UploadId=upload_id,
                PartNumber=part.number,
                Body=body,
                ChecksumAlgorithm="CRC32",
            )
        return answer

    def _comparison(self) -> Callable[[Part], None]:
        """Of the whole file with its SHA-256, beside that of the parts on their way."""
        digest = hashlib.sha256()

        def compare(part: Part) -> None:
            with self._path.open("rb") as file:
                file.seek(part.start)
                for at in range(part.start, part.stop, BLOCK):
                    digest.update(file.read(min(BLOCK, part.stop - at)))
            if part.stop == self._size and digest.hexdigest() != self._sha256:
                found = f"{self._path} has SHA-256 {digest.hexdigest()}, expected {self._sha256}"
                raise S3Error(0, f"{self._operation.what}: {found}")

        return compare

    def _opened(self, part: Part) -> Any:
        return ReadFileChunk.from_filename(str(self._path), part.start, part.size)

    @property
    def _metadata(self) -> dict[str, str]:
        return {SHA256_NAME: self._sha256}

    def _found(self) -> dict[str, Any] | None:
        return head(self._operation, self._where)

    def _is_ours(self, found: dict[str, Any] | None) -> bool:
        return (
            found is not None
            and length_of(found) == self._size
            and recorded_sha256(found) == self._sha256
        )
