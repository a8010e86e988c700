"""Refs in a directory: one JSON document each, replaced atomically under the store's lock."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from infra.artifacts.records import Manifest
from infra.artifacts.refs import Ref, RefDocument, Refs, check_ref_name, next_document
from infra.base.files import fsync, replace_file
from infra.base.records import read_document


class LocalRefs(Refs):
    """The refs ``<directory>/<name>.json``."""

    def __init__(self, directory: Path, lock: Callable[[], AbstractContextManager[None]]) -> None:
        self._directory = directory
        self._lock = lock

    def names(self) -> tuple[str, ...]:
        """Return the names of the documents; see `Refs`."""
        return tuple(sorted(path.stem for path in self._directory.glob("[!.]*.json")))

    def get(self, name: str) -> Ref | None:
        """Return the present entry without a lock, as documents are replaced whole; see `Refs`."""
        document = self._read(name)
        return document.current if document is not None else None

    def set(
        self,
        name: str,
        target: Manifest | Ref,
        *,
        expected: Ref | None,
        reason: str,
        suspect: str | None = None,
    ) -> Ref:
        """Compare and replace under the store's lock; see `Refs`."""
        with self._lock():
            present = self._read(name)
            document = next_document(
                name, present, target, expected=expected, reason=reason, suspect=suspect
            )
            self._write(name, document)
        return document.current

    def history(self, name: str) -> tuple[Ref, ...]:
        """Return all entries of the document; see `Refs`."""
        document = self._read(name)
        return document.entries if document is not None else ()

    def _path(self, name: str) -> Path:
        check_ref_name(name)
        return self._directory / f"{name}.json"

    def _read(self, name: str) -> RefDocument | None:
        path = self._path(name)
        if not os.path.lexists(path):
            return None
        return RefDocument.parse(name, read_document(path))

    def _write(self, name: str, document: RefDocument) -> None:
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, document.encode(), durable=True)
        fsync(path.parent.parent)  # this may be the first ref
