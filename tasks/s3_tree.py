"""`s3://bucket/prefix` as a tree of files for the library, which knows no S3 itself."""

from collections.abc import Iterator
from typing import BinaryIO

from infra.s3 import Prefix, S3Error
from sknet.data.sources.trees import Children, Skipped, SourceFile
from sknet.errors import UserError


class S3Tree:
    """See sknet.data.sources.trees.FileTree, which it is registered for."""

    def __init__(self, location: str) -> None:
        self.location = location.rstrip("/")
        try:
            self._prefix = Prefix(location)
        except S3Error as error:
            raise UserError(f"data source {location} can't be listed: {error.strerror}") from None

    def children(self, folder: str) -> Children:
        """See FileTree."""
        try:
            folders, files = self._prefix.children(folder)
        except S3Error as error:
            raise self._unlistable(folder, error) from None
        return Children(tuple(folders), tuple(files))

    def files(self, folder: str) -> Iterator[SourceFile | Skipped]:
        """See FileTree."""
        try:
            for found in self._prefix.objects(folder):
                yield SourceFile(found.path, found.size, found.etag)
        except S3Error as error:
            raise self._unlistable(folder, error) from None

    def file(self, path: str) -> SourceFile | Skipped | None:
        """See FileTree."""
        try:
            found = self._prefix.object(path)
        except S3Error as error:
            raise self._unlistable(path, error) from None
        return SourceFile(path, found.size, found.etag) if found else None

    def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        """See FileTree."""
        return self._prefix.read(path, offset, size)

    def open(self, path: str) -> BinaryIO:
        """See FileTree."""
        return self._prefix.open(path)

    def _unlistable(self, folder: str, error: S3Error) -> UserError:
        return UserError(f"{self.location}/{folder} can't be listed: {error.strerror}")
