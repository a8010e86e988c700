"""The artifact store in a bucket, for any number of hosts.

    <prefix>/<kind>/<key>/            an artifact: its files, then manifest.json
    <prefix>/refs/<name>.json         refs
    <prefix>/.digests/<kind>/<digest> the key of the artifact with this digest: a hint
    <prefix>/.leases/<kind>/<key>.json who builds it
    <prefix>/.work/<kind>/<key>/      finished parts of a build under way, for another host, and
                                      notes of files that hosts uploaded to <kind>/<key>/ before
    <prefix>/.uses/<kind>/<key>       when it was last used
    <prefix>/.quarantine/             damaged files; <name>.damage.json beside each set

An artifact appears when its manifest is put after its files, on the condition that there is none;
without a manifest there is no artifact. Files come to the host's cache on demand.
"""

import errno
import hashlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from infra.artifacts.cache import TRANSFERS, Cache, CacheFullError, Download
from infra.artifacts.documents import MAX_DOCUMENT_BYTES, Document, Expected, StoreError
from infra.artifacts.holdings import Build, Leftover, OnUnreadable, Usage, warn_of_unreadable
from infra.artifacts.inspection import Found, Level
from infra.artifacts.lease import EXPIRY_SECONDS, Lease, acquire
from infra.artifacts.partial_builds import PartUploader, download_parts, take_over
from infra.artifacts.records import (
    MANIFEST,
    Address,
    Artifact,
    ArtifactSpec,
    DamagedArtifactError,
    FileEntry,
    Manifest,
)
from infra.artifacts.s3_layout import (
    FINISHED,
    LEASES,
    REQUESTS,
    USES,
    WORK,
    Builders,
    committed,
    find_leftovers,
    inspect,
    quarantine,
    usages,
)
from infra.artifacts.s3_uploads import BucketUploads
from infra.artifacts.staging import link_or_copy
from infra.artifacts.store import ArtifactStore
from infra.base.files import is_file, status_of_new_file
from infra.base.locks import exclusive
from infra.base.on_demand import Supplier
from infra.base.progress import Count
from infra.s3 import Bucket, DamagedObjectError, Expect, PreconditionError, S3Error

logger = logging.getLogger(__name__)

T = TypeVar("T")


class BucketDocuments:
    """The documents of a store in a bucket, replaced by conditional puts; see `Documents`."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def read(self, path: str) -> Document | None:
        """Return a document; its version is the object's ETag."""
        try:
            stored = self._bucket.get(path, max_bytes=MAX_DOCUMENT_BYTES)
        except DamagedObjectError as error:
            raise StoreError(str(error.strerror)) from None
        return Document(stored.content, stored.etag) if stored is not None else None

    def read_all(self, paths: Iterable[str]) -> Iterator[Callable[[], Document | None]]:
        """Read several documents at a time, to hide the latency of the requests."""
        waiting: deque[Future[Document | None]] = deque()
        with ThreadPoolExecutor(REQUESTS) as readers:
            try:
                for path in paths:
                    waiting.append(readers.submit(self.read, path))
                    if len(waiting) > 2 * REQUESTS:
                        yield waiting.popleft().result
                while waiting:
                    yield waiting.popleft().result
            finally:
                for unread in waiting:
                    unread.cancel()

    def write(self, path: str, content: bytes, *, expected: str | Expected) -> bool:
        """Replace a document by one conditional put."""
        conditions = {Expected.NOTHING: Expect.ABSENT, Expected.ANYTHING: Expect.ANY}
        condition = conditions[expected] if isinstance(expected, Expected) else expected
        try:
            self._bucket.put(path, content, expected=condition)
        except PreconditionError:
            return False
        return True

    def remove(self, path: str) -> None:
        """Remove a document, if it is there."""
        self._bucket.delete([path])

    def names(self, directory: str) -> list[str]:
        """Return the names of the documents directly below a prefix."""
        prefix = f"{directory}/"
        paths = [entry.key.removeprefix(prefix) for entry in self._bucket.list(prefix)]
        return [p.removesuffix(".json") for p in paths if p.endswith(".json") and "/" not in p]


