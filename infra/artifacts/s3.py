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
from dataclasses import dataclass
from hashlib import sha256 as hash_of
from pathlib import Path
from uuid import uuid4

from infra.artifacts.cache import FETCHERS, Cache, CacheFullError
from infra.artifacts.errors import DamagedArtifactError, StoreError
from infra.artifacts.fields import MANIFEST, check_address, is_address
from infra.artifacts.files import MAX_DOCUMENT_BYTES, link_or_copy
from infra.artifacts.inspection import Level, parse_manifest
from infra.artifacts.keeping import Keeper, restore
from infra.artifacts.lease import EXPIRY_SECONDS, Lease, acquire
from infra.artifacts.locks import exclusive
from infra.artifacts.records import (
    Artifact,
    ArtifactSpec,
    Damage,
    DamageReport,
    FileEntry,
    Manifest,
)
from infra.artifacts.s3_refs import S3Refs
from infra.artifacts.store import ArtifactStore, Lookup, require_same_digest
from infra.s3 import Bucket, DamagedObjectError, Expect, PreconditionError, Stored

logger = logging.getLogger(__name__)

Address = tuple[str, str]


@dataclass(frozen=True)
class _Found:
    """What is under a key that has a manifest object."""

    stored: Stored
    manifest: Manifest | None
    damages: tuple[Damage, ...]


