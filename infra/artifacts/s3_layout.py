"""What lies where in a bucket: artifacts, what is wrong with them, builders, and leftovers.

Times are those of the server's clock, which may differ from ours by minutes, but not by days.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import groupby
from uuid import uuid4

from infra.artifacts.documents import MAX_DOCUMENT_BYTES, StoreError
from infra.artifacts.holdings import Build, Leftover, Usage
from infra.artifacts.inspection import Found, Level, compare, parse_manifest
from infra.artifacts.lease import MAX_LEASE_BYTES, LeaseDocument
from infra.artifacts.records import (
    MANIFEST,
    Address,
    Damage,
    DamageReport,
    FileEntry,
    Manifest,
    is_address,
)
from infra.s3 import SCRATCH, Bucket, DamagedObjectError, Expect, ListedObject

logger = logging.getLogger(__name__)

LEASES, QUARANTINE, USES, WORK = ".leases", ".quarantine", ".uses", ".work"
FINISHED = "finished"
"""Folder below ``.work/<kind>/<key>/`` with notes of what hosts have uploaded for a build."""
REPORT = ".damage.json"
REQUESTS = 16
"""Small requests that are under way at a time, to hide their latency."""
CERTAINLY_DEAD = timedelta(minutes=15)
"""A builder without a heartbeat for so long is dead: that is many times the expiry of a lease, and
more than clocks differ."""


def committed(bucket: Bucket, kind: str | None) -> Iterator[ListedObject]:
    """Yield the objects of all manifests, or of those of one kind."""
    for each in [kind] if kind is not None else _kinds(bucket, ""):
        for listed in bucket.list(f"{each}/"):
            *address, name = listed.key.split("/")
            if name == MANIFEST and len(address) == 2 and is_address(*address):
                yield listed


def usages(bucket: Bucket) -> dict[Address, Usage]:
    """Return when each artifact was last used, and its size, as listings show them."""
    used = {listed.key: listed.modified for listed in bucket.list(f"{USES}/")}
    found = {}
    for (kind, key), objects in _by_address(bucket, ""):
        manifest = next((o for o in objects if o.key == f"{kind}/{key}/{MANIFEST}"), None)
        if manifest is not None:
            last = max(manifest.modified, used.get(f"{USES}/{kind}/{key}", manifest.modified))
            found[kind, key] = Usage(last, _size(objects) - manifest.size)
    return found


def inspect(bucket: Bucket, kind: str, key: str, level: Level) -> Found | None:
    """Compare an artifact with its manifest; look twice before calling it damaged.

    Level ``changed`` compares sizes only, because S3 has no reliable time of change.
    """
    found = _inspect_once(bucket, kind, key, level)
    return _inspect_once(bucket, kind, key, level) if found and found.damages else found


def _inspect_once(bucket: Bucket, kind: str, key: str, level: Level) -> Found | None:
    path = f"{kind}/{key}/{MANIFEST}"

    def without_manifest(etag: str, detail: str) -> Found:
        damage = Damage(problem="manifest", path=MANIFEST, detail=detail)
        return Found(etag, level, None, (damage,))

    try:
        stored = bucket.get(path, max_bytes=MAX_DOCUMENT_BYTES)
    except DamagedObjectError as error:  # too large to be read, for example
        listed = bucket.head(path)
        return without_manifest(listed.etag, str(error.strerror)) if listed else None
    if stored is None:
        return None
    try:
        manifest = parse_manifest(stored.content, kind=kind, key=key)
    except StoreError as error:
        return without_manifest(stored.etag, str(error))
    return Found(stored.etag, level, manifest, _compare_files(bucket, manifest, level))


def _compare_files(bucket: Bucket, manifest: Manifest, level: Level) -> tuple[Damage, ...]:
    prefix = f"{manifest.kind}/{manifest.key}/"

    def sha256_of(entry: FileEntry) -> str:
        return bucket.sha256(prefix + entry.path, size=entry.size, count=count)

    sizes = {listed.key.removeprefix(prefix): listed.size for listed in bucket.list(prefix)}
    with manifest.work("verifying") as count:
        return compare(manifest, sizes, sha256_of if level == "full" else None)


def quarantine(bucket: Bucket, kind: str, key: str, found: Found) -> None:
    """Copy damaged files to ``.quarantine/``, then remove them and the manifest.

    Sound files stay, for the commit of a rebuild.
    """
    prefix, aside = f"{kind}/{key}/", f"{QUARANTINE}/{kind}-{key}-{uuid4()}"
    report = DamageReport(kind=kind, key=key, damages=found.damages)
    bucket.put(f"{aside}{REPORT}", report.encode(), expected=Expect.ABSENT)
    paths = {MANIFEST, *(damage.path for damage in found.damages if damage.problem != "missing")}
    for path in paths:
        bucket.copy(prefix + path, f"{aside}/{path}")
    bucket.delete([prefix + MANIFEST])
    bucket.delete(prefix + path for path in paths)
    where = f"{bucket.location}/{aside}"
    logger.warning("%s/%s is damaged, moved to %s: %s", kind, key, where, found.damages[0])


class Builders:
    """Who builds in a bucket. Each version of a lease is read once, however often this is asked."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._known: dict[str, tuple[str, LeaseDocument | None]] = {}

    def held(self) -> list[Build]:
        """Return the builds whose leases are those of builders that may be alive."""
        earliest = datetime.now(UTC) - CERTAINLY_DEAD
        recent = [each for each in self._bucket.list(f"{LEASES}/") if each.modified >= earliest]
        unread = [each for each in recent if self._known.get(each.key, ("",))[0] != each.etag]
        with ThreadPoolExecutor(REQUESTS) as readers:
            for each, document in zip(unread, readers.map(self._read, unread), strict=True):
                self._known[each.key] = (each.etag, document)
        builds = []
        for each in recent:
            document = self._known[each.key][1]
            if document and not (document.released or document.process.is_known_dead):
                _, kind, name = each.key.split("/")
                builds.append(Build(kind, name.removesuffix(".json"), document.inputs))
        return builds

    def _read(self, listed: ListedObject) -> LeaseDocument | None:
        stored = self._bucket.get(listed.key, max_bytes=MAX_LEASE_BYTES)
        try:
            return LeaseDocument.parse(listed.key, stored.content) if stored else None
        except StoreError:
            return None


