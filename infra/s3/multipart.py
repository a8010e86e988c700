"""Objects that are written in several parts, and appear whole or not at all."""

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
from infra.s3.objects import head, length_of, sha256_of

MAX_PARTS = 9000
"""S3 accepts 10,000."""

RESTARTS = 3
"""Attempts at an upload that others abort."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes `start` to `stop` (exclusive) of an object."""

    number: int
    """Number of the part, counted from 1 as S3 does."""
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self.stop - self.start

    @property
    def range(self) -> str:
        """The bytes in the form of HTTP's Range header."""
        return f"bytes={self.start}-{self.stop - 1}"


def parts_of(size: int, part_bytes: int) -> list[Part]:
    """Cut `size` bytes into parts; an empty object is one empty part."""
    step = max(part_bytes, -(-size // MAX_PARTS))
    starts = range(0, size, step) if size else [0]
    return [Part(at, start, min(start + step, size)) for at, start in enumerate(starts, 1)]


def map_in_order(work: Callable[[T], R], items: Sequence[T], threads: int) -> Iterator[R]:
    """Apply `work` to several items at a time, and yield the results in the items' order.

    The first exception is raised, and no further item begun. The threads don't keep the interpreter
    from ending, as those of concurrent.futures do.
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
            except BaseException as error:  # noqa: BLE001 (raised again in the waiting thread)
                stopped.set()
                future.set_exception(error)

    for _ in range(min(threads, len(items))):
        threading.Thread(target=take, name="s3-parts", daemon=True).start()
    try:
        # Items are taken in order, so every item before a failed one has been begun.
        for future in futures:
            yield future.result()
    finally:
        stopped.set()


class MultipartWrite(ABC):
    """One object that is written in parts; subclasses know where the parts come from.

    Args:
        operation: The operation to which all requests belong.
        target: Bucket and Key of the object.
        parts: The parts.
        threads: Number of parts that are sent at the same time.
        creation: Further parameters of the first request.
        condition: Further parameters of the last request, which makes the object appear.
    """

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
        self._operation = operation
        self._target = target
        self._parts = parts
        self._threads = threads
        self._creation = creation
        self._condition = condition

    @abstractmethod
    def send(self, client: Any, upload_id: str, part: Part) -> dict[str, Any]:
        """Make the request that sends a part, and return S3's answer."""

    @abstractmethod
    def is_done(self) -> bool:
        """Tell whether the object is there, so that the upload was completed and not aborted."""

    def new_check(self) -> Callable[[Part], None]:
        """Return a function that checks each part after it was sent, in order.

        The object appears only if the function raises nothing.
        """
        return lambda _: None

    def run(self) -> None:
        """Write the object. Whatever is raised, no parts stay behind.

        Raises:
            S3Error: S3 refused, can't be reached in time, or others keep aborting the upload.
            ConditionFailed: S3's answer to the last request, maybe because an earlier attempt
                at it succeeded.
            Absent: Likewise.
        """
        for _ in range(RESTARTS):
            try:
                self._write()
                return
            except UploadGone:
                if self.is_done():
                    return
        problem = self._operation.problem
        raise S3Error(0, f"{problem}: its multipart upload was aborted by others {RESTARTS} times")

    def _write(self) -> None:
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
            check = self.new_check()
            answers = map_in_order(deliver, self._parts, self._threads)
            for part, answer in zip(self._parts, answers, strict=True):
                check(part)
                delivered.append(_entry(part, answer))
            operation.run(complete)
        except BaseException:
            # If it can't be aborted now, garbage collection finds it later.
            with contextlib.suppress(S3Error, UploadGone, Absent):
                abort(operation.cleanup(), self._target, upload_id)
            raise


def _entry(part: Part, answer: dict[str, Any]) -> dict[str, Any]:
    """Return the part's entry in the list that completes an upload."""
    checksums = {name: value for name, value in answer.items() if name == "ChecksumCRC32"}
    return {"PartNumber": part.number, "ETag": answer["ETag"], **checksums}


def abort(operation: Operation, target: dict[str, str], upload_id: str) -> None:
    """Abort a multipart upload.

    Raises:
        S3Error: S3 refused, or can't be reached in time.
        UploadGone: There is no such upload.
    """
    with operation:
        operation.run(lambda client, _: client.abort_multipart_upload(**target, UploadId=upload_id))


def copy(
    operation: Operation,
    source: dict[str, str],
    found: dict[str, Any],
    target: dict[str, str],
    limits: Limits,
) -> None:
    """Copy an object within the server.

    Args:
        operation: The operation to which all requests belong.
        source: Bucket and Key of the source.
        found: S3's answer about the source.
        target: Bucket and Key of the target.
        limits: Limits of each request.

    Raises:
        S3Error: S3 refused, or can't be reached in time.
        Absent: The source is gone.
        ConditionFailed: The source has changed.
    """
    version = {"CopySource": source, "CopySourceIfMatch": found["ETag"]}
    parts = parts_of(length_of(found), limits.copied_bytes)
    if len(parts) > 1:
        _LargeCopy(operation, target, parts, found, version, limits.threads).run()
        return
    operation.run(lambda client, _: client.copy_object(**target, **version), parts[0].size)


class _LargeCopy(MultipartWrite):
    """A copy of more bytes than one request may copy."""

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
        answer: dict[str, Any] = client.upload_part_copy(
            **self._target,
            **self._version,
            UploadId=upload_id,
            PartNumber=part.number,
            CopySourceRange=part.range,
        )["CopyPartResult"]
        return answer

    def is_done(self) -> bool:
        copied = head(self._operation, self._target)
        return copied is not None and _identity(copied) == _identity(self._found)


def _identity(answer: dict[str, Any]) -> tuple[int, str | None]:
    return length_of(answer), sha256_of(answer)