class S3Store(ArtifactStore):
    """Artifacts below ``s3://bucket/prefix``, with a cache and workspaces on this host."""

    def __init__(
        self,
        location: str,
        cache: Path,
        *,
        cache_limit: int | None = None,
        lease_expiry: float = EXPIRY_SECONDS,
    ) -> None:
        """`cache_limit` in bytes, see `Cache`; a builder silent for `lease_expiry` s is dead."""
        self._bucket = Bucket(location)
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
        found = self._inspect(kind, key, level)
        if found is None:
            return Lookup(None)
        if not (found.manifest is None or found.damages):
            self._bucket.put(f".uses/{kind}/{key}", b"", expected=Expect.ANY)
            return Lookup(self._artifact(found.manifest))
        with self._lease(spec):
            again = self._inspect(kind, key, level)
            if again is None or again.stored.etag != found.stored.etag:
                return self.lookup(spec, level=level)  # another has set it aside, or rebuilt it
            self._set_aside(kind, key, again)
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

        with exclusive(directory.with_suffix(".lock"), on_wait=say_so), self._lease(spec):
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
        with self._lease(manifest.spec) as lease:
            present = self._present(manifest)
            committed = present or self._publish(manifest, document, directory, lease)
        self._adopt(manifest, directory)
        for entry in manifest.files:
            (directory / entry.path).unlink(missing_ok=True)
        return self._artifact(committed)

    def verify(self, kind: str, key: str, *, level: Level = "full") -> tuple[Damage, ...]:
        """Compare ``<kind>/<key>/`` with its manifest; see `ArtifactStore`."""
        return self._required(kind, key, level).damages

    def addresses(self, kind: str | None = None) -> Iterator[Address]:
        """Yield what has a manifest; see `ArtifactStore`."""
        kinds = [kind] if kind is not None else self._bucket.folders("")
        for each in kinds:
            for listed in self._bucket.list(f"{each}/"):
                *address, name = listed.key.split("/")
                if name == MANIFEST and len(address) == 2 and is_address(*address):
                    yield address[0], address[1]

    def list(self, kind: str | None = None) -> Iterator[Manifest]:
        """Yield the manifests in ``<kind>/<key>/``; see `ArtifactStore`."""
        for found, key in self.addresses(kind):
            stored = self._bucket.get(f"{found}/{key}/{MANIFEST}", max_bytes=MAX_DOCUMENT_BYTES)
            if stored is None:
                continue  # removed meanwhile
            try:
                yield parse_manifest(stored.content, kind=found, key=key)
            except StoreError as error:
                logger.warning("%s/%s has no valid manifest: %s", found, key, error)

    def _indexed(self, kind: str, digest: str) -> str | None:
        stored = self._bucket.get(f".digests/{kind}/{digest}", max_bytes=MAX_DOCUMENT_BYTES)
        return stored.content.decode("ascii", "replace") if stored else None

    def _index(self, manifest: Manifest) -> None:
        where = f".digests/{manifest.kind}/{manifest.digest}"
        self._bucket.put(where, manifest.key.encode(), expected=Expect.ANY)

    def _has(self, kind: str, key: str) -> bool:
        return self._bucket.head(f"{kind}/{key}/{MANIFEST}") is not None

    def _workspace(self, spec: ArtifactSpec) -> Path:
        return self._work / spec.kind / spec.key

    @contextmanager
    def _lease(self, spec: ArtifactSpec) -> Iterator[Lease]:
        """Hold the lease of a spec, or go on holding it if this thread does."""
        address = (spec.kind, spec.key)
        mine = (threading.get_ident(), address)
        if held := self._leases.get(mine):
            yield held
            return

        def say_who(holder: str) -> None:
            logger.info("waiting for another builder of %s/%s: %s", *address, holder)

        lease = acquire(
            self._bucket,
            f".leases/{spec.kind}/{spec.key}.json",
            spec.inputs,
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
        prefix = f"{manifest.kind}/{manifest.key}"

        def fetch(entry: FileEntry, path: Path) -> None:
            key = f"{prefix}/{entry.path}"
            try:
                self._bucket.download(key, path, size=entry.size, sha256=entry.sha256)
            except DamagedObjectError as error:
                raise DamagedArtifactError(f"{prefix} is damaged: {error.strerror}") from None

        return Artifact(manifest, lambda entries: self._cache.bring(manifest, entries, fetch))

    def _present(self, manifest: Manifest) -> Manifest | None:
        """What is there soundly under the manifest's key. Raises DigestConflictError."""
        found = self._inspect(manifest.kind, manifest.key, "size")
        if found is None:
            return None
        if found.manifest is None or found.damages:
            self._set_aside(manifest.kind, manifest.key, found)
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

    def _required(self, kind: str, key: str, level: Level) -> _Found:
        check_address(kind, key)
        found = self._inspect(kind, key, level)
        if found is None:
            raise StoreError(f"{self._bucket.location!r} has no artifact {kind}/{key}")
        return found

    def _inspect(self, kind: str, key: str, level: Level) -> _Found | None:
        """Compare what is stored with its manifest, looking twice before anything is damaged."""
        found = self._look(kind, key, level)
        return self._look(kind, key, level) if found and found.damages else found

    def _look(self, kind: str, key: str, level: Level) -> _Found | None:
        stored = self._bucket.get(f"{kind}/{key}/{MANIFEST}", max_bytes=MAX_DOCUMENT_BYTES)
        if stored is None:
            return None
        try:
            manifest = parse_manifest(stored.content, kind=kind, key=key)
        except StoreError as error:
            damage = Damage(problem="manifest", path=MANIFEST, detail=str(error))
            return _Found(stored, None, (damage,))
        return _Found(stored, manifest, tuple(self._compare_files(manifest, level)))

    def _compare_files(self, manifest: Manifest, level: Level) -> Iterator[Damage]:
        prefix = f"{manifest.kind}/{manifest.key}/"
        sizes = {
            listed.key.removeprefix(prefix): listed.size for listed in self._bucket.list(prefix)
        }
        sizes.pop(MANIFEST, None)
        for entry in manifest.files:
            size = sizes.pop(entry.path, None)
            if size is None:
                yield Damage(problem="missing", path=entry.path, detail="no such file")
            elif size != entry.size:
                detail = f"has {size} bytes, expected {entry.size}"
                yield Damage(problem="size", path=entry.path, detail=detail)
            elif level == "full":
                sha256 = self._bucket.sha256(prefix + entry.path, size=entry.size)
                if sha256 != entry.sha256:
                    detail = f"has sha256 {sha256}, expected {entry.sha256}"
                    yield Damage(problem="sha256", path=entry.path, detail=detail)
        for path in sizes:
            yield Damage(problem="extra", path=path, detail="not in the manifest")

    def _set_aside(self, kind: str, key: str, found: _Found) -> None:
        """Copy what is damaged, then let the artifact vanish; sound files wait for a rebuild."""
        prefix, place = f"{kind}/{key}/", f".quarantine/{kind}-{key}-{uuid4()}"
        report = DamageReport(kind=kind, key=key, damages=found.damages)
        self._bucket.put(f"{place}.damage.json", report.encode(), expected=Expect.ABSENT)
        self._bucket.put(f"{place}/{MANIFEST}", found.stored.content, expected=Expect.ABSENT)
        paths = [
            damage.path for damage in found.damages if damage.problem not in ("missing", "manifest")
        ]
        for path in paths:
            self._bucket.copy(prefix + path, f"{place}/{path}")
        self._bucket.delete([prefix + MANIFEST])
        self._bucket.delete(prefix + path for path in paths)
        where = f"{self._bucket.location}/{place}"
        logger.warning("%s/%s is damaged, moved to %s: %s", kind, key, where, found.damages[0])


def _work_prefix(spec: ArtifactSpec) -> str:
    return f".work/{spec.kind}/{spec.key}/"


def _short_name(bucket: Bucket) -> str:
    """Of what is at one address only."""
    return hash_of(f"{bucket.endpoint} {bucket.location}".encode()).hexdigest()[:16]
