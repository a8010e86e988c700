"""From an object into a file, and into a checksum, through faults and with flat memory."""

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable
from typing import Any, TypeVar

from infra.s3.attempts import Attempt, Operation, Request
from infra.s3.errors import Absent, AnswerError, ConditionFailed, DamagedObjectError
from infra.s3.limits import Limits
from infra.s3.objects import etag_of, head, length_of, recorded_sha256
from infra.s3.parts import Part, in_order, parts_of

BLOCK = 256 << 10
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
            for at in range(part.start, part.stop, BLOCK):
                arrived.update(os.pread(file, min(BLOCK, part.stop - at), at))
        if arrived.hexdigest() != sha256:
            raise AnswerError(f"its SHA-256 is {arrived.hexdigest()}, expected {sha256}")

    def _write(
        self, client: Any, attempt: Attempt, version: dict[str, str], part: Part, file: int
    ) -> None:
        answer = self._ask(client, version, part)
        position = part.start
        with contextlib.closing(answer["Body"]) as body:
            self._expect_length(answer, part.size)
            for block in body.iter_chunks(BLOCK):
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
                    for block in body.iter_chunks(BLOCK):
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
