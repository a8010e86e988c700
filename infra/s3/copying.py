"""From one object to another inside a bucket, without the bytes coming here."""

from typing import Any

from infra.s3.attempts import Operation
from infra.s3.limits import Limits
from infra.s3.multipart import Assembly
from infra.s3.objects import head, length_of, recorded_sha256
from infra.s3.parts import Part, parts_of


def copy(
    operation: Operation,
    source: dict[str, str],
    found: dict[str, Any],
    target: dict[str, str],
    limits: Limits,
) -> None:
    """`found`: S3's word on the source. Raises S3Error; Absent, ConditionFailed if it changed."""
    version = {"CopySource": source, "CopySourceIfMatch": found["ETag"]}
    parts = parts_of(length_of(found), limits.copied_bytes)
    if len(parts) > 1:
        LargeCopy(operation, target, parts, found, version, limits.threads).run()
        return
    operation.run(lambda client, _: client.copy_object(**target, **version), parts[0].size)


class LargeCopy(Assembly):
    """Of more bytes than one request may copy."""

    def __init__(
        self,
        operation: Operation,
        target: dict[str, str],
        parts: list[Part],
        found: dict[str, Any],
        version: dict[str, Any],
        threads: int,
    ) -> None:
        creation = {"Metadata": found.get("Metadata", {})}
        super().__init__(operation, target, parts, threads=threads, creation=creation, condition={})
        self._found = found
        self._version = version

    def send(self, client: Any, upload_id: str, part: Part) -> dict[str, Any]:
        """See Assembly."""
        answer: dict[str, Any] = client.upload_part_copy(
            **self._target,
            **self._version,
            UploadId=upload_id,
            PartNumber=part.number,
            CopySourceRange=part.range,
        )["CopyPartResult"]
        return answer

    def is_done(self) -> bool:
        """See Assembly."""
        copied = head(self._operation, self._target)
        return copied is not None and _identity(copied) == _identity(self._found)


def _identity(answer: dict[str, Any]) -> tuple[int, str | None]:
    return length_of(answer), recorded_sha256(answer)
