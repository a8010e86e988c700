"""One call on S3: a series of requests, each repeated until it succeeds or the time is used up."""

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from botocore.exceptions import FlexibleChecksumError

from infra.s3.client import Clients
from infra.s3.errors import (
    AnswerError,
    ConditionFailed,
    DamagedObjectError,
    Retry,
    S3Error,
    error_number,
    reason,
    retry_of,
)

BUDGET_SECONDS = 120.0
"""Time for one call with all its attempts: long enough for a server that restarts."""

SLOWEST_TRANSFER = 1 << 20
"""Bytes per second; a transfer may take its size divided by this beyond BUDGET_SECONDS."""

FIRST_PAUSE_SECONDS = 0.05

LONGEST_PAUSE_SECONDS = 5.0

LEAST_SECONDS = 0.1
"""No further attempt begins if less than this is left."""

FEW = 3
"""Attempts in the case of Retry.A_FEW_TIMES."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of single requests.

    Time limits are needed here because botocore's never end an answer that arrives byte by byte.
    """

    attempt_seconds: float = 20
    slowest_attempt: int = 1 << 19
    """Bytes per second; an attempt may take its size divided by this beyond attempt_seconds."""
    part_bytes: int = 64 << 20
    """Larger objects are transferred in parts of this size."""
    copied_bytes: int = 1 << 30
    """Larger objects are copied in parts of this size; S3 copies at most 5 GiB at once."""
    threads: int = 4

    def attempt(self, size: int) -> float:
        """Return the seconds that a request of `size` bytes may take."""
        return self.attempt_seconds + size / self.slowest_attempt


DEFAULT_LIMITS = Limits()


class OverdueError(TimeoutError):
    """An attempt got no complete answer in its time."""


class Abandoned(Exception):  # noqa: N818 (nobody sees it: its thread ends)
    """Nobody waits for the result of this attempt any more."""


class Attempt:
    """Permission for a request's thread to write somewhere, as long as its caller waits."""

    def __init__(self, operation: "Operation") -> None:
        self._operation = operation
        self.withdrawn = False

    @contextlib.contextmanager
    def effect(self) -> Iterator[None]:
        """Surround a write outside the thread.

        Raises:
            Abandoned: The caller doesn't wait any more.
        """
        with self._operation.lock:
            if self.withdrawn or self._operation.ended.is_set():
                raise Abandoned
            yield


Request = Callable[[Any, Attempt], T]
"""Makes one request with a botocore client, and returns what it needs of the answer."""


class Operation:
    """The requests of one call, which share its time. After its context none has an effect.

    Args:
        clients: The clients to use.
        problem: Beginning of error messages, such as "s3://bucket/key can't be read".
        seconds: Time for all requests.
        limits: Limits of each request.
    """

    def __init__(self, clients: Clients, problem: str, seconds: float, limits: Limits) -> None:
        self.problem = problem
        self.ended = threading.Event()
        self.lock = threading.Lock()
        self._clients = clients
        self._limits = limits
        self._began = time.monotonic()
        self._deadline = self._began + seconds

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.ended.set()

    def cleanup(self) -> "Operation":
        """Return an operation for cleaning up after this one, with the time of one attempt."""
        return Operation(self._clients, self.problem, self._limits.attempt_seconds, self._limits)

    def run(self, request: Request[T], size: int = 0) -> T:
        """Make a request, repeatedly if need be, and return its result.

        Args:
            request: The request.
            size: Number of bytes that it transfers.

        Raises:
            S3Error: S3 refused, or can't be reached in time.
            DamagedObjectError: Answers arrived, but wrong ones.
            Absent: There is no such object.
            ConditionFailed: The condition of a write does not hold.
            UploadGone: There is no such multipart upload.
        """
        tries = doubtful = 0
        while True:
            tries += 1
            client = self._clients.current()
            try:
                return self._try(client, request, self._limits.attempt(size))
            except Exception as error:  # noqa: BLE001 (retry_of raises what isn't S3's)
                retry = retry_of(error)
                self._clients.discard(client)
                failure = self._failure(error, tries)
            doubtful += retry in (Retry.A_FEW_TIMES, Retry.OF_CONFLICT)
            pause = min(FIRST_PAUSE_SECONDS * 2**tries, LONGEST_PAUSE_SECONDS)
            pause *= random.uniform(0.5, 1)
            is_last = retry is Retry.NEVER or doubtful == FEW
            if is_last or time.monotonic() + pause + LEAST_SECONDS >= self._deadline:
                # Outside the except clause, so that its context isn't the original error, which
                # may contain secrets.
                raise ConditionFailed if retry is Retry.OF_CONFLICT else failure
            if self.ended.wait(pause):
                raise Abandoned

    def _try(self, client: Any, request: Request[T], seconds: float) -> T:
        """Make the request in its own thread, which is abandoned when the time is over."""
        attempt = Attempt(self)
        outcome: Future[T] = Future()

        def work() -> None:
            try:
                outcome.set_result(request(client, attempt))
            except BaseException as error:  # noqa: BLE001 (raised again in the waiting thread)
                outcome.set_exception(error)

        threading.Thread(target=work, name="s3-request", daemon=True).start()
        seconds = min(seconds, max(0.0, self._deadline - time.monotonic()))
        try:
            return outcome.result(seconds)
        except TimeoutError:
            if outcome.done():
                raise
            raise OverdueError(f"no complete answer within {seconds:.3g} s") from None
        finally:
            with self.lock:
                attempt.withdrawn = True

    def _failure(self, error: Exception, tries: int) -> S3Error:
        kind = S3Error
        if isinstance(error, AnswerError | FlexibleChecksumError):
            kind = DamagedObjectError
        passed = time.monotonic() - self._began
        tried = f" (tried {tries} times in {passed:.3g} s)" if tries > 1 else ""
        return kind(error_number(error), f"{self.problem}: {reason(error)}{tried}")
