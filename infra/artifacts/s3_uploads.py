"""Files of an artifact that hosts put into a bucket before its commit.

    <kind>/<key>/<path>                   the files, where the commit wants them
    .work/<kind>/<key>/finished/<name>    what the builder has noted of finished parts

Without a manifest they are no artifact. Hosts only put what is not there. Only the builder, who
holds the lease of the key, replaces and removes. So a host that was cut off, and comes back after
the commit, finds each of its files there and changes nothing.
"""

import logging
import socket
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from infra.artifacts.documents import StoreError
from infra.artifacts.lease import Lease
from infra.artifacts.opening import open_bucket
from infra.artifacts.records import MANIFEST, Address, DigestConflictError
from infra.artifacts.s3_layout import FINISHED, REQUESTS, WORK
from infra.base.records import MAX_RECORD_BYTES
from infra.base.uploads import UploadedFile
from infra.s3 import Bucket, DamagedObjectError, Expect, ListedObject, PreconditionError, S3Error

logger = logging.getLogger(__name__)

UPLOAD_TRIES = 5
"""Tries to put a file where something was, and is no longer: the builder removes it once."""
PAUSE_SECONDS = 1.0


@dataclass(frozen=True)
class FileUploader:
    """Puts files of one artifact into its bucket, from any host; see `infra.base.uploads.Upload`.

    It opens the store by the settings of the host that it runs on.
    """

    uri: str
    kind: str
    key: str

    def check(self) -> None:
        """Open the store, which is done once in a process."""
        try:
            open_bucket(self.uri)
        except StoreError as error:
            raise type(error)(f"on host {socket.gethostname()}: {error}") from None

    def __call__(self, path: Path, name: str, size: int, sha256: str) -> None:
        """Put a file into the bucket, on the condition that there is none of this name."""
        target = f"{self.kind}/{self.key}/{name}"
        host = socket.gethostname()
        for tries_left in reversed(range(UPLOAD_TRIES)):
            try:
                open_bucket(self.uri).upload(
                    path, target, size=size, sha256=sha256, expected=Expect.ABSENT
                )
                return
            except PreconditionError as error:
                if error.etag is not None:
                    raise DigestConflictError(
                        f"on host {host}: {target} has other bytes than in the store, where "
                        "another host put it: expected the same installation on all hosts"
                    ) from None
                # The builder has just removed what was there.
                if not tries_left:
                    raise S3Error(error.errno or 0, f"on host {host}: {error.strerror}") from None
                time.sleep(PAUSE_SECONDS)
            except S3Error as error:
                raise S3Error(error.errno or 0, f"on host {host}: {error.strerror}") from None
            except StoreError as error:
                raise type(error)(f"on host {host}: {error}") from None


class BucketUploads:
    """The files of one artifact that hosts put into a bucket; see `infra.base.uploads.Uploads`."""

    def __init__(
        self,
        bucket: Bucket,
        address: Address,
        hold_lease: Callable[[], AbstractContextManager[Lease]],
    ) -> None:
        """Ask nothing yet.

        Args:
            bucket: The store.
            address: Kind and key of the artifact.
            hold_lease: Holds the lease of the key, which the builder has.
        """
        kind, key = address
        self._bucket, self._hold_lease = bucket, hold_lease
        self._files = f"{kind}/{key}/"
        self._notes = f"{WORK}/{kind}/{key}/{FINISHED}/"
        self.upload = FileUploader(bucket.location, kind, key)

    def missing(self, files: Collection[UploadedFile]) -> set[str]:
        """Look each file up: its size, and the SHA-256 with which it was written."""

        def is_there(file: UploadedFile) -> bool:
            name, size, sha256 = file
            return self._bucket.holds(self._files + name, size=size, sha256=sha256)

        with ThreadPoolExecutor(REQUESTS) as pool:
            found = pool.map(is_there, files)
            return {name for (name, *_), there in zip(files, found, strict=True) if not there}

    def notes(self) -> dict[str, bytes]:
        """Read all notes; one that is damaged is left out."""

        def read(listed: ListedObject) -> bytes | None:
            try:
                stored = self._bucket.get(listed.key, max_bytes=MAX_RECORD_BYTES)
            except DamagedObjectError as error:
                logger.warning("%s", error)
                return None
            return stored.content if stored else None

        present = list(self._bucket.list(self._notes))
        with ThreadPoolExecutor(REQUESTS) as pool:
            return {
                listed.key.removeprefix(self._notes): content
                for listed, content in zip(present, pool.map(read, present), strict=True)
                if content is not None
            }

    def note(self, name: str, content: bytes) -> None:
        """Write a note while the lease is held."""
        with self._hold_lease() as lease:
            lease.check()
            self._bucket.put(self._notes + name, content, expected=Expect.ANY)

    def keep_only(self, files: Collection[str], notes: Collection[str]) -> None:
        """Remove the other files and notes while the lease is held."""
        wanted = {*(self._files + name for name in files), *(self._notes + name for name in notes)}
        present = (*self._bucket.list(self._files), *self._bucket.list(self._notes))
        others = [listed.key for listed in present if listed.key not in wanted]
        with self._hold_lease() as lease:
            if others and self._bucket.head(self._files + MANIFEST) is None:
                lease.check()
                self._bucket.delete(others)
