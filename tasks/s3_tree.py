"""`s3://bucket/prefix` as a tree of files for sknet, which knows no S3 itself.

The entry point `sknet.file_trees` of this project registers it.
"""

from collections.abc import Iterator
from typing import BinaryIO

from infra.s3 import Prefix, S3Error
from sknet.data.sources.trees import Children, Skipped, SourceFile
from sknet.errors import UserError


class S3Tree:
    """The objects below a prefix, as the protocol `sknet.data.sources.trees.FileTree`.

    Raises:
        UserError: The location can't be listed.
    """

    def __init__(self, location: str) -> None:
        self.location = location.rstrip("/")
        try:
            self._prefix = Prefix(location)
        except S3Error as error:
            raise UserError(f"data source {location} can't be listed: {error.strerror}") from None

    def children(self, folder: str) -> Children:
        """Return the names in a folder; none if there is no such folder."""
        try:
            folders, files = self._prefix.children(folder)
        except S3Error as error:
            raise self._unlistable(folder, error) from None
        return Children(tuple(folders), tuple(files))

    def files(self, folder: str) -> Iterator[SourceFile | Skipped]:
        """Yield all files below a folder, sorted by name."""
        try:
            for found in self._prefix.objects(folder):
                yield SourceFile(found.path, found.size, found.etag)
        except S3Error as error:
            raise self._unlistable(folder, error) from None

    def file(self, path: str) -> SourceFile | Skipped | None:
        """Return one file; None if it is missing."""
        try:
            found = self._prefix.object(path)
        except S3Error as error:
            raise self._unlistable(path, error) from None
        return SourceFile(path, found.size, found.etag) if found else None

    def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        """Return a file's content from `offset` on, at most `size` bytes of it."""
        return self._prefix.read(path, offset, size)

    def open(self, path: str) -> BinaryIO:
        """Open a file that is read once, from start to end."""
        return self._prefix.open(path)

    def _unlistable(self, folder: str, error: S3Error) -> UserError:
        return UserError(f"{self.location}/{folder} can't be listed: {error.strerror}")
