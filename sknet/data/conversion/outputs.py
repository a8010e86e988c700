"""Where the processes of a conversion write shards, and where finished ones go.

They share a directory (`SharedDirectory`), or each host has a temporary one of its own and uploads
what is finished (`TemporaryDirectories`).
"""

import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from infra.base.files import fsync, replace_file
from infra.base.uploads import Upload
from sknet.data.conversion.directory import ATTEMPT_FILE, WORK, ShardRecord
from sknet.data.shards import is_undamaged
from sknet.errors import UserError


class ShardOutput(Protocol):
    """Where one conversion writes. It is sent to its processes."""

    @property
    def disk(self) -> Path:
        """A directory of the disk on which shards are written."""

    def finished(self, name: str) -> ShardRecord | None:
        """Return the record of a shard that this process need not convert; None if it has to.

        Raises:
            UserError: This host can't take part in the conversion.
        """

    def building(self, name: str) -> AbstractContextManager[Path]:
        """Make the directory in which one attempt at a shard writes; remove it at the end."""

    def publish(self, record: ShardRecord, building: Path) -> None:
        """Put a shard where finished ones belong.

        Raises:
            UserError: What is there differs from it.
            OSError: The disk is full, or the store can't be reached.
        """


@dataclass(frozen=True)
class SharedDirectory:
    """The directory of `sknet.data.conversion.directory`, which all processes see."""

    directory: Path
    attempt: str
    """Name of the conversion: a host that finds another one sees another directory."""

    @property
    def disk(self) -> Path:
        """The directory itself."""
        return self.directory

    def finished(self, name: str) -> ShardRecord | None:
        """Compare both files of a shard with its record."""
        self._check_host()
        path = self.directory / WORK / f"{name}.json"
        record = ShardRecord.read(path) if path.is_file() else None
        return record if record and is_undamaged(record.file, self.directory) else None

    @contextmanager
    def building(self, name: str) -> Iterator[Path]:
        """Make a directory in the shared one, where others see the tally."""
        building = self.directory / WORK / f"{name}.{uuid.uuid4().hex[:8]}"
        building.mkdir()
        try:
            yield building
        finally:
            shutil.rmtree(building, ignore_errors=True)

    def publish(self, record: ShardRecord, building: Path) -> None:
        """Move both files, and write the record last."""
        for name, *_ in record.file.files:
            fsync(building / name)
            (building / name).replace(self.directory / name)
        fsync(self.directory)
        path = self.directory / WORK / f"{record.file.name}.json"
        replace_file(path, record.encode(), durable=True)

    def _check_host(self) -> None:
        try:
            seen = (self.directory / WORK / ATTEMPT_FILE).read_text("ascii")
        except OSError:
            seen = ""
        if seen != self.attempt:
            raise UserError(
                f"host {socket.gethostname()} does not see the directory {self.directory}: all "
                "hosts that convert must share it, or give a store on S3, which needs no shared "
                "directory"
            )


@dataclass(frozen=True)
class TemporaryDirectories:
    """A new directory in `TMPDIR` for each shard, which is uploaded from there."""

    upload: Upload

    @property
    def disk(self) -> Path:
        """The directory of temporary files of this host."""
        return Path(tempfile.gettempdir())

    def finished(self, name: str) -> None:
        """Convert all shards: those that are in the store are not sent to any process.

        Raises:
            UserError: This host can't use the store.
            OSError: The store can't be reached.
        """
        del name
        self.upload.check()

    @contextmanager
    def building(self, name: str) -> Iterator[Path]:
        """Make a directory on this host."""
        del name
        with tempfile.TemporaryDirectory(prefix="sknet-shard-") as building:
            yield Path(building)

    def publish(self, record: ShardRecord, building: Path) -> None:
        """Upload both files."""
        for name, size, sha256 in record.file.files:
            self.upload(building / name, name, size, sha256)