def find_leftovers(
    bucket: Bucket,
    builders: Builders,
    unused_since: datetime,
    hold_lease: Callable[[str, str], AbstractContextManager[object]],
) -> Iterator[Leftover]:
    """Yield the remains of dead commits, and whatever else is older and belongs to nobody.

    Args:
        bucket: The store.
        builders: Who builds in it.
        unused_since: Anything but commits is left out if it changed later.
        hold_lease: Holds the lease of a kind and key, for the removal of what it protects.
    """

    def remove(prefix: str) -> None:
        bucket.delete([listed.key for listed in bucket.list(prefix)])

    def remove_unheld(prefix: str, address: Address, *, is_commit: bool) -> None:
        if any((build.kind, build.key) == address for build in builders.held()):
            return
        with hold_lease(*address):
            if is_commit and bucket.head(f"{prefix}{MANIFEST}") is not None:
                return  # by now it has been committed
            remove(prefix)

    work = dict(_by_address(bucket, f"{WORK}/"))
    held = {(build.kind, build.key) for build in builders.held()}
    for address, objects in _by_address(bucket, ""):
        prefix = f"{'/'.join(address)}/"
        # What hosts have uploaded for a build is as old as the notes of it.
        notes = f"{WORK}/{prefix}{FINISHED}/"
        resumable = any(
            listed.key.startswith(notes) and listed.modified >= unused_since
            for listed in work.get(address, ())
        )
        is_committed = any(listed.key == prefix + MANIFEST for listed in objects)
        if not (address in held or resumable or is_committed):
            remover = partial(remove_unheld, prefix, address, is_commit=True)
            yield Leftover(prefix, _size(objects), "commit of a dead process", remover)
    for address, objects in work.items():
        prefix = f"{WORK}/{'/'.join(address)}/"
        changed = max(listed.modified for listed in objects)
        if address not in held and changed < unused_since:
            reason = f"of a build, unchanged since {changed:%Y-%m-%d}"
            remover = partial(remove_unheld, prefix, address, is_commit=False)
            yield Leftover(prefix, _size(objects), reason, remover)
    for listed in bucket.list(f"{QUARANTINE}/"):
        if listed.key.endswith(REPORT) and listed.modified < unused_since:
            prefix = listed.key.removesuffix(REPORT)
            reason = f"damaged, set aside {listed.modified:%Y-%m-%d}"
            yield Leftover(prefix, _size(bucket.list(prefix)), reason, partial(remove, prefix))
    for listed in bucket.list(f"{LEASES}/"):
        _, kind, name = listed.key.split("/")
        if listed.modified < unused_since and (kind, name.removesuffix(".json")) not in held:
            reason = f"lease, unused since {listed.modified:%Y-%m-%d}"
            yield Leftover(listed.key, listed.size, reason, partial(remove, listed.key))
    for listed in bucket.list(SCRATCH):
        if listed.modified < unused_since:
            reason = f"scratch of a probe that died {listed.modified:%Y-%m-%d}"
            yield Leftover(listed.key, listed.size, reason, partial(remove, listed.key))
    for upload in bucket.stale_uploads(datetime.now(UTC) - unused_since):
        name = f"multipart upload {upload.upload_id} {upload.key}"
        reason = f"never ended since {upload.initiated:%Y-%m-%d}"
        yield Leftover(name, 0, reason, partial(bucket.abort, upload))


def _size(objects: Iterable[ListedObject]) -> int:
    return sum(listed.size for listed in objects)


def _kinds(bucket: Bucket, parent: str) -> list[str]:
    return [name for name in bucket.folders(parent) if is_address(name, "0" * 64)]


def _by_address(bucket: Bucket, parent: str) -> Iterator[tuple[Address, list[ListedObject]]]:
    """Yield the objects below each ``<parent><kind>/<key>/``."""
    for kind in _kinds(bucket, parent):
        prefix = f"{parent}{kind}/"

        def key_of(listed: ListedObject, prefix: str = prefix) -> str:
            return listed.key.removeprefix(prefix).partition("/")[0]

        for key, objects in groupby(bucket.list(prefix), key=key_of):
            if is_address(kind, key):
                yield (kind, key), list(objects)
