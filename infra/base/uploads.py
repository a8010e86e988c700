"""Lets hosts put files of an artifact into its store while it is built; they share no directory.

One process builds the artifact, and gives the others an `Upload`. What it notes of finished parts
stays until the artifact is committed, so that the next builder needn't make them again.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Protocol

UploadedFile = tuple[str, int, str]
"""Path in the artifact, size in bytes, and SHA-256."""


class Upload(Protocol):
    """Puts a file into the store, from any host. It can be pickled."""

    def check(self) -> None:
        """Make sure that this host can read the store, before it makes a file.

        Raises:
            UserError: This host can't use the store.
            OSError: The store can't be reached.
        """

    def __call__(self, path: Path, name: str, size: int, sha256: str) -> None:
        """Put a file into the store, unless the store has it already.

        Args:
            path: The file on this host.
            name: Its path in the artifact.
            size: Its size in bytes.
            sha256: Its SHA-256.

        Raises:
            UserError: The store has other bytes under this name, or this host can't use it.
            OSError: The store can't be reached, or the file is not as described.
        """


class Uploads(Protocol):
    """The files of one artifact that hosts put into its store, as its builder sees them.

    All methods raise OSError if the store can't be reached.
    """

    @property
    def upload(self) -> Upload:
        """What hosts upload files with."""

    def missing(self, files: Collection[UploadedFile]) -> set[str]:
        """Return the paths of those files that are not in the store with these bytes."""

    def notes(self) -> dict[str, bytes]:
        """Return what is noted of finished parts, by the name of the note."""

    def note(self, name: str, content: bytes) -> None:
        """Note something of a finished part."""

    def keep_only(self, files: Collection[str], notes: Collection[str]) -> None:
        """Remove all files and notes of the artifact but these, unless it has been committed."""
