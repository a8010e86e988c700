"""What the server of a store does: probed at the first write, recorded in the store, read later.

    <prefix>/.server/<endpoint>.json   the profile of the server, by the SHA-256 of its address
    <prefix>/.server/writers.json      who may write, where the server can't keep writers apart

Where the server itself lets only one of two writers through, any host may write. Elsewhere a lock
of the kernel stands in, in the directory of this host's cache: processes that share the directory
may write, and nobody else may.
"""

import hashlib
import logging
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from uuid import uuid4

from pydantic import AwareDatetime

from infra.artifacts.documents import SealedRecord, StoreError
from infra.base.locks import exclusive
from infra.s3 import ABSENT, ANY, Bucket, DamagedObjectError, PreconditionError, Profile, Writing

logger = logging.getLogger(__name__)

SERVER = ".server"
WRITERS = f"{SERVER}/writers.json"
MAX_BYTES = 1 << 16
CLAIM_SECONDS = 1.0
"""Until a claim is read back, where nothing else tells which of two came last."""


class RecordedProfile(SealedRecord):
    """What a server was found to do, as it is stored."""

    format_version: Literal[1]
    endpoint: str
    profile: Profile
    measured: AwareDatetime


class Writers(SealedRecord):
    """Who may write a store whose server can't keep writers apart, as it is stored."""

    format_version: Literal[1]
    cache: str
    """Random, and kept in the directory of the cache: whose processes may write."""
    host: str
    directory: str
    since: AwareDatetime


class StoreServer:
    """The server of a store, as far as its writers have to know it."""

    def __init__(self, bucket: Bucket, cache: Path) -> None:
        """Ask nothing yet.

        Args:
            bucket: The store.
            cache: The directory of this host's cache, where locks are.
        """
        self._locks = cache / "locks"
        self._bucket = bucket.using(Writing(self.profile, self._exclusive))
        self._profile: Profile | None = None
        self._asking = threading.Lock()

    @property
    def bucket(self) -> Bucket:
        """The store, with writes that are safe on its server."""
        return self._bucket

    def profile(self) -> Profile:
        """Return what the server does: as recorded; otherwise measure and record it.

        Raises:
            StoreError: A store on it can't work.
            S3Error: It can't be reached.
        """
        with self._asking:
            if self._profile is None:
                recorded = self.recorded()
                self._profile = recorded or self.record(self._bucket.probe())
            return self._profile

    def recorded(self) -> Profile | None:
        """Return the profile that is recorded in the store; None if there is no valid one."""
        endpoint = self._bucket.endpoint
        try:
            stored = self._bucket.get(_path(endpoint), max_bytes=MAX_BYTES)
            if stored is None:
                return None
            recorded = RecordedProfile.decode(stored.content)
            require_fit(self._bucket, recorded.profile)
        except (StoreError, DamagedObjectError) as error:
            logger.warning("%s is not used, the server is probed again: %s", _path(endpoint), error)
            return None
        # Another endpoint has another name: somebody has copied the record.
        return recorded.profile if recorded.endpoint == endpoint else None

    def record(self, profile: Profile) -> Profile:
        """Record what the server was found to do, and return it.

        Raises:
            StoreError: A store on it can't work.
        """
        require_fit(self._bucket, profile)
        endpoint = self._bucket.endpoint
        document = RecordedProfile(
            format_version=1, endpoint=endpoint, profile=profile, measured=datetime.now(UTC)
        )
        # Whoever comes last is right as well: the profiles are of the same server.
        writer = self._bucket.using(Writing(lambda: profile))
        writer.put(_path(endpoint), document.encode(), expected=ANY)
        if not profile.is_shared:
            logger.warning("%s", one_cache_only(self._bucket, profile))
        return profile

    @contextmanager
    def _exclusive(self, name: str) -> Iterator[None]:
        """Hold the lock of an object against all who may write.

        Raises:
            StoreError: Processes with another cache may write, those with this one may not.
        """
        self._locks.mkdir(parents=True, exist_ok=True)
        # Without the endpoint: one server may have several.
        lock = f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.lock"
        with exclusive(self._locks / lock):
            self._require_claim()
            yield

    def _require_claim(self) -> None:
        mine = _cache_name(self._locks)
        writers = self._writers()
        if writers is None:
            writers = self._claim(mine)
        if writers.cache != mine:
            raise StoreError(
                f"{self._bucket.location} may be written only with the cache {writers.directory} "
                f"of {writers.host}, because its server can't keep other writers apart: run this "
                f"with that SKNET_CACHE; or remove {WRITERS} once nothing uses that cache any more"
            )

    def _claim(self, mine: str) -> Writers:
        claim = Writers(
            format_version=1,
            cache=mine,
            host=socket.gethostname(),
            directory=str(self._locks.parent),
            since=datetime.now(UTC),
        )
        profile = self.profile()
        is_decided = profile.create == "honoured"
        writer = self._bucket.using(Writing(lambda: profile))
        with suppress(PreconditionError):  # another was first, as what is there says
            writer.put(WRITERS, claim.encode(), expected=ABSENT if is_decided else ANY)
        if not is_decided:
            time.sleep(CLAIM_SECONDS)
        return self._writers() or claim

    def _writers(self) -> Writers | None:
        stored = self._bucket.get(WRITERS, max_bytes=MAX_BYTES)
        if stored is None:
            return None
        try:
            return Writers.decode(stored.content)
        except StoreError as error:
            raise StoreError(
                f"{self._bucket.location}/{WRITERS} is not valid ({error}): remove it, if nothing "
                "writes the store"
            ) from None


def one_cache_only(bucket: Bucket, profile: Profile) -> str:
    """Return the sentence that says who may write a store whose server can't keep writers apart."""
    return (
        f"{bucket.location}: the server does not honour the conditions of writes "
        f"(If-None-Match is {profile.create}, If-Match is {profile.replace}), so that only "
        "processes that share one SKNET_CACHE may write this store; all may read it"
    )


def require_fit(bucket: Bucket, profile: Profile) -> None:
    """Check that a store can be on a server.

    Raises:
        StoreError: It can't.
    """
    if profile.missing:
        raise StoreError(
            f"{bucket.location}: its server lacks {', '.join(profile.missing)}, without which no "
            "store can be there: use another server"
        )


def _path(endpoint: str) -> str:
    return f"{SERVER}/{hashlib.sha256(endpoint.encode()).hexdigest()[:16]}.json"


def _cache_name(locks: Path) -> str:
    """Return the random name of a cache, which all processes that share it read there."""
    path = locks / "name"
    with exclusive(locks / "name.lock"):
        if path.exists() and re.fullmatch(r"[0-9a-f]{32}", name := path.read_text("utf-8")):
            return name
        name = uuid4().hex
        path.write_text(name, "utf-8")
        return name
