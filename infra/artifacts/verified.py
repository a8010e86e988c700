"""Which files of an artifact were read whole and found sound, by the status they had then.

A file whose size, time of change and inode are still the same is taken for unchanged by those who
ask no more. The record is a hint: anything odd about it, and it counts for nothing.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, NamedTuple, Self

from pydantic import FailFast

from infra.base.records import SealedRecord
from infra.artifacts.errors import StoreError
from infra.artifacts.fields import Sha256
from infra.base.files import read_document
from infra.artifacts.records import Manifest


class FileStatus(NamedTuple):
    """What changes when a file is written to or replaced."""

    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        """Return it from the system's answer."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ino)


class VerifiedFiles(SealedRecord):
    """The record as stored."""

    manifest: Sha256
    """The checksum of the manifest that the files were compared with."""
    files: Annotated[tuple[tuple[str, FileStatus], ...], FailFast()]


def read_verified(path: Path, manifest: Manifest) -> Mapping[str, FileStatus]:
    """Return the statuses of the files of this manifest that were sound; none if in doubt."""
    try:
        verified = VerifiedFiles.decode(read_document(path))
    except (StoreError, OSError):
        return {}
    return dict(verified.files) if verified.manifest == manifest.checksum else {}


def write_verified(path: Path, manifest: Manifest, files: Mapping[str, FileStatus]) -> None:
    """Keep the statuses, where they can be kept: the store may be full, or not ours to write."""
    document = VerifiedFiles(manifest=manifest.checksum, files=tuple(files.items())).encode()
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(document)


def forget_verified(path: Path) -> None:
    """Remove the statuses of an artifact that has gone."""
    with suppress(OSError):
        path.unlink()
