"""An object that is put together from parts, all of them or none."""

import contextlib
import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from infra.s3.attempts import Attempt, Limits, Operation
from infra.s3.errors import Absent, S3Error, UploadGone
from infra.s3.objects import head, length_of, recorded_sha256

MOST_PARTS = 9000
"""S3 takes 10,000."""

T = TypeVar("T")

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes `start` to `stop` (exclusive) of an object."""

    number: int
    """From 1, as S3 counts."""
    start: int
    stop: int

    @property
    def size(self) -> int:
        """In bytes."""
        return self.stop - self.start

    @property
    def range(self) -> str:
        """As HTTP has it."""
        return f"bytes={self.start}-{self.stop - 1}"


def parts_of(size: int, part_bytes: int) -> list[Part]:
    """Cut `size` bytes; an empty object is one empty part."""
    step = max(part_bytes, -(-size // MOST_PARTS))
    starts = range(0, size, step) if size else [0]
    return [Part(at, start, min(start + step, size)) for at, start in enumerate(starts, 1)]


def in_order(work: Callable[[T], R], items: Sequence[T], threads: int) -> Iterator[R]:
    """`work` of every item, several at a time, with the results in the items' order.

    The first failure is raised, and no further item begun. The threads don't keep the
    interpreter from ending, as those of concurrent.futures do.
    """
    futures: list[Future[R]] = [Future() for _ in items]
    waiting: queue.SimpleQueue[tuple[T, Future[R]]] = queue.SimpleQueue()
    for pair in zip(items, futures, strict=True):
        waiting.put(pair)
    stopped = threading.Event()

    def take() -> None:
        while not stopped.is_set():
            try:
                item, future = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                future.set_result(work(item))
            except BaseException as error:  # noqa: BLE001 (it is raised where it is waited for)
                stopped.set()
                future.set_exception(error)

    for _ in range(min(threads, len(items))):
        threading.Thread(target=take, name="s3-parts", daemon=True).start()
    try:
        # The queue keeps the order: whatever comes before a failed item has been begun.
        for future in futures:
            yield future.result()
    finally:
        stopped.set()


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