class S3Store(ArtifactStore):
    """The artifacts below ``s3://bucket/prefix``, with a cache and workspaces on this host."""

    def __init__(
        self,
        bucket: Bucket,
        cache: Path,
        *,
        cache_limit: int | None = None,
        on_demand_limit: int | None = None,
        lease_expiry: float = EXPIRY_SECONDS,
    ) -> None:
        """Open a store.

        Args:
            bucket: The prefix of a bucket.
            cache: A directory on this host, for copies of files and for workspaces.
            cache_limit: Bytes of files in the cache; see `Cache`.
            on_demand_limit: Bytes of files that come on demand; see `Supplier`.
            lease_expiry: Seconds without a heartbeat after which a builder counts as dead.
        """
        super().__init__(bucket.location, BucketDocuments(bucket))
        self._bucket = bucket
        self._builders = Builders(bucket)
        self._lease_expiry = lease_expiry
        self._cache = Cache(cache / "artifacts", cache_limit)
        self._on_demand_limit = on_demand_limit
        where = f"{bucket.endpoint} {bucket.location}"
        self._work = cache / "work" / hashlib.sha256(where.encode()).hexdigest()[:16]
        self._leases: dict[tuple[int, Address], Lease] = {}

    def addresses(
        self, kind: str | None = None, *, on_unreadable: OnUnreadable = warn_of_unreadable
    ) -> Iterator[Address]:
        """Yield kind and key of everything that has a manifest, sorted."""
        del on_unreadable  # who may list a bucket sees everything in it
        for listed in committed(self._bucket, kind):
            found, key, _ = listed.key.split("/")
            yield found, key

    def _inspect(self, kind: str, key: str, level: Level) -> Found | None:
        return inspect(self._bucket, kind, key, level)

    def _artifact(self, manifest: Manifest) -> Artifact:
        download = self._download(manifest)
        return Artifact(
            manifest,
            fetch=lambda entries: self._cache.fetch(manifest, entries, download),
            check_copies=lambda: self._cache.check(manifest, download),
            supplier=lambda directory, cached: self._supplier(manifest, directory, cached),
        )

    def _supplier(self, manifest: Manifest, directory: Path, cached: Collection[str]) -> Supplier:
        """Return what brings single files of an artifact into a directory; see `Artifact`."""
        entries = {entry.path: entry for entry in manifest.files if "/" not in entry.path}
        download = self._download(manifest)

        def fetch(name: str, path: Path, count: Count) -> None:
            entry = entries[name]
            if name in cached or self._cache.has(manifest, entry):
                copy = self._cache.fetch(manifest, (entry,), download) / name
                link_or_copy(copy, path, status_of_new_file(path.parent))
            else:
                download(entry, path, count)

        sizes = {name: entry.size for name, entry in entries.items()}
        return Supplier(directory, sizes, fetch, self._on_demand_limit)

    def _download(self, manifest: Manifest) -> Download:
        prefix = f"{manifest.kind}/{manifest.key}"

        def download(entry: FileEntry, path: Path, count: Count) -> None:
            key = f"{prefix}/{entry.path}"
            try:
                self._bucket.download(key, path, size=entry.size, sha256=entry.sha256, count=count)
            except DamagedObjectError as error:
                raise DamagedArtifactError(
                    f"{prefix} is damaged: {error.strerror}; after `python -m infra.artifacts "
                    "repair` the same command builds it again"
                ) from None

        return download

    def _publish(self, manifest: Manifest, document: bytes, directory: Path) -> bool:
        kind, key = manifest.kind, manifest.key
        with self._lease(kind, key, manifest.inputs) as lease:
            if self._bucket.head(f"{kind}/{key}/{MANIFEST}") is not None:
                return False
            here = _files_in(directory, manifest)
            self._upload_files(manifest, here, directory, lease)
            self._require_uploaded(manifest, set(manifest.files).difference(here))
            self._remove_other_files(manifest)
            lease.check()
            try:
                self._bucket.put(f"{kind}/{key}/{MANIFEST}", document, expected=Expect.ABSENT)
            except PreconditionError:
                return False
            parts = self._bucket.list(_parts_prefix(manifest.spec))
            self._bucket.delete([listed.key for listed in parts])
        self._add_to_cache(manifest, directory)
        return True

    def _upload_files(
        self, manifest: Manifest, entries: Sequence[FileEntry], directory: Path, lease: Lease
    ) -> None:
        def upload(entry: FileEntry) -> None:
            key = f"{manifest.kind}/{manifest.key}/{entry.path}"
            expected: Expect | str = Expect.ABSENT
            while True:
                try:
                    self._bucket.upload(
                        directory / entry.path,
                        key,
                        size=entry.size,
                        sha256=entry.sha256,
                        expected=expected,
                        count=count,
                    )
                    return
                except PreconditionError as error:
                    # A dead commit has left an object: ours to replace while we hold the lease.
                    lease.check()
                    expected = error.etag or Expect.ABSENT

        with (
            manifest.work("uploading", entries) as count,
            ThreadPoolExecutor(TRANSFERS) as uploaders,
        ):
            try:
                for _ in uploaders.map(upload, entries):
                    pass
            except BaseException:
                uploaders.shutdown(wait=False, cancel_futures=True)
                raise

    def _require_uploaded(self, manifest: Manifest, entries: Collection[FileEntry]) -> None:
        """Check that files are in the bucket which other hosts have put there.

        Raises:
            S3Error: One of them isn't.
        """
        files = [(entry.path, entry.size, entry.sha256) for entry in entries]
        if missing := self.uploads(manifest.spec).missing(files):
            raise S3Error(
                errno.ENOENT,
                f"{self.location}: {len(missing)} files of {manifest.kind}/{manifest.key} are "
                f"neither on this host nor in the store as they were uploaded, first "
                f"{min(missing)!r}: the next try makes them again",
            )

    def _remove_other_files(self, manifest: Manifest) -> None:
        """Remove what a dead commit of other files has left under the key."""
        prefix = f"{manifest.kind}/{manifest.key}/"
        # Should the lease be lost by now, the manifest is that of another builder.
        wanted = {prefix + MANIFEST, *(prefix + entry.path for entry in manifest.files)}
        present = [listed.key for listed in self._bucket.list(prefix)]
        self._bucket.delete(key for key in present if key not in wanted)

    def _add_to_cache(self, manifest: Manifest, directory: Path) -> None:
        """Save this host the download of what it has just built."""

        def link(entry: FileEntry, path: Path, _: Count) -> None:
            link_or_copy(directory / entry.path, path, access)

        with suppress(CacheFullError):
            access = status_of_new_file(directory)
            self._cache.fetch(manifest, _files_in(directory, manifest), link)

    def _quarantine(self, kind: str, key: str, found: Found) -> bool:
        with self._lease(kind, key, {}):
            present = self._inspect(kind, key, found.level)
            if present is None or present.version != found.version or not present.damages:
                return False  # another host has set it aside, or has built it again
            quarantine(self._bucket, kind, key, present)
        return True

    def _remove(self, kind: str, key: str) -> None:
        with self._lease(kind, key, {}):
            self._bucket.delete([f"{kind}/{key}/{MANIFEST}"])
            rest = [listed.key for listed in self._bucket.list(f"{kind}/{key}/")]
            self._bucket.delete([*rest, f"{USES}/{kind}/{key}"])

    def _mark_used(self, kind: str, key: str) -> None:
        self._bucket.put(f"{USES}/{kind}/{key}", b"", expected=Expect.ANY)

    def usages(self, *, on_unreadable: OnUnreadable = warn_of_unreadable) -> dict[Address, Usage]:
        """Look into listings alone: a request for each artifact would take minutes."""
        del on_unreadable
        return usages(self._bucket)

    def _last_used(self, kind: str, key: str) -> datetime | None:
        committed = self._bucket.head(f"{kind}/{key}/{MANIFEST}")
        if committed is None:
            return None
        used = self._bucket.head(f"{USES}/{kind}/{key}")
        return max(committed.modified, used.modified) if used else committed.modified

    @contextmanager
    def workspace(self, spec: ArtifactSpec) -> Iterator[Path]:
        """Hold the lease, and a directory beside the cache; see `ArtifactStore`."""
        directory = self._workspace(spec)
        directory.parent.mkdir(parents=True, exist_ok=True)

        def log_wait() -> None:
            logger.info("waiting for another builder of %s/%s", spec.kind, spec.key)

        with (
            exclusive(directory.with_suffix(".lock"), on_wait=log_wait),
            self._lease(spec.kind, spec.key, spec.inputs),
        ):
            directory.mkdir(exist_ok=True)
            # Before this build reads the list, which a host that was cut off may still replace.
            take_over(self._bucket, _parts_prefix(spec), uuid4().hex)
            self.download_parts(spec, directory)
            yield directory

    def is_begun(self, spec: ArtifactSpec) -> bool:
        """Tell whether a workspace is here, or something in the bucket; see `ArtifactStore`."""
        if self._workspace(spec).is_dir():
            return True
        prefix = _parts_prefix(spec)
        begun = (f"{prefix}{each}/" for each in ("objects", FINISHED))
        return any(next(iter(self._bucket.list(each)), None) is not None for each in begun)

    @contextmanager
    def parallel(self) -> Iterator[Callable[[Callable[[T], None], Iterable[T]], Iterable[None]]]:
        """Hide the latency of small requests; see `ArtifactStore`."""
        with ThreadPoolExecutor(REQUESTS) as pool:
            yield pool.map

    @property
    def is_shared_directory(self) -> bool:
        """Whether hosts share workspaces; see `ArtifactStore`."""
        return False

    def uploading_parts(
        self, spec: ArtifactSpec, workspace: Path, directory: Path, *, is_only_copy: bool
    ) -> AbstractContextManager[None]:
        """Upload finished parts in the background; see `ArtifactStore`."""
        prefix = _parts_prefix(spec)
        return PartUploader(self._bucket, prefix, workspace, directory, is_only_copy=is_only_copy)

    def download_parts(self, spec: ArtifactSpec, workspace: Path) -> None:
        """Download what is uploaded of a build; see `ArtifactStore`."""
        download_parts(self._bucket, _parts_prefix(spec), workspace)

    def uploads(self, spec: ArtifactSpec) -> BucketUploads:
        """Let hosts upload, each with its own settings; see `ArtifactStore`."""
        return BucketUploads(
            self._bucket,
            (spec.kind, spec.key),
            lambda: self._lease(spec.kind, spec.key, spec.inputs),
        )

    def held(self) -> Iterator[Build]:
        """Yield the builds whose leases may be those of living builders."""
        return iter(self._builders.held())

    def leftovers(self, unused_since: datetime) -> Iterator[Leftover]:
        """Yield objects without a manifest, and whatever else is old and not in use."""
        return find_leftovers(
            self._bucket,
            self._builders,
            unused_since,
            lambda kind, key: self._lease(kind, key, {}),
        )

    def _workspace(self, spec: ArtifactSpec) -> Path:
        return self._work / spec.kind / spec.key

    @contextmanager
    def _lease(self, kind: str, key: str, inputs: dict[str, str]) -> Iterator[Lease]:
        """Hold the lease of a key. If this thread holds it already, it goes on holding it."""
        address = (kind, key)
        mine = (threading.get_ident(), address)
        if held := self._leases.get(mine):
            yield held
            return

        def log_wait(holder: str) -> None:
            logger.info("waiting for another builder of %s/%s: %s", *address, holder)

        lease = acquire(
            self._bucket,
            f"{LEASES}/{kind}/{key}.json",
            inputs,
            expiry=self._lease_expiry,
            on_wait=log_wait,
        )
        self._leases[mine] = lease
        try:
            yield lease
        finally:
            del self._leases[mine]
            lease.release()


def _files_in(directory: Path, manifest: Manifest) -> tuple[FileEntry, ...]:
    return tuple(entry for entry in manifest.files if is_file(directory / entry.path))


def _parts_prefix(spec: ArtifactSpec) -> str:
    return f"{WORK}/{spec.kind}/{spec.key}/"
