"""What is left in a store on S3 beside its artifacts, and who builds there.

Times are those of the server's clock: it may differ from ours by some minutes, not by days.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from uuid import uuid4

from infra.artifacts.inspection import Level, parse_manifest
from infra.artifacts.lease import MAX_LEASE_BYTES, LeaseDocument
from infra.artifacts.records import MANIFEST, Damage, DamageReport, Manifest, StoreError, is_address
from infra.artifacts.store import Build, Leftover
from infra.base.records import MAX_DOCUMENT_BYTES
from infra.s3 import Bucket, DamagedObjectError, Expect, ListedObject, StaleUpload

DIGESTS, LEASES, QUARANTINE, USES, WORK = ".digests", ".leases", ".quarantine", ".uses", ".work"

REPORT = ".damage.json"

UPLOAD = "multipart upload "

CERTAINLY_DEAD = timedelta(minutes=15)
"""Without a heartbeat: many times the expiry of a lease, and of the clocks' difference."""

Address = tuple[str, str]


@dataclass(frozen=True)
class _Remains:
    """Objects that belong together."""

    prefix: str
    num_bytes: int
    changed: datetime


def held_builds(bucket: Bucket) -> Iterator[Build]:
    """Yield what the leases say that somebody is building, who may live."""
    for listed in bucket.list(f"{LEASES}/"):
        document = _read_lease(bucket, listed)
        if document is not None and _may_live(document, listed):
            _, kind, name = listed.key.split("/")
            yield Build(kind, name.removesuffix(".json"), document.inputs)


def find_leftovers(bucket: Bucket, unused_since: datetime) -> Iterator[Leftover]:
    """Yield commits of dead builders, and what else is older and nobody's."""
    held = {(build.kind, build.key) for build in held_builds(bucket)}
    for address, remains in _uncommitted(bucket):
        if address not in held:
            yield _leftover(remains, "commit of a dead process")
    for address, remains in _by_address(bucket, f"{WORK}/"):
        if address not in held and remains.changed < unused_since:
            yield _leftover(remains, f"of a build, unchanged since {remains.changed:%Y-%m-%d}")
    for listed in bucket.list(f"{QUARANTINE}/"):
        if listed.key.endswith(REPORT) and listed.modified < unused_since:
            place = listed.key.removesuffix(REPORT)
            size = sum(each.size for each in bucket.list(place))
            reason = f"damaged, set aside {listed.modified:%Y-%m-%d}"
            yield Leftover(place, size, reason)
    for listed in bucket.list(f"{LEASES}/"):
        document = _read_lease(bucket, listed)
        old = listed.modified < unused_since
        if old and not (document is not None and _may_live(document, listed)):
            yield Leftover(
                listed.key, listed.size, f"lease, unused since {listed.modified:%Y-%m-%d}"
            )
    for upload in bucket.stale_uploads(datetime.now(UTC) - unused_since):
        reason = f"never ended since {upload.initiated:%Y-%m-%d}"
        yield Leftover(f"{UPLOAD}{upload.upload_id} {upload.key}", 0, reason)


def clear(bucket: Bucket, leftover: Leftover) -> None:
    """Remove it."""
    if leftover.name.startswith(UPLOAD):
        upload_id, _, key = leftover.name.removeprefix(UPLOAD).partition(" ")
        bucket.abort(StaleUpload(key, upload_id, datetime.now(UTC)))
        return
    bucket.delete([listed.key for listed in bucket.list(leftover.name)])


def address_of(leftover: Leftover) -> Address | None:
    """Of the artifact that whoever holds the leftover builds."""
    parts = leftover.name.removeprefix(f"{WORK}/").strip("/").split("/")
    return (parts[0], parts[1]) if len(parts) == 2 and is_address(*parts) else None


def committed(bucket: Bucket, kind: str | None) -> Iterator[ListedObject]:
    """Yield the manifests' objects, of a kind or all."""
    for each in [kind] if kind is not None else _kinds(bucket, ""):
        for listed in bucket.list(f"{each}/"):
            *address, name = listed.key.split("/")
            if name == MANIFEST and len(address) == 2 and is_address(*address):
                yield listed


def _kinds(bucket: Bucket, parent: str) -> list[str]:
    return [name for name in bucket.folders(parent) if is_address(name, "0" * 64)]


def _uncommitted(bucket: Bucket) -> Iterator[tuple[Address, _Remains]]:
    for kind in _kinds(bucket, ""):
        for address, objects in _grouped(bucket, "", kind):
            manifest = "/".join((*address, MANIFEST))
            if all(listed.key != manifest for listed in objects):
                yield address, _remains("", address, objects)


