"""Tar archives read once from start to end: where each image lies, and the archive's own digest.

Nothing is ever unpacked, so no name in an archive can escape to anywhere: an image is read as a
range of the archive. What is no plain file of a sane size is told with its reason. A damaged
archive raises instead of ending early, as `tarfile` does at a header that it can't read.
"""

import hashlib
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, cast

from sknet.data.sources.source import Image, has_image_suffix, is_hidden, unfit_size
from sknet.data.sources.trees import Skipped
from sknet.errors import UserError

BLOCK = 512
# A name or an extended header; a hostile one may claim gigabytes.
MAX_HEADER_BYTES = 1 << 20
COPY_BYTES = 1 << 20


class ForwardReader:
    """A file that is only read on, as from a network, and hashed on the way.

    Has as much of a file's interface as `tarfile` needs. Raises TarError for a read that no honest
    header asks for.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._position = 0
        self.md5 = hashlib.md5(usedforsecurity=False)
        self.last_read = b""

    def tell(self) -> int:
        """Bytes read so far."""
        return self._position

    def seek(self, position: int) -> int:
        """Read on to a later position, or to the end if that comes first."""
        if position < self._position:
            raise tarfile.ReadError("unexpected end of data")
        while self._position < position:
            if not self._next(min(COPY_BYTES, position - self._position)):
                break
        return self._position

    def read(self, size: int) -> bytes:
        """The next bytes, fewer at the end."""
        if size > MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header claims {size} bytes")
        self.last_read = self._next(size)
        return self.last_read

    def sha256(self, size: int) -> str:
        """Digest of the next `size` bytes. Raises ReadError if the file ends before."""
        hasher = hashlib.sha256()
        while size:
            content = self._next(min(COPY_BYTES, size))
            if not content:
                raise tarfile.ReadError("unexpected end of data")
            hasher.update(content)
            size -= len(content)
        return hasher.hexdigest()

    def _next(self, size: int) -> bytes:
        content = self._file.read(size)
        self._position += len(content)
        self.md5.update(content)
        return content


class _Window(ForwardReader):
    """A part of a reader: an archive within an archive."""

    def __init__(self, outer: ForwardReader, size: int) -> None:
        self._outer = outer
        self._position = outer.tell()
        self._end = self._position + size
        self.last_read = b""

    def _next(self, size: int) -> bytes:
        content = self._outer._next(min(size, self._end - self._position))
        self._position += len(content)
        return content


def scan_tar(reader: ForwardReader, archive: str, *, depth: int) -> Iterator[Image | Skipped]:
    """The images of an archive, or of the archives in it for a `depth` of 2.

    Names of the latter are `<inner archive>/<image>`. Raises UserError if the archive is damaged.
    """
    try:
        yield from _scan(reader, archive, "", depth)
        reader.seek(1 << 62)
    # What tarfile meets in bad bytes comes as it is: bad numbers, bad UTF-8, overlong fields.
    except (tarfile.TarError, ValueError, LookupError, OverflowError, EOFError) as error:
        if isinstance(error, UserError):
            raise
        reason = " ".join(str(error).split())
        raise UserError(
            f"archive {archive} is damaged near byte {reader.tell()} ({reason}): download it again"
        ) from None


def _scan(
    reader: ForwardReader, archive: str, prefix: str, depth: int
) -> Iterator[Image | Skipped]:
    seen: set[str] = set()
    # tarfile asks for no more of a file than ForwardReader has
    with tarfile.open(
        fileobj=cast(BinaryIO, reader), mode="r:", encoding="utf-8", errors="surrogateescape"
    ) as tar:
        while (member := tar.next()) is not None:
            # It would keep a million of them; typeshed doesn't know the list.
            tar.members = []  # type: ignore[attr-defined]
            name = prefix + member.name
            if member.isdir():
                continue
            if skipped := _unusable(member, name, seen):
                yield skipped
                continue
            seen.add(member.name)
            reader.seek(member.offset_data)
            if depth > 1:
                if not member.name.endswith(".tar"):
                    yield Skipped(name, "no archive by its name", quarantined=False)
                    continue
                inner = _Window(reader, member.size)
                yield from _scan(inner, archive, f"{name}/", depth - 1)
                inner.seek(1 << 62)
            elif has_image_suffix(member.name):
                digest = reader.sha256(member.size)
                yield Image(name, member.offset_data, member.size, digest)
            else:
                yield Skipped(name, "no image by its name", quarantined=False)
    if len(reader.last_read) % BLOCK or reader.last_read.strip(b"\0"):
        raise tarfile.ReadError("no header where one is expected")


def _unusable(member: tarfile.TarInfo, name: str, seen: set[str]) -> Skipped | None:
    leaves = member.name.startswith("/") or ".." in member.name.split("/")
    if not leaves and is_hidden(member.name.removeprefix("./")):
        return Skipped(name, "hidden", quarantined=False)
    reason = None
    if not member.isreg():
        reason = _kind(member)
    elif member.issparse():
        reason = "a sparse file"
    elif leaves:
        reason = "a name that leaves the archive"
    elif member.name in seen:
        reason = "a second file of this name"
    elif has_image_suffix(member.name):
        reason = unfit_size(member.size)
    return Skipped(name, reason) if reason else None


def _kind(member: tarfile.TarInfo) -> str:
    kinds = {
        tarfile.SYMTYPE: "a symbolic link",
        tarfile.LNKTYPE: "a hard link",
        tarfile.FIFOTYPE: "a pipe",
        tarfile.CHRTYPE: "a device",
        tarfile.BLKTYPE: "a device",
    }
    return kinds.get(member.type, f"no plain file (type {member.type!r})")
