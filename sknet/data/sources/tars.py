"""Tar archives read once from start to end: where each image is, and the archive's own digest.

Nothing is unpacked: an image is read as a range of bytes of the archive. So no name in an archive
can lead to a file outside of it. A member that is not a regular file of an acceptable size is
skipped with its reason. A damaged archive raises an error, whereas `tarfile` would take a header
that it can't read for the end of the archive.
"""

import hashlib
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO, cast

from sknet.data.sources.kinds import HEAD_BYTES, skipped_by_content, skipped_by_name
from sknet.data.sources.source import ReadImage, ScannedImage, scanned_together, unfit_size
from sknet.data.sources.trees import Skipped
from sknet.errors import UserError

BLOCK_BYTES = 512
MAX_HEADER_BYTES = 1 << 20
"""Largest name or extended header that is read. A hostile one may claim gigabytes."""
COPY_BYTES = 1 << 20

_END = 1 << 62  # a position that is beyond the end of every archive

_KINDS = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
}


class ForwardReader:
    """A file that is read forwards only, as from a network, and hashed on the way.

    It has as much of a file's interface as `tarfile` needs, and raises TarError for a read that no
    valid header asks for.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._position = 0
        self.md5 = hashlib.md5(usedforsecurity=False)
        """MD5 of all that was read so far."""
        self.last_read = b""
        """Result of the last `read`."""

    def tell(self) -> int:
        """Return the number of bytes read so far."""
        return self._position

    def seek(self, position: int) -> int:
        """Read forwards to a position, or to the end if that comes first."""
        if position < self._position:
            raise tarfile.ReadError("unexpected end of data")
        while self._position < position:
            if not self._next(min(COPY_BYTES, position - self._position)):
                break
        return self._position

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes, fewer at the end."""
        if size > MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header claims {size} bytes")
        self.last_read = self._next(size)
        return self.last_read

    def image(self, size: int) -> bytes:
        """Return the next `size` bytes, at most MAX_IMAGE_BYTES.

        Raises:
            tarfile.ReadError: The file ends before.
        """
        parts = []
        while size:
            content = self._next(min(COPY_BYTES, size))
            if not content:
                raise tarfile.ReadError("unexpected end of data")
            parts.append(content)
            size -= len(content)
        return b"".join(parts)

    def _next(self, size: int) -> bytes:
        content = self._file.read(size)
        self._position += len(content)
        self.md5.update(content)
        return content


class _Window(ForwardReader):
    """The next `size` bytes of a reader: an archive within an archive."""

    def __init__(self, outer: ForwardReader, size: int) -> None:
        self._outer = outer
        self._position = outer.tell()
        self._end = self._position + size
        self.last_read = b""

    def _next(self, size: int) -> bytes:
        content = self._outer._next(min(size, self._end - self._position))
        self._position += len(content)
        return content


def scan_tar(
    reader: ForwardReader, archive: str, *, depth: int
) -> Iterator[ScannedImage | Skipped]:
    """Yield the images of an archive.

    Args:
        reader: The archive, at its start.
        archive: Its name, for messages.
        depth: 1 if the archive holds images, 2 if it holds archives of images. Names of images in
            the latter are `<inner archive>/<image>`.

    Raises:
        UserError: The archive is damaged.
    """
    try:
        yield from scanned_together(_scan(reader, archive, "", depth))
        reader.seek(_END)
    # tarfile lets the errors of its parsers pass: bad numbers, bad UTF-8, overlong fields.
    except (tarfile.TarError, ValueError, LookupError, OverflowError, EOFError) as error:
        if isinstance(error, UserError):
            raise
        reason = " ".join(str(error).split())
        raise UserError(
            f"archive {archive} is damaged near byte {reader.tell()} ({reason}): download it again"
        ) from None


def _scan(
    reader: ForwardReader, archive: str, prefix: str, depth: int
) -> Iterator[ReadImage | Skipped]:
    seen: set[str] = set()
    with tarfile.open(
        # tarfile calls nothing of a file but what ForwardReader has.
        fileobj=cast(BinaryIO, reader),
        mode="r:",
        encoding="utf-8",
        errors="surrogateescape",
    ) as tar:
        while (member := tar.next()) is not None:
            # tarfile would hold a million members in memory. typeshed doesn't know the attribute.
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
                    yield Skipped(name, "not named as an archive", quarantined=False)
                    continue
                inner = _Window(reader, member.size)
                yield from _scan(inner, archive, f"{name}/", depth - 1)
                inner.seek(_END)
                continue
            head = reader.image(min(member.size, HEAD_BYTES))
            if skipped := skipped_by_content(name, head):
                yield skipped
            elif reason := unfit_size(member.size):
                yield Skipped(name, reason)
            else:
                content = head + reader.image(member.size - len(head))
                yield ReadImage(f"{archive}: {name}", content, name, member.offset_data)
    if len(reader.last_read) % BLOCK_BYTES or reader.last_read.strip(b"\0"):
        raise tarfile.ReadError("no header where one is expected")


def _unusable(member: tarfile.TarInfo, name: str, seen: set[str]) -> Skipped | None:
    leaves = member.name.startswith("/") or ".." in member.name.split("/")
    if not leaves and (skipped := skipped_by_name(member.name.removeprefix("./"))):
        return replace(skipped, name=name)
    reason = None
    if not member.isreg():
        reason = _KINDS.get(member.type, f"no plain file (type {member.type!r})")
    elif member.issparse():
        reason = "a sparse file"
    elif leaves:
        reason = "a name that leaves the archive"
    elif member.name in seen:
        reason = "a second file of this name"
    return Skipped(name, reason) if reason else None
