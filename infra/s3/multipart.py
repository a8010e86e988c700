"""An object that is put together from parts, all of them or none."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from infra.s3.attempts import Attempt, Operation
from infra.s3.errors import Absent, S3Error, UploadGone
from infra.s3.limits import Limits
from infra.s3.parts import Part, in_order

Send = Callable[[Any, str, Part], dict[str, Any]]
"""Of a client, an upload's id and a part: makes the request, returns S3's word on the part."""


def assemble(
    operation: Operation,
    where: dict[str, str],
    parts: Sequence[Part],
    send: Send,
    *,
    check: Callable[[Part], None] | None = None,
    limits: Limits,
    creation: dict[str, Any],
    condition: dict[str, str],
) -> None:
    """`check` sees every part that has arrived, in order, before the object exists.

    Raises S3Error, and the answers ConditionFailed, UploadGone and Absent to the completion, which
    may be those of an earlier try that succeeded. Whatever is raised, the parts are given up.
    """

    def create(client: Any, _: Attempt) -> str:
        return str(client.create_multipart_upload(**where, **creation)["UploadId"])

    upload_id = operation.run(create)

    def deliver(part: Part) -> dict[str, Any]:
        return operation.run(lambda client, _: send(client, upload_id, part), part.size)

    try:
        delivered = []
        for part, word in zip(parts, in_order(deliver, parts, limits.threads), strict=True):
            if check:
                check(part)
            delivered.append(_named(part, word))
        operation.run(
            lambda client, _: client.complete_multipart_upload(
                **where, UploadId=upload_id, MultipartUpload={"Parts": delivered}, **condition
            )
        )
    except BaseException:
        # What can't be aborted now is swept later.
        with contextlib.suppress(S3Error, UploadGone, Absent):
            abort(operation.brief(), where, upload_id)
        raise


def abort(operation: Operation, where: dict[str, str], upload_id: str) -> None:
    """Raises S3Error, and UploadGone if there is nothing to abort."""
    with operation:
        operation.run(lambda client, _: client.abort_multipart_upload(**where, UploadId=upload_id))


def _named(part: Part, word: dict[str, Any]) -> dict[str, Any]:
    checksums = {name: value for name, value in word.items() if name == "ChecksumCRC32"}
    return {"PartNumber": part.number, "ETag": word["ETag"], **checksums}
