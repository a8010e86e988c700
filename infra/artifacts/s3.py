"""The artifact store in a bucket, for any number of hosts.

    <prefix>/<kind>/<key>/            an artifact: its files, then manifest.json
    <prefix>/refs/<name>.json         refs
    <prefix>/.digests/<kind>/<digest> the key of the artifact with this digest: a hint
    <prefix>/.leases/<kind>/<key>.json who builds it
    <prefix>/.work/<kind>/<key>/      what an unfinished build keeps for another host
    <prefix>/.uses/<kind>/<key>       when it was last reused
    <prefix>/.quarantine/             damaged files; <name>.damage.json beside each set

An artifact appears when its manifest is put, on the condition that there is none, after its files;
without a manifest there is no artifact. Files come to the host's cache when they are asked for.
"""

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime
from hashlib import sha256 as hash_of
from pathlib import Path

from infra.artifacts.cache import FETCHERS, Cache, CacheFullError, Fetch
from infra.artifacts.inspection import Level, parse_manifest
from infra.artifacts.lease import EXPIRY_SECONDS, Lease, acquire
from infra.artifacts.partial_builds import Keeper, restore
from infra.artifacts.records import (
    MANIFEST,
    Artifact,
    ArtifactSpec,
    Damage,
    DamagedArtifactError,
    FileEntry,
    Manifest,
    StoreError,
    check_address,
)
from infra.artifacts.s3_layout import (
    DIGESTS,
    LEASES,
    USES,
    WORK,
    Found,
    address_of,
    clear,
    committed,
    find_leftovers,
    held_builds,
    inspect,
    set_aside,
)
from infra.artifacts.s3_refs import S3Refs
from infra.artifacts.store import ArtifactStore, Build, Leftover, Lookup, require_same_digest
from infra.base.files import link_or_copy
from infra.base.locks import exclusive
from infra.base.records import MAX_DOCUMENT_BYTES
from infra.s3 import Bucket, DamagedObjectError, Expect, PreconditionError

logger = logging.getLogger(__name__)

Address = tuple[str, str]