def _by_address(bucket: Bucket, parent: str) -> Iterator[tuple[Address, _Remains]]:
    for kind in _kinds(bucket, parent):
        for address, objects in _grouped(bucket, parent, kind):
            yield address, _remains(parent, address, objects)


def _grouped(
    bucket: Bucket, parent: str, kind: str
) -> Iterator[tuple[Address, list[ListedObject]]]:
    """Yield the objects under each `<parent><kind>/<key>/`."""
    prefix = f"{parent}{kind}/"

    def key(listed: ListedObject) -> str:
        return listed.key.removeprefix(prefix).partition("/")[0]

    for found, objects in groupby(bucket.list(prefix), key=key):
        if is_address(kind, found):
            yield (kind, found), list(objects)


def _remains(parent: str, address: Address, objects: list[ListedObject]) -> _Remains:
    size = sum(listed.size for listed in objects)
    changed = max(listed.modified for listed in objects)
    return _Remains(f"{parent}{'/'.join(address)}/", size, changed)


def _leftover(remains: _Remains, reason: str) -> Leftover:
    return Leftover(remains.prefix, remains.num_bytes, reason)


def _read_lease(bucket: Bucket, listed: ListedObject) -> LeaseDocument | None:
    stored = bucket.get(listed.key, max_bytes=MAX_LEASE_BYTES)
    try:
        return LeaseDocument.parse(listed.key, stored.content) if stored else None
    except StoreError:
        return None


def _may_live(document: LeaseDocument, listed: ListedObject) -> bool:
    silent = datetime.now(UTC) - listed.modified
    return not (document.released or document.process.is_known_dead or silent > CERTAINLY_DEAD)


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """What is under a key that has a manifest object."""

    etag: str
    """Of the manifest."""
    manifest: Manifest | None
    """None if it is not valid."""
    damages: tuple[Damage, ...]


def inspect(bucket: Bucket, kind: str, key: str, level: Level) -> Found | None:
    """Compare what is stored with its manifest, looking twice before anything is damaged."""
    found = _look(bucket, kind, key, level)
    return _look(bucket, kind, key, level) if found and found.damages else found


def _look(bucket: Bucket, kind: str, key: str, level: Level) -> Found | None:
    where = f"{kind}/{key}/{MANIFEST}"
    try:
        stored = bucket.get(where, max_bytes=MAX_DOCUMENT_BYTES)
    except DamagedObjectError as error:
        damage = Damage(problem="manifest", path=MANIFEST, detail=str(error.strerror))
        listed = bucket.head(where)
        return Found(listed.etag, None, (damage,)) if listed else None
    if stored is None:
        return None
    try:
        manifest = parse_manifest(stored.content, kind=kind, key=key)
    except StoreError as error:
        damage = Damage(problem="manifest", path=MANIFEST, detail=str(error))
        return Found(stored.etag, None, (damage,))
    return Found(stored.etag, manifest, tuple(_compare_files(bucket, manifest, level)))


def _compare_files(bucket: Bucket, manifest: Manifest, level: Level) -> Iterator[Damage]:
    prefix = f"{manifest.kind}/{manifest.key}/"
    sizes = {listed.key.removeprefix(prefix): listed.size for listed in bucket.list(prefix)}
    sizes.pop(MANIFEST, None)
    for entry in manifest.files:
        size = sizes.pop(entry.path, None)
        if size is None:
            yield Damage(problem="missing", path=entry.path, detail="no such file")
        elif size != entry.size:
            detail = f"has {size} bytes, expected {entry.size}"
            yield Damage(problem="size", path=entry.path, detail=detail)
        elif level == "full":
            sha256 = bucket.sha256(prefix + entry.path, size=entry.size)
            if sha256 != entry.sha256:
                detail = f"has sha256 {sha256}, expected {entry.sha256}"
                yield Damage(problem="sha256", path=entry.path, detail=detail)
    for path in sizes:
        yield Damage(problem="extra", path=path, detail="not in the manifest")


def set_aside(bucket: Bucket, kind: str, key: str, found: Found) -> None:
    """Copy what is damaged, then let the artifact vanish; sound files wait for a rebuild."""
    prefix, place = f"{kind}/{key}/", f"{QUARANTINE}/{kind}-{key}-{uuid4()}"
    report = DamageReport(kind=kind, key=key, damages=found.damages)
    bucket.put(f"{place}{REPORT}", report.encode(), expected=Expect.ABSENT)
    paths = {MANIFEST, *(damage.path for damage in found.damages if damage.problem != "missing")}
    for path in paths:
        bucket.copy(prefix + path, f"{place}/{path}")
    bucket.delete([prefix + MANIFEST])
    bucket.delete(prefix + path for path in paths)
    where = f"{bucket.location}/{place}"
    logger.warning("%s/%s is damaged, moved to %s: %s", kind, key, where, found.damages[0])
