"""Is an artifact on S3 what its manifest says? And where it isn't: out of the way."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import uuid4

from infra.artifacts.errors import StoreError
from infra.artifacts.fields import MANIFEST
from infra.base.files import MAX_DOCUMENT_BYTES
from infra.artifacts.inspection import Level, parse_manifest
from infra.artifacts.records import Damage, DamageReport, Manifest
from infra.artifacts.s3_layout import QUARANTINE, REPORT
from infra.s3 import Bucket, DamagedObjectError, Expect

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
