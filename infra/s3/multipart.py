"""An object that is put together from parts, all of them or none."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from infra.s3.attempts import Attempt, Operation
from infra.s3.errors import Absent, S3Error, UploadGone
from infra.s3.parts import Part, in_order

RESTARTS = 3


class Assembly(ABC):
    """One object and where its parts come from."""

    def __init__(
        self,
        operation: Operation,
        target: dict[str, str],
        parts: Sequence[Part],
        *,
        threads: int,
        creation: dict[str, Any],
        condition: dict[str, str],
    ) -> None:
        """`creation`, `condition`: further parameters of the first and of the last request."""
        self._operation = operation
        self._target = target
        self._parts = parts
        self._threads = threads
        self._creation = creation
        self._condition = condition

    @abstractmethod
    def send(self, client: Any, upload_id: str, part: Part) -> dict[str, Any]:
        """Make the request that brings a part, return S3's word on it."""

    @abstractmethod
    def is_done(self) -> bool:
        """Whether the object is there: tells a completed upload from one that others aborted."""

    def begin_check(self) -> Callable[[Part], None]:
        """Of a try; called with every part that has arrived, in order, before the object exists."""
        return lambda part: None  # noqa: ARG005

    def run(self) -> None:
        """Raises S3Error, and the answers ConditionFailed and Absent to the last request.

        They may be due to an earlier try of it that succeeded. Whatever is raised, no parts stay.
        """
        for _ in range(RESTARTS):
            try:
                self._assemble()
                return
            except UploadGone:
                if self.is_done():
                    return
        what = self._operation.what
        raise S3Error(0, f"{what}: its multipart upload was aborted by others {RESTARTS} times")

    def _assemble(self) -> None:
        operation = self._operation

        def create(client: Any, _: Attempt) -> str:
            answer = client.create_multipart_upload(**self._target, **self._creation)
            return str(answer["UploadId"])

        upload_id = operation.run(create)

        def deliver(part: Part) -> dict[str, Any]:
            return operation.run(lambda client, _: self.send(client, upload_id, part), part.size)

        def complete(client: Any, _: Attempt) -> None:
            client.complete_multipart_upload(
                **self._target,
                UploadId=upload_id,
                MultipartUpload={"Parts": delivered},
                **self._condition,
            )

        try:
            delivered = []
            check = self.begin_check()
            answers = in_order(deliver, self._parts, self._threads)
            for part, answer in zip(self._parts, answers, strict=True):
                check(part)
                delivered.append(_named(part, answer))
            operation.run(complete)
        except BaseException:
            # What can't be aborted now is swept later.
            with contextlib.suppress(S3Error, UploadGone, Absent):
                abort(operation.brief(), self._target, upload_id)
            raise


def abort(operation: Operation, target: dict[str, str], upload_id: str) -> None:
    """Raises S3Error, and UploadGone if there is nothing to abort."""
    with operation:
        operation.run(lambda client, _: client.abort_multipart_upload(**target, UploadId=upload_id))


def _named(part: Part, answer: dict[str, Any]) -> dict[str, Any]:
    checksums = {name: value for name, value in answer.items() if name == "ChecksumCRC32"}
    return {"PartNumber": part.number, "ETag": answer["ETag"], **checksums}
