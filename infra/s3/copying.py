"""From one object to another inside a bucket, without the bytes coming here."""

from typing import Any

from infra.s3.attempts import Operation
from infra.s3.errors import ConditionFailed, UploadGone
from infra.s3.limits import Limits
from infra.s3.multipart import assemble
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
    if len(parts) == 1:
        operation.run(lambda client, _: client.copy_object(**target, **version), parts[0].size)
        return

    def send(client: Any, upload_id: str, part: Part) -> dict[str, Any]:
        answer: dict[str, Any] = client.upload_part_copy(
            **target,
            **version,
            UploadId=upload_id,
            PartNumber=part.number,
            CopySourceRange=part.range,
        )["CopyPartResult"]
        return answer

    try:
        assemble(
            operation,
            target,
            parts,
            send,
            limits=limits,
            creation={"Metadata": found.get("Metadata", {})},
            condition={},
        )
    except UploadGone:
        # By an earlier try of the completion, if the copy is there.
        copied = head(operation, target)
        if copied is None or _identity(copied) != _identity(found):
            raise ConditionFailed from None


def _identity(answer: dict[str, Any]) -> tuple[int, str | None]:
    return length_of(answer), recorded_sha256(answer)
