"""Is an artifact on disk what its manifest says? Nothing here changes a file."""

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from infra.artifacts.errors import StoreError
from infra.artifacts.fields import MANIFEST
from infra.artifacts.files import read_document, scan, sha256_of
from infra.artifacts.records import Damage, Manifest

Level = Literal["size", "full"]
"""How much is compared: names, types and sizes; or the sha256 of every file as well."""


def read_manifest(directory: Path, *, kind: str, key: str) -> Manifest:
    """Return the manifest of the directory where an artifact of this kind and key belongs.

    Raises:
        StoreError: it is missing, too big, not valid, or another artifact's.
    """
    manifest = Manifest.decode(read_document(directory / MANIFEST))
    if (manifest.kind, manifest.key) != (kind, key):
        raise StoreError(f"describes {manifest.kind}/{manifest.key}, expected {kind}/{key}")
    return manifest


def inspect(
    directory: Path, *, kind: str, key: str, level: Level
) -> tuple[Manifest | None, tuple[Damage, ...]]:
    """Compare a directory with the manifest in it.

    Returns:
        The manifest, if it is valid, and all that is wrong.

    Raises:
        FileNotFoundError: there is no such directory, or it was moved away meanwhile.
    """
    if not stat.S_ISDIR(directory.lstat().st_mode):
        return None, (Damage(problem="type", path=".", detail="not a directory"),)
    try:
        manifest = read_manifest(directory, kind=kind, key=key)
    except StoreError as error:
        return None, (Damage(problem="manifest", path=MANIFEST, detail=str(error)),)
    return manifest, tuple(_compare_files(directory, manifest, level))


def _compare_files(directory: Path, manifest: Manifest, level: Level) -> Iterator[Damage]:
    present = dict(scan(directory))
    present.pop(MANIFEST, None)
    for entry in manifest.files:
        status = present.pop(entry.path, None)
        if status is None:
            yield Damage(problem="missing", path=entry.path, detail="no such file")
        elif not stat.S_ISREG(status.st_mode):
            yield Damage(problem="type", path=entry.path, detail="not a regular file")
        elif status.st_size != entry.size:
            detail = f"has {status.st_size} bytes, expected {entry.size}"
            yield Damage(problem="size", path=entry.path, detail=detail)
        elif level == "full" and (sha256 := sha256_of(directory / entry.path)) != entry.sha256:
            detail = f"has sha256 {sha256}, expected {entry.sha256}"
            yield Damage(problem="sha256", path=entry.path, detail=detail)
    for path in present:
        yield Damage(problem="extra", path=path, detail="not in the manifest")
