"""One call on S3: its requests, each tried until it succeeds or the time is used up."""

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from botocore.exceptions import FlexibleChecksumError

from infra.s3.client import Clients
from infra.s3.errors import Again, AnswerError, DamagedObjectError, S3Error, judge, number, reason

BUDGET_SECONDS = 120.0
"""For one call, with all of its attempts. Long enough for a server that starts anew."""

SLOWEST_TRANSFER = 1 << 20
"""Bytes per second that a transfer's budget allows for, beside BUDGET_SECONDS."""


@dataclass(frozen=True, slots=True)
class Limits:
    """botocore's own timeouts never end an answer that drips."""

    attempt_seconds: float = 20
    slowest_attempt: int = 1 << 19
    """Bytes per second: an attempt may take its size by this longer."""
    part_bytes: int = 64 << 20
    """Larger objects travel in parts of this size."""
    copied_bytes: int = 1 << 30
    """Larger objects are copied in parts of this size; S3 refuses more than 5 GiB at once."""
    threads: int = 4

    def attempt(self, size: int) -> float:
        """Seconds for a request that moves so many bytes."""
        return self.attempt_seconds + size / self.slowest_attempt


DEFAULT_LIMITS = Limits()

FIRST_PAUSE_SECONDS = 0.05

LONGEST_PAUSE_SECONDS = 5.0

LEAST_SECONDS = 0.1
"""With less than that left, no further attempt begins."""

FEW = 3

T = TypeVar("T")


class OverdueError(TimeoutError):
    """No complete answer in the time that one attempt has."""


class Abandoned(Exception):  # noqa: N818 (nobody sees it: its thread ends)
    """Whoever wanted this attempt's result doesn't any longer."""


class Attempt:
    """What a request's thread may still do for whoever waits for it."""

    def __init__(self, operation: "Operation") -> None:
        self._operation = operation
        self.withdrawn = False

    @contextlib.contextmanager
    def effect(self) -> Iterator[None]:
        """Around every write outside the thread. Raises Abandoned."""
        with self._operation.lock:
            if self.withdrawn or self._operation.over.is_set():
                raise Abandoned
            yield


Request = Callable[[Any, Attempt], T]


class Operation:
    """The requests of one call, which share its time. A context: afterwards none has an effect."""

    def __init__(self, clients: Clients, what: str, seconds: float, limits: Limits) -> None:
        self._clients = clients
        self.what = what
        self._limits = limits
        self._started = time.monotonic()
        self._deadline = self._started + seconds
        self.over = threading.Event()
        self.lock = threading.Lock()

    def __enter__(self) -> "Operation":
        return self

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.over.set()

    def brief(self) -> "Operation":
        """To tidy up after this one, with the time of one attempt."""
        return Operation(self._clients, self.what, self._limits.attempt_seconds, self._limits)

    def run(self, request: Request[T], size: int = 0) -> T:
        """Have a request that moves `size` bytes answered.

        Raises S3Error, DamagedObjectError if the answers are there but wrong, and what
        errors.judge takes for an answer: Absent, ConditionFailed, UploadGone.
        """
        doubtful = 0
        for tries in range(1, 1 << 30):
            client = self._clients.current()
            try:
                return self._within(client, request, self._limits.attempt(size))
            except Exception as error:  # noqa: BLE001 (judge raises what isn't S3's)
                again = judge(error)
                self._clients.give_up(client)
                failure = self._failure(error, tries)
            doubtful += again is Again.A_FEW_TIMES
            pause = min(FIRST_PAUSE_SECONDS * 2**tries, LONGEST_PAUSE_SECONDS)
            pause *= random.uniform(0.5, 1)
            last = again is Again.NEVER or doubtful == FEW
            if last or time.monotonic() + pause + LEAST_SECONDS >= self._deadline:
                # Here, so that it doesn't carry the original, which may hold secrets.
                raise failure
            if self.over.wait(pause):
                raise Abandoned
        raise AssertionError("unreachable")

    def _within(self, client: Any, request: Request[T], seconds: float) -> T:
        """In a thread of its own, which is left to itself when the time is over."""
        attempt = Attempt(self)
        outcome: Future[T] = Future()

        def work() -> None:
            try:
                outcome.set_result(request(client, attempt))
            except BaseException as error:  # noqa: BLE001 (it is raised where it is waited for)
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
        passed = time.monotonic() - self._started
        tried = f" (tried {tries} times in {passed:.3g} s)" if tries > 1 else ""
        return kind(number(error), f"{self.what}: {reason(error)}{tried}")
