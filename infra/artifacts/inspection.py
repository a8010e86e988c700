"""Is an artifact on disk what its manifest says? Nothing here changes a file of it."""

import os
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from infra.artifacts.records import MANIFEST, Damage, FileEntry, Manifest, StoreError
from infra.base.files import file_sha256, scan
from infra.base.records import RecordError, read_document
from infra.base.verified import FileStatus, read_verified, write_verified

Level = Literal["size", "changed", "full"]
"""How much is compared: names, types and sizes; the sha256 of each file too whose status isn't the
one at which it was last read whole; or the sha256 of every file."""


def read_manifest(directory: Path, *, kind: str, key: str) -> Manifest:
    """Return the manifest of the directory where an artifact of this kind and key belongs.

    Raises:
        StoreError: it is missing, too big, not valid, or another artifact's.
    """
    try:
        document = read_document(directory / MANIFEST)
    except RecordError as error:
        raise StoreError(str(error)) from None
    return parse_manifest(document, kind=kind, key=key)


def parse_manifest(document: bytes, *, kind: str, key: str) -> Manifest:
    """Return the manifest of an artifact of this kind and key.

    Raises:
        StoreError: it is not valid, or another artifact's.
    """
    try:
        manifest = Manifest.decode(document)
    except RecordError as error:
        raise StoreError(str(error)) from error
    if (manifest.kind, manifest.key) != (kind, key):
        raise StoreError(f"describes {manifest.kind}/{manifest.key}, expected {kind}/{key}")
    return manifest


def inspect(
    directory: Path, *, kind: str, key: str, level: Level, record: Path | None = None
) -> tuple[Manifest | None, tuple[Damage, ...]]:
    """Compare a directory with the manifest in it.

    Args:
        directory: Where the artifact of this kind and key belongs.
        kind: See `directory`.
        key: See `directory`.
        level: How much to compare.
        record: Where it is kept which files were read whole; without, all count as changed.

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
    verified = read_verified(record, manifest.checksum) if record and level == "changed" else {}
    comparison = compare(directory, manifest, level, verified=verified)
    if record and level != "size" and not comparison.damages and comparison.verified != verified:
        write_verified(record, manifest.checksum, comparison.verified)
    return manifest, comparison.damages


@dataclass(frozen=True)
class Comparison:
    """Files on disk against a manifest."""

    damages: tuple[Damage, ...]
    verified: Mapping[str, FileStatus]
    """The files that were read whole, now or before, and are sound."""


def compare(
    directory: Path,
    manifest: Manifest,
    level: Level,
    *,
    verified: Mapping[str, FileStatus] = MappingProxyType({}),
) -> Comparison:
    """Compare the files in a directory with those of a manifest.

    Raises:
        FileNotFoundError: there is no such directory.
    """
    began = time.time_ns()
    present = dict(scan(directory))
    present.pop(MANIFEST, None)
    damages, sound = [], {}
    for entry in manifest.files:
        status = present.pop(entry.path, None)
        damage = _wrong_status(entry, status)
        if damage is None and status is not None and level != "size":
            seen = FileStatus.of(status)
            if level == "full" or verified.get(entry.path) != seen:
                damage = _wrong_content(entry, directory)
            if seen.had_settled(began):
                sound[entry.path] = seen
        if damage is not None:
            damages.append(damage)
    damages += [
        Damage(problem="extra", path=path, detail="not in the manifest") for path in present
    ]
    return Comparison(tuple(damages), sound)


def damage_of(entry: FileEntry, directory: Path) -> Damage | None:
    """Read the file of an entry whole, and return what is wrong with it."""
    try:
        status = (directory / entry.path).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return _wrong_status(entry, None)
    return _wrong_status(entry, status) or _wrong_content(entry, directory)


def _wrong_status(entry: FileEntry, status: os.stat_result | None) -> Damage | None:
    if status is None:
        return Damage(problem="missing", path=entry.path, detail="no such file")
    if not stat.S_ISREG(status.st_mode):
        return Damage(problem="type", path=entry.path, detail="not a regular file")
    if status.st_size != entry.size:
        detail = f"has {status.st_size} bytes, expected {entry.size}"
        return Damage(problem="size", path=entry.path, detail=detail)
    return None


def _wrong_content(entry: FileEntry, directory: Path) -> Damage | None:
    sha256 = file_sha256(directory / entry.path)
    if sha256 == entry.sha256:
        return None
    detail = f"has sha256 {sha256}, expected {entry.sha256}"
    return Damage(problem="sha256", path=entry.path, detail=detail)
