"""Where the files of a source lie: a directory, or another place under the same few operations.

`scheme://…` is opened by the package that registered the scheme under the entry points
`sknet.file_trees`: this library itself knows local files only.
"""

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import BinaryIO, Protocol

from sknet.errors import SourceReadError, UserError


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file as listed, not yet read."""

    path: str
    """Relative to the tree's root, with `/`."""
    size: int
    stamp: str
    """Differs once the content may have changed; empty if nobody can tell."""
    changed_ns: int = 0
    """When it last changed, if the stamp is made of times."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file or a part of one that gives no sample."""

    name: str
    reason: str
    quarantined: bool = True
    """Whether it should have been a sample; what only lies beside the samples is merely counted."""


@dataclass(frozen=True)
class Children:
    """What lies directly in a folder."""

    folders: tuple[str, ...]
    files: tuple[str, ...]


class FileTree(Protocol):
    """Files under one root, read only. OSError is what reading raises."""

    location: str
    """For messages and as the name of the root in caches."""

    def children(self, folder: str) -> Children:
        """Sorted names; nothing for a folder that is not there."""

    def files(self, folder: str) -> Iterator[SourceFile | Skipped]:
        """Everything below a folder, folder by folder in the order of their names;
        nothing for a folder that is not there."""

    def file(self, path: str) -> SourceFile | Skipped | None:
        """One file, if it is there."""

    def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        """A file, or at most `size` bytes of it from `offset` on."""

    def open(self, path: str) -> BinaryIO:
        """A file from its start, to be read once in order."""


# Faults of one file, that stay until somebody mends them: it is gone, forbidden, no plain file.
_LASTING = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.ELOOP, errno.EINVAL, errno.ENXIO}


def lasting_fault(error: OSError, where: str) -> str:
    """What is wrong with one file. Raises SourceReadError if it is the disk or the network."""
    reason = error.strerror or str(error)
    if error.errno not in _LASTING:
        raise SourceReadError(f"{where} can't be read: {reason}; try again") from None
    return reason


def open_tree(location: str) -> FileTree:
    """The tree at a path or `scheme://` URI. Raises UserError if there is none."""
    scheme, separator, _ = location.partition("://")
    if not separator:
        return LocalTree(Path(location))
    known = {point.name: point for point in entry_points(group="sknet.file_trees")}
    if scheme not in known:
        raise UserError(
            f"data source {location!r}: expected a directory, or a URI that begins with "
            f"{' or '.join(f'{name}://' for name in sorted(known)) or 'a registered scheme'}"
        )
    tree: FileTree = known[scheme].load()(location)
    return tree


class LocalTree:
    """A directory. Nothing outside of it is read, whatever its links say."""

    def __init__(self, root: Path) -> None:
        self.location = str(root)
        if not os.path.isdir(root):  # noqa: PTH112 (Path.is_dir raises for an overlong name)
            raise UserError(f"data directory {root} does not exist or is no directory")
        self._root = root.resolve()

    def children(self, folder: str) -> Children:
        """See FileTree; links to folders are left out, as `files` doesn't follow them."""
        try:
            with os.scandir(self._root / folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return Children((), ())
        except OSError as error:
            raise UserError(f"{self._root / folder} can't be listed: {error.strerror}") from None
        return Children(
            tuple(e.name for e in found if e.is_dir(follow_symlinks=False)),
            tuple(e.name for e in found if not e.is_dir(follow_symlinks=False)),
        )

    def files(self, folder: str) -> Iterator[SourceFile | Skipped]:
        """See FileTree. What is no readable regular file inside the root is Skipped."""
        try:
            with os.scandir(self._root / folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except FileNotFoundError:
            return
        except OSError as error:
            yield Skipped(folder, f"the folder can't be listed: {error.strerror}")
            return
        for entry in found:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir(follow_symlinks=False):
                yield from self.files(path)
            else:
                yield self._look_at(path, entry.is_symlink())

    def file(self, path: str) -> SourceFile | Skipped | None:
        """See FileTree."""
        full = self._root / path
        return self._look_at(path, full.is_symlink()) if os.path.lexists(full) else None

    def _look_at(self, path: str, is_link: bool) -> SourceFile | Skipped:
        full = self._root / path
        try:
            if is_link and not full.resolve().is_relative_to(self._root):
                return Skipped(path, "a symbolic link that leaves the data directory")
            found = full.stat()
        except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
            reason = error.strerror if isinstance(error, OSError) else "links in a circle"
            return Skipped(path, f"can't be read: {reason}")
        if not stat.S_ISREG(found.st_mode):
            kind = "a link to a folder" if stat.S_ISDIR(found.st_mode) else "no regular file"
            return Skipped(path, kind)
        # ctime too: a copy that keeps size and mtime is still noticed.
        times = (found.st_mtime_ns, found.st_ctime_ns)
        return SourceFile(path, found.st_size, "{}-{}".format(*times), max(times))

    def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        """See FileTree."""
        with self.open(path) as file:
            if offset:
                file.seek(offset)
            return file.read() if size is None else file.read(size)

    def open(self, path: str) -> BinaryIO:
        """See FileTree. Refuses what became a pipe or a device since it was listed."""
        descriptor = os.open(self._root / path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "no regular file")
        return os.fdopen(descriptor, "rb")
