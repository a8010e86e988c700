"""Leases on S3: one builder of a key at a time, on any host; that of a dead builder is taken over.

A lease is one object, which its holder rewrites by compare-and-swap at every heartbeat. Whoever
waits measures on its own clock for how long the object has stayed the same, so that no two clocks
need to agree. A holder makes sure at every commit that the lease is still its own.
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

from infra.artifacts.documents import SealedRecord, StoreError
from infra.artifacts.records import Digests, LostLeaseError
from infra.base.records import Record
from infra.base.verified import boot_id
from infra.s3 import Bucket, Expect, PreconditionError, S3Error

logger = logging.getLogger(__name__)

EXPIRY_SECONDS = 60.0
"""A holder without a heartbeat for so long counts as dead."""
BEATS = 4
"""Heartbeats within that time."""
MAX_LEASE_BYTES = 1 << 20
POLL_SECONDS = 1.0

_held: set[str] = set()
"""The holders of all leases that this process holds."""


class ProcessIdentity(Record, strict=True):
    """What tells a process from any other one, also from a later one with the same number."""

    host: str
    boot: str
    pids: str
    """The namespace of the process number: each container of a host has its own."""
    pid: int
    started: float
    """When it started, in seconds since the epoch by its machine's clock."""

    @classmethod
    def own(cls) -> Self:
        """Return the identity of this process."""
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
        """Whether it is gone. Of a process on another machine that isn't known."""
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


class LeaseDocument(SealedRecord):
    """A lease as it is stored."""

    token: int = Field(ge=1)
    """Counts the holders."""
    holder: str
    """Random, and new each time that a lease is acquired."""
    process: ProcessIdentity
    beat: int = Field(ge=0)
    released: bool
    inputs: Digests
    """The inputs of the artifact that is being built: garbage collection leaves them."""

    @classmethod
    def parse(cls, key: str, content: bytes) -> Self:
        """Return the lease in an object.

        Raises:
            StoreError: The object is no lease.
        """
        try:
            return cls.decode(content)
        except StoreError as error:
            raise StoreError(f"{key} is no lease ({error}): remove it") from None


class Lease:
    """A lease that this process holds until it is released or lost."""

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

    def check(self) -> None:
        """Make sure that the lease is still held, by writing it to the store.

        Raises:
            LostLeaseError: Another builder has it.
        """
        if not self._lost:
            with self._writing:
                self._write(self._bucket, beat=self._document.beat + 1)
        if self._lost:
            raise LostLeaseError(f"{self._key} was taken over: {self._lost}")

    def release(self) -> None:
        """Free the lease for the next builder."""
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
            # An earlier write may have succeeded although its answer was lost.
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
        bucket: The store.
        key: The lease's object.
        inputs: Name of each artifact that is needed meanwhile → its digest.
        expiry: Seconds without a heartbeat after which a holder counts as dead.
        on_wait: Called once with the name of the holder, if there is one.

    Raises:
        S3Error: The bucket can't be reached.
        StoreError: The object is no lease.
    """
    seen, since, announced = "", 0.0, False
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
        if not announced:
            announced = True
            on_wait(_describe(present))
        time.sleep(min(POLL_SECONDS, expiry / BEATS))


def _is_free(lease: LeaseDocument, unchanged: float, expiry: float) -> bool:
    if lease.released or unchanged > expiry or lease.process.is_known_dead:
        return True
    # This process has released it, but couldn't write that to the store.
    return lease.process == ProcessIdentity.own() and lease.holder not in _held


def _describe(lease: LeaseDocument) -> str:
    return f"process {lease.process.pid} on {lease.process.host}"
