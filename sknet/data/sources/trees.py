"""Where a source's files are: a local directory, or anything that offers the same five operations.

A location of the form `scheme://…` is opened by the package that registered the scheme under the
entry points `sknet.file_trees`. This library itself reads local files only.
"""

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import BinaryIO, Protocol

from infra.base.files import is_directory
from sknet.errors import SourceReadError, UserError

# Faults of a single file: it is gone, forbidden or no regular file, or no file can have its name.
# Trying again doesn't help.
_LASTING_FAULTS = {
    errno.ENOENT,
    errno.EACCES,
    errno.EPERM,
    errno.ELOOP,
    errno.EINVAL,
    errno.ENXIO,
    errno.ENOTDIR,
    errno.ENAMETOOLONG,
}


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that was listed and not yet read."""

    path: str
    """Path relative to the root of the tree, with `/`."""
    size: int
    """Size in bytes."""
    stamp: str
    """Text that changes when the content may have changed; empty if the tree has none."""
    changed_ns: int = 0
    """Latest of the file's times, in nanoseconds since the epoch; 0 if the stamp has no times."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file, or a part of one, that gives no sample."""

    name: str
    reason: str
    quarantined: bool = True
    """Whether it should have been a sample. Other files are only counted."""


@dataclass(frozen=True)
class Children:
    """The sorted names of what is directly in a folder."""

    folders: tuple[str, ...]
    files: tuple[str, ...]


class FileTree(Protocol):
    """Files under one root, for reading only. Reading raises OSError."""

    location: str
    """The root, for messages and as a key of caches."""

    def children(self, folder: str) -> Children:
        """Return the names in a folder; none if there is no such folder."""

    def files(self, folder: str) -> Iterator[SourceFile | Skipped]:
        """Yield all files below a folder, depth first and sorted by name; none if it is missing."""

    def file(self, path: str) -> SourceFile | Skipped | None:
        """Return one file; None if it is missing."""

    def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        """Return a file's content from `offset` on, at most `size` bytes of it."""

    def open(self, path: str) -> BinaryIO:
        """Open a file that is read once, from start to end."""


def open_tree(location: str) -> FileTree:
    """Return the tree at a path or `scheme://` URI.

    Raises:
        UserError: There is no such directory, or no package has registered the scheme.
    """
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


def printable(name: str) -> str:
    """Return a file's name as it can be shown: what is not printable UTF-8 is escaped."""
    if name.isprintable():
        return name
    return name.encode("unicode_escape", "backslashreplace").decode("ascii")


def lasting_fault(error: OSError, where: str) -> str:
    """Return what is wrong with a file that can't be read.

    Raises:
        SourceReadError: The disk or the network failed, so that trying again may help.
    """
    reason = error.strerror or str(error)
    if error.errno not in _LASTING_FAULTS:
        raise SourceReadError(f"{where} can't be read: {reason}; try again") from None
    return reason


class LocalTree:
    """A directory of the user's own, in which symbolic links are followed.

    A link to a folder that is read anyway, such as one above it, is skipped: every folder is read
    at most once, so that loops end.
    """

    def __init__(self, root: Path) -> None:
        self.location = str(root)
        if not is_directory(root):
            raise UserError(f"data directory {root} does not exist or is not a directory")
        self._root = root.resolve()

    def children(self, folder: str) -> Children:
        """Return the names in a folder; links to folders above it count as files.

        Raises:
            UserError: The folder can't be listed.
        """
        try:
            entries = self._entries(folder)
        except (FileNotFoundError, NotADirectoryError):
            return Children((), ())
        except OSError as error:
            raise UserError(f"{self._root / folder} can't be listed: {error.strerror}") from None
        names: dict[bool, list[str]] = {True: [], False: []}
        above = _real(self._root / folder)
        for entry in entries:
            is_folder = _is_folder(entry) and not (
                entry.is_symlink() and above.is_relative_to(_real(entry.path))
            )
            names[is_folder].append(entry.name)
        return Children(tuple(names[True]), tuple(names[False]))

    def files(self, folder: str) -> Iterator[SourceFile | Skipped]:
        """Yield all files below a folder; all but readable regular files are skipped."""
        return self._files(folder, [_real(self._root / folder)])

    def _files(self, folder: str, read: list[Path]) -> Iterator[SourceFile | Skipped]:
        """Yield all files below a folder.

        Args:
            folder: The folder.
            read: The real paths of the folder with which the listing began, and of those to which
                links have led; extended by further ones.
        """
        try:
            entries = self._entries(folder)
        except FileNotFoundError:
            return
        except OSError as error:
            yield Skipped(folder, f"the folder can't be listed: {error.strerror}")
            return
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if not _is_folder(entry):
                yield self._examine(path)
                continue
            if entry.is_symlink():
                real = _real(entry.path)
                if any(real.is_relative_to(one) or one.is_relative_to(real) for one in read):
                    yield Skipped(path, "a link to a folder that is read already")
                    continue
                read.append(real)
            yield from self._files(path, read)

    def file(self, path: str) -> SourceFile | Skipped | None:
        """Return one file; None if it is missing."""
        return self._examine(path) if os.path.lexists(self._root / path) else None

    def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        """Return a file's content from `offset` on, at most `size` bytes of it."""
        with self.open(path) as file:
            # Python allocates all that a read asks for, however small the file is.
            left = max(0, os.fstat(file.fileno()).st_size - offset)
            file.seek(offset)
            return file.read(left if size is None else min(size, left))

    def open(self, path: str) -> BinaryIO:
        """Open a file for reading.

        Raises:
            OSError: It can't be opened, or has become a pipe or a device since it was listed.
        """
        descriptor = os.open(self._root / path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "no regular file")
        return os.fdopen(descriptor, "rb")

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        with os.scandir(self._root / folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)

    def _examine(self, path: str) -> SourceFile | Skipped:
        try:
            found = (self._root / path).stat()
        except OSError as error:
            return Skipped(path, f"can't be read: {error.strerror}")
        if not stat.S_ISREG(found.st_mode):
            kind = "a link to a folder" if stat.S_ISDIR(found.st_mode) else "no regular file"
            return Skipped(path, kind)
        # The ctime changes even if a file is overwritten with size and mtime kept.
        times = (found.st_mtime_ns, found.st_ctime_ns)
        return SourceFile(path, found.st_size, "{}-{}".format(*times), max(times))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle
        return False


def _real(path: str | Path) -> Path:
    """Return a path without links."""
    return Path(os.path.realpath(path))