class S3Store(ArtifactStore):
    """Artifacts below ``s3://bucket/prefix``, with a cache and workspaces on this host."""

    def __init__(
        self,
        bucket: Bucket,
        cache: Path,
        *,
        cache_limit: int | None = None,
        lease_expiry: float = EXPIRY_SECONDS,
    ) -> None:
        """`cache_limit` in bytes, see `Cache`; a builder silent for `lease_expiry` s is dead."""
        self._bucket = bucket
        self._lease_expiry = lease_expiry
        self._refs = S3Refs(self._bucket)
        self._cache = Cache(cache / "artifacts", cache_limit)
        self._work = cache / "work" / _short_name(self._bucket)
        self._leases: dict[tuple[int, Address], Lease] = {}

    @property
    def refs(self) -> S3Refs:
        """The refs under ``refs/``."""
        return self._refs

    def lookup(self, spec: ArtifactSpec, *, level: Level = "size") -> Lookup:
        """Find a sound artifact, or set a damaged one aside; see `ArtifactStore`."""
        kind, key = spec.kind, spec.key
        found = inspect(self._bucket, kind, key, level)
        if found is None:
            return Lookup(None)
        if not (found.manifest is None or found.damages):
            self._bucket.put(f"{USES}/{kind}/{key}", b"", expected=Expect.ANY)
            return Lookup(self._artifact(found.manifest))
        with self._lease(*_leased(spec)):
            again = inspect(self._bucket, kind, key, level)
            if again is None or again.etag != found.etag:
                return self.lookup(spec, level=level)  # another has set it aside, or rebuilt it
            set_aside(self._bucket, kind, key, again)
            return Lookup(None, again.damages)

    def load(self, kind: str, key: str, *, level: Level = "size") -> Artifact:
        """Return the artifact under ``<kind>/<key>/``; see `ArtifactStore`."""
        found = self._required(kind, key, level)
        if found.manifest is None or found.damages:
            raise DamagedArtifactError(
                f"{kind}/{key} is damaged in {len(found.damages)} ways, first {found.damages[0]}"
            )
        return self._artifact(found.manifest)

    @contextmanager
    def workspace(self, spec: ArtifactSpec) -> Iterator[Path]:
        """Hold the lease, and a directory beside the cache; see `ArtifactStore`."""
        directory = self._workspace(spec)
        directory.parent.mkdir(parents=True, exist_ok=True)

        def say_so() -> None:
            logger.info("waiting for another builder of %s/%s", spec.kind, spec.key)

        with exclusive(directory.with_suffix(".lock"), on_wait=say_so), self._lease(*_leased(spec)):
            directory.mkdir(exist_ok=True)
            restore(self._bucket, _work_prefix(spec), directory)
            yield directory

    def keeping(self, spec: ArtifactSpec, directory: Path) -> AbstractContextManager[None]:
        """Upload finished parts in the background; see `ArtifactStore`."""
        return Keeper(self._bucket, _work_prefix(spec), self._workspace(spec), directory)

    def commit(self, manifest: Manifest, directory: Path) -> Artifact:
        """Upload the files, then the manifest if there is none; see `ArtifactStore`."""
        document = manifest.encode()
        if len(document) > MAX_DOCUMENT_BYTES:
            raise StoreError(
                f"the manifest of {manifest.kind}/{manifest.key} has {len(document)} bytes, "
                f"expected at most {MAX_DOCUMENT_BYTES}"
            )
        # What can't be read back must not be committed.
        parse_manifest(document, kind=manifest.kind, key=manifest.key)
        with self._lease(*_leased(manifest.spec)) as lease:
            present = self._present(manifest)
            committed = present or self._publish(manifest, document, directory, lease)
        self._adopt(manifest, directory)
        for entry in manifest.files:
            (directory / entry.path).unlink(missing_ok=True)
        return self._artifact(committed)

    def verify(self, kind: str, key: str, *, level: Level = "full") -> tuple[Damage, ...]:
        """Compare ``<kind>/<key>/`` with its manifest; see `ArtifactStore`."""
        return self._required(kind, key, level).damages

    def check_copies(self, artifact: Artifact) -> tuple[Damage, ...]:
        """Read what the cache has; see `ArtifactStore`."""
        return self._cache.check(artifact.manifest, self._fetcher(artifact.manifest))

    def addresses(self, kind: str | None = None) -> Iterator[Address]:
        """Yield what has a manifest; see `ArtifactStore`."""
        for listed in committed(self._bucket, kind):
            found, key, _ = listed.key.split("/")
            yield found, key

    def list(self, kind: str | None = None) -> Iterator[Manifest]:
        """Yield the manifests in ``<kind>/<key>/``; see `ArtifactStore`."""
        for found, key in self.addresses(kind):
            where = f"{found}/{key}/{MANIFEST}"
            try:
                stored = self._bucket.get(where, max_bytes=MAX_DOCUMENT_BYTES)
                if stored is not None:  # it may have been removed meanwhile
                    yield parse_manifest(stored.content, kind=found, key=key)
            except (StoreError, DamagedObjectError) as error:
                logger.warning("%s/%s has no valid manifest: %s", found, key, error)

    def set_aside(self, kind: str, key: str, *, level: Level = "full") -> tuple[Damage, ...]:
        """Move what is damaged to ``.quarantine/``; see `ArtifactStore`."""
        with self._lease(kind, key, {}):
            found = self._required(kind, key, level)
            if found.damages:
                set_aside(self._bucket, kind, key, found)
            return found.damages

    def last_used(self, kind: str, key: str) -> datetime:
        """Return the time of the manifest or of its last use; see `ArtifactStore`."""
        check_address(kind, key)
        made = self._bucket.head(f"{kind}/{key}/{MANIFEST}")
        if made is None:
            raise self._absent(kind, key)
        used = self._bucket.head(f"{USES}/{kind}/{key}")
        return max(made.modified, used.modified) if used else made.modified

    def held(self) -> Iterator[Build]:
        """Yield what ``.leases/`` says; see `ArtifactStore`."""
        return held_builds(self._bucket)

    def leftovers(self, unused_since: datetime) -> Iterator[Leftover]:
        """Look for objects without a manifest, and for what is old; see `ArtifactStore`."""
        return find_leftovers(self._bucket, unused_since)

    def clear(self, leftover: Leftover) -> None:
        """Remove it, if need be under the lease of its builder; see `ArtifactStore`."""
        address = address_of(leftover)
        if address is None:
            clear(self._bucket, leftover)
            return
        if any((build.kind, build.key) == address for build in self.held()):
            return
        with self._lease(*address, {}):
            if not (leftover.name.startswith(address[0]) and self._has(*address)):
                clear(self._bucket, leftover)

    def remove(self, kind: str, key: str) -> None:
        """Delete the manifest, then all else; see `ArtifactStore`."""
        with self._lease(kind, key, {}):
            manifest = self._required(kind, key, "size").manifest
            self._bucket.delete([f"{kind}/{key}/{MANIFEST}"])
            rest = [listed.key for listed in self._bucket.list(f"{kind}/{key}/")]
            self._bucket.delete([*rest, f"{USES}/{kind}/{key}"])
            if manifest is not None and self._indexed(kind, manifest.digest) == key:
                self._bucket.delete([f"{DIGESTS}/{kind}/{manifest.digest}"])

    def _indexed(self, kind: str, digest: str) -> str | None:
        stored = self._bucket.get(f"{DIGESTS}/{kind}/{digest}", max_bytes=MAX_DOCUMENT_BYTES)
        return stored.content.decode("ascii", "replace") if stored else None

    def _index(self, manifest: Manifest) -> None:
        where = f"{DIGESTS}/{manifest.kind}/{manifest.digest}"
        self._bucket.put(where, manifest.key.encode(), expected=Expect.ANY)

    def _has(self, kind: str, key: str) -> bool:
        return self._bucket.head(f"{kind}/{key}/{MANIFEST}") is not None

    def _workspace(self, spec: ArtifactSpec) -> Path:
        return self._work / spec.kind / spec.key

    @contextmanager
    def _lease(self, kind: str, key: str, inputs: dict[str, str]) -> Iterator[Lease]:
        """Hold the lease of a key, or go on holding it if this thread does."""
        address = (kind, key)
        mine = (threading.get_ident(), address)
        if held := self._leases.get(mine):
            yield held
            return

        def say_who(holder: str) -> None:
            logger.info("waiting for another builder of %s/%s: %s", *address, holder)

        lease = acquire(
            self._bucket,
            f"{LEASES}/{kind}/{key}.json",
            inputs,
            expiry=self._lease_expiry,
            on_wait=say_who,
        )
        self._leases[mine] = lease
        try:
            yield lease
        finally:
            del self._leases[mine]
            lease.release()

    def _artifact(self, manifest: Manifest) -> Artifact:
        fetch = self._fetcher(manifest)
        return Artifact(manifest, lambda entries: self._cache.bring(manifest, entries, fetch))

    def _fetcher(self, manifest: Manifest) -> Fetch:
        prefix = f"{manifest.kind}/{manifest.key}"

        def fetch(entry: FileEntry, path: Path) -> None:
            key = f"{prefix}/{entry.path}"
            try:
                self._bucket.download(key, path, size=entry.size, sha256=entry.sha256)
            except DamagedObjectError as error:
                raise DamagedArtifactError(
                    f"{prefix} is damaged: {error.strerror}; after `python -m infra.artifacts "
                    "repair` the same command builds it again"
                ) from None

        return fetch

    def _present(self, manifest: Manifest) -> Manifest | None:
        """What is there soundly under the manifest's key. Raises DigestConflictError."""
        found = inspect(self._bucket, manifest.kind, manifest.key, "size")
        if found is None:
            return None
        if found.manifest is None or found.damages:
            set_aside(self._bucket, manifest.kind, manifest.key, found)
            return None
        require_same_digest(found.manifest, manifest)
        return found.manifest

    def _publish(
        self, manifest: Manifest, document: bytes, directory: Path, lease: Lease
    ) -> Manifest:
        prefix = f"{manifest.kind}/{manifest.key}/"

        def upload(entry: FileEntry) -> None:
            self._upload(directory / entry.path, prefix + entry.path, entry, lease)

        with ThreadPoolExecutor(FETCHERS) as uploaders:
            try:
                for _ in uploaders.map(upload, manifest.files):
                    pass
            except BaseException:
                uploaders.shutdown(wait=False, cancel_futures=True)
                raise
        self._remove_strangers(prefix, manifest)
        self._index(manifest)
        lease.check()
        try:
            self._bucket.put(prefix + MANIFEST, document, expected=Expect.ABSENT)
        except PreconditionError:
            present = self._present(manifest)
            if present is None:
                raise
            return present
        work = [listed.key for listed in self._bucket.list(_work_prefix(manifest.spec))]
        self._bucket.delete(work)
        return manifest

    def _upload(self, path: Path, key: str, entry: FileEntry, lease: Lease) -> None:
        expected: Expect | str = Expect.ABSENT
        while True:
            try:
                self._bucket.upload(
                    path, key, size=entry.size, sha256=entry.sha256, expected=expected
                )
                return
            except PreconditionError as error:
                # Left over from a commit that never was: ours to replace while we hold the lease.
                lease.check()
                expected = error.etag or Expect.ABSENT

    def _remove_strangers(self, prefix: str, manifest: Manifest) -> None:
        """What a former build, of other files, has left under the key."""
        names = {MANIFEST, *(entry.path for entry in manifest.files)}
        there = [listed.key for listed in self._bucket.list(prefix)]
        self._bucket.delete(key for key in there if key.removeprefix(prefix) not in names)

    def _adopt(self, manifest: Manifest, directory: Path) -> None:
        """Spare this host the download of what it has just built."""

        def link(entry: FileEntry, path: Path) -> None:
            link_or_copy(directory / entry.path, path)

        with suppress(CacheFullError):
            self._cache.bring(manifest, manifest.files, link)

    def _required(self, kind: str, key: str, level: Level) -> Found:
        check_address(kind, key)
        found = inspect(self._bucket, kind, key, level)
        if found is None:
            raise self._absent(kind, key)
        return found

    def _absent(self, kind: str, key: str) -> StoreError:
        return StoreError(f"{self._bucket.location!r} has no artifact {kind}/{key}")


def _leased(spec: ArtifactSpec) -> tuple[str, str, dict[str, str]]:
    return spec.kind, spec.key, spec.inputs


def _work_prefix(spec: ArtifactSpec) -> str:
    return f"{WORK}/{spec.kind}/{spec.key}/"


def _short_name(bucket: Bucket) -> str:
    """Of what is at one address only."""
    return hash_of(f"{bucket.endpoint} {bucket.location}".encode()).hexdigest()[:16]
