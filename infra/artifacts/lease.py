"""Leases on S3: one builder of a key at a time, on whatever host, and a dead one is taken over.

A lease is one object that its holder rewrites, by compare-and-swap, at every heartbeat. Whoever
waits measures on its own clock for how long the object has stayed the same, so no two clocks need
to agree. Each holder has a greater token than the one before: it is checked at every commit.
"""

import logging
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import psutil
from pydantic import Field

from infra.artifacts.records import Digests, LostLeaseError, StoreError
from infra.base.records import Record, RecordError, SealedRecord
from infra.base.verified import boot_id
from infra.s3 import Bucket, Expect, PreconditionError, S3Error


class ProcessIdentity(Record, strict=True):
    """A process, told apart from a later one with its number."""

    host: str
    boot: str
    pids: str
    """The namespace of the number: containers of one host have their own."""
    pid: int
    started: float
    """Seconds since the epoch, by the machine's own clock."""

    @classmethod
    def own(cls) -> Self:
        """This process."""
        process = psutil.Process()
        return cls(
            host=socket.gethostname(),
            boot=boot_id(),
            pids=_pid_namespace(),
            pid=process.pid,
            started=process.create_time(),
        )

    @property
    def is_known_dead(self) -> bool:
        """Whether it ran on this machine and is gone; of other machines nobody can tell."""
        if (self.boot, self.pids) != (boot_id(), _pid_namespace()):
            return False
        try:
            process = psutil.Process(self.pid)
            is_other = process.create_time() != self.started
            return is_other or process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True


def _pid_namespace() -> str:
    return str(Path("/proc/self/ns/pid").readlink())


logger = logging.getLogger(__name__)

EXPIRY_SECONDS = 60.0
"""Without a heartbeat for so long, a holder counts as dead."""

BEATS = 4
"""Heartbeats within that time."""

MAX_LEASE_BYTES = 1 << 20

POLL_SECONDS = 1.0

_held: set[str] = set()
"""By this process."""


class LeaseDocument(SealedRecord):
    """The lease as stored."""

    token: int = Field(ge=1)
    """Greater than that of every holder before."""
    holder: str
    """Unique to this holding of the lease."""
    process: ProcessIdentity
    beat: int = Field(ge=0)
    released: bool
    inputs: Digests
    """Of the artifact that is being built: none of them is garbage."""

    @classmethod
    def parse(cls, key: str, content: bytes) -> Self:
        """Raise StoreError if it is none."""
        try:
            return cls.decode(content)
        except RecordError as error:
            raise StoreError(f"{key} is no lease ({error}): remove it") from None


class Lease:
    """A lease that this process holds, until it is released or lost."""

    def __init__(
        self, bucket: Bucket, key: str, document: LeaseDocument, etag: str, expiry: float
    ) -> None:
        self._bucket, self._key, self._expiry = bucket, key, expiry
        self._interval = expiry / BEATS
        self._document, self._etag = document, etag
        self._lost = ""
        _held.add(document.holder)
        self._confirmed = time.monotonic()
        self._released = threading.Event()
        self._writing = threading.Lock()
        self._heart = threading.Thread(target=self._beat, name=f"lease {key}", daemon=True)
        self._heart.start()

    @property
    def token(self) -> int:
        """Greater than that of every earlier holder."""
        return self._document.token

    def check(self) -> None:
        """Make sure that it is still held: by the store's own word, not by ours.

        Raises:
            LostLeaseError: another builder has it.
        """
        if not self._lost:
            with self._writing:
                self._write(self._bucket, beat=self._document.beat + 1)
        if self._lost:
            raise LostLeaseError(f"{self._key} was taken over: {self._lost}")

    def release(self) -> None:
        """Let the next builder have it at once."""
        self._released.set()
        self._heart.join()
        _held.discard(self._document.holder)
        if not self._lost:
            try:
                self._write(self._bucket, released=True)
            except (S3Error, StoreError) as error:
                logger.warning("%s will be free in %g s only: %s", self._key, self._expiry, error)

    def _beat(self) -> None:
        bucket = self._bucket.within(self._interval)
        while not self._lost and not self._released.wait(self._interval):
            try:
                with self._writing:
                    self._write(bucket, beat=self._document.beat + 1)
            except (S3Error, StoreError) as error:
                logger.warning("no heartbeat of %s: %s", self._key, error)
                if time.monotonic() - self._confirmed > self._expiry - self._interval:
                    self._lost = f"no heartbeat for {time.monotonic() - self._confirmed:.0f} s"

    def _write(self, bucket: Bucket, **change: Any) -> None:
        fields = {name: value for name, value in self._document if name != "checksum"}
        document = LeaseDocument(**{**fields, **change})
        began = time.monotonic()
        try:
            self._etag = bucket.put(self._key, document.encode(), expected=self._etag)
        except PreconditionError:
            # A heartbeat may have arrived though its writer never learned of it.
            stored = bucket.get(self._key, max_bytes=MAX_LEASE_BYTES)
            present = LeaseDocument.parse(self._key, stored.content) if stored else None
            if stored is None or present is None or present.holder != document.holder:
                self._lost = f"it is held by {_describe(present)}" if present else "it is gone"
                return
            self._etag = bucket.put(self._key, document.encode(), expected=stored.etag)
        self._document, self._confirmed = document, began


def acquire(
    bucket: Bucket,
    key: str,
    inputs: dict[str, str],
    *,
    expiry: float = EXPIRY_SECONDS,
    on_wait: Callable[[str], None],
) -> Lease:
    """Wait until nobody else holds the lease, and take it.

    Args:
        bucket: Where it is.
        key: Of the lease's object.
        inputs: Digests of what is needed meanwhile.
        expiry: Seconds without a heartbeat after which a holder counts as dead.
        on_wait: Called once with who holds it, if anybody does.

    Raises:
        S3Error: the bucket can't be reached.
        StoreError: what is stored is no lease.
    """
    seen, since, said = "", 0.0, False
    while True:
        stored = bucket.get(key, max_bytes=MAX_LEASE_BYTES)
        present = LeaseDocument.parse(key, stored.content) if stored else None
        if stored is not None and stored.etag != seen:
            seen, since = stored.etag, time.monotonic()
        if present is None or _is_free(present, time.monotonic() - since, expiry):
            document = LeaseDocument(
                token=present.token + 1 if present else 1,
                holder=uuid4().hex,
                process=ProcessIdentity.own(),
                beat=0,
                released=False,
                inputs=inputs,
            )
            try:
                expected = stored.etag if stored else Expect.ABSENT
                etag = bucket.put(key, document.encode(), expected=expected)
            except PreconditionError:
                continue
            if present is not None and not present.released:
                logger.warning("%s is taken over from %s", key, _describe(present))
            return Lease(bucket, key, document, etag, expiry)
        if not said:
            said = True
            on_wait(_describe(present))
        time.sleep(min(POLL_SECONDS, expiry / BEATS))


def _is_free(lease: LeaseDocument, unchanged: float, expiry: float) -> bool:
    if lease.released or unchanged > expiry or lease.process.is_known_dead:
        return True
    # Ours, and given up, but the store never learned of it.
    return lease.process == ProcessIdentity.own() and lease.holder not in _held


def _describe(lease: LeaseDocument) -> str:
    return f"process {lease.process.pid} on {lease.process.host}"
