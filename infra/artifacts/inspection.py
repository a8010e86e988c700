"""Compares files with a manifest. Nothing here changes an artifact."""

import errno
import os
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from infra.artifacts.documents import StoreError, read_document
from infra.artifacts.records import MANIFEST, Damage, FileEntry, Manifest
from infra.base.files import file_sha256, scan
from infra.base.verified import FileStatus, read_verified, write_verified

Level = Literal["size", "changed", "full"]
"""How much is compared: names, types and sizes; also the content of files that may have changed
since they were last read whole; or the content of every file."""


UNREADABLE = {errno.EACCES, errno.EPERM, errno.EIO}
"""The errors of files that are there, but can't be read by this user or from this disk."""


@dataclass(frozen=True)
class Found:
    """What a store has under a key."""

    version: str
    """Differs from the version of whatever replaces it."""
    level: Level
    """How much was compared."""
    manifest: Manifest | None
    """None if it is not valid."""
    damages: tuple[Damage, ...]
    """All differences from the manifest."""

    @property
    def sound(self) -> Manifest | None:
        """The manifest, if nothing is damaged."""
        return None if self.damages else self.manifest

    @property
    def is_unreadable(self) -> bool:
        """Whether something can't be read, so that it isn't known whether it is damaged."""
        return any(damage.problem == "unreadable" for damage in self.damages)


def parse_manifest(document: bytes, *, kind: str, key: str) -> Manifest:
    """Return the manifest of an artifact of this kind and key.

    Raises:
        StoreError: It is not valid, or describes another artifact.
    """
    manifest = Manifest.decode(document)
    if (manifest.kind, manifest.key) != (kind, key):
        raise StoreError(f"describes {manifest.kind}/{manifest.key}, expected {kind}/{key}")
    return manifest


def compare(
    manifest: Manifest,
    sizes: Mapping[str, int | None],
    sha256_of: Callable[[FileEntry], str] | None,
) -> tuple[Damage, ...]:
    """Compare the files of a manifest with those that are there.

    Args:
        manifest: What should be there.
        sizes: Path of each file that is there → its size in bytes; None if it is no regular file.
        sha256_of: Returns the SHA-256 of a file that is there. Without, content isn't compared.
    """

    def compare_one(
        entry: FileEntry,
    ) -> tuple[Literal["type", "size", "sha256", "unreadable"], str] | None:
        if (size := sizes[entry.path]) is None:
            return "type", "not a regular file"
        if size != entry.size:
            return "size", f"has {size} bytes, expected {entry.size}"
        try:
            sha256 = sha256_of(entry) if sha256_of is not None else entry.sha256
        except OSError as error:
            if error.errno not in UNREADABLE:
                raise
            return "unreadable", f"can't be read: {error.strerror}"
        if sha256 != entry.sha256:
            return "sha256", f"has sha256 {sha256}, expected {entry.sha256}"
        return None

    damages = []
    for entry in manifest.files:
        if entry.path not in sizes:
            damages.append(Damage(problem="missing", path=entry.path, detail="no such file"))
        elif (found := compare_one(entry)) is not None:
            damages.append(Damage(problem=found[0], path=entry.path, detail=found[1]))
    extra = sizes.keys() - {MANIFEST, *(entry.path for entry in manifest.files)}
    damages += [
        Damage(problem="extra", path=path, detail="not in the manifest") for path in sorted(extra)
    ]
    return tuple(damages)


def compare_directory(
    directory: Path,
    manifest: Manifest,
    level: Level,
    *,
    verified: Mapping[str, FileStatus] = MappingProxyType({}),
) -> tuple[tuple[Damage, ...], dict[str, FileStatus]]:
    """Compare the files of a manifest with those in a directory.

    Args:
        directory: Holds the files, and perhaps the manifest.
        manifest: What should be there.
        level: How much to compare.
        verified: The statuses at which files were verified before; level ``changed`` trusts them.

    Returns:
        All differences; and the statuses at which files are verified by now.

    Raises:
        FileNotFoundError: There is no such directory.
    """
    began = time.time_ns()
    present = dict(scan(directory))
    sound: dict[str, FileStatus] = {}

    def sha256_of(entry: FileEntry) -> str:
        status = FileStatus.of(present[entry.path])
        if level == "changed" and verified.get(entry.path) == status:
            sha256 = entry.sha256
            count(entry.size)
        else:
            sha256 = file_sha256(directory / entry.path, count)
        if sha256 == entry.sha256 and status.had_settled(began):
            sound[entry.path] = status
        return sha256

    sizes = {
        path: status.st_size if stat.S_ISREG(status.st_mode) else None
        for path, status in present.items()
    }
    with manifest.work("verifying") as count:
        return compare(manifest, sizes, None if level == "size" else sha256_of), sound


def unreadable(directory: Path, error: OSError) -> Damage:
    """Return the damage of an artifact in a directory of which something can't be read."""
    path = os.path.relpath(error.filename or directory, directory)
    return Damage(problem="unreadable", path=path, detail=f"can't be read: {error.strerror}")


def inspect(
    directory: Path, *, kind: str, key: str, level: Level, memory: Path
) -> tuple[Manifest | None, tuple[Damage, ...]]:
    """Compare a directory with the manifest in it.

    Args:
        directory: Where the artifact belongs.
        kind: The artifact's kind.
        key: The artifact's key.
        level: How much to compare.
        memory: Remembers which files were read whole; see `infra.base.verified`.

    Returns:
        The manifest, if it is valid, and all differences from it.

    Raises:
        FileNotFoundError: There is no such directory, or it was moved away meanwhile.
    """
    manifest = None
    try:
        if not stat.S_ISDIR(directory.lstat().st_mode):
            return None, (Damage(problem="type", path=".", detail="not a directory"),)
        try:
            manifest = parse_manifest(read_document(directory / MANIFEST), kind=kind, key=key)
        except StoreError as error:
            return None, (Damage(problem="manifest", path=MANIFEST, detail=str(error)),)
        verified = read_verified(memory, manifest.checksum) if level == "changed" else {}
        damages, now_verified = compare_directory(directory, manifest, level, verified=verified)
    except OSError as error:
        if error.errno not in UNREADABLE:
            raise
        return manifest, (unreadable(directory, error),)
    if level != "size" and not damages and now_verified != verified:
        write_verified(memory, manifest.checksum, now_verified)
    return manifest, damages
