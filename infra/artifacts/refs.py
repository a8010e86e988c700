"""Refs: names that point to artifacts, move by compare-and-swap, and have a history."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Self
from uuid import uuid4

from pydantic import (
    AwareDatetime,
    FailFast,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from infra.artifacts.documents import Documents, Expected, SealedRecord, StoreError, one_line
from infra.artifacts.records import Kind, Manifest, RefConflictError, Version
from infra.base.records import Record, Sha256

Text = Annotated[str, StringConstraints(min_length=1)]
RefName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]

KINDS = {"production": "checkpoint"}
"""Name of a ref → the kind of its targets. Another ref keeps the kind that it begins with."""

_REF_NAME = TypeAdapter(RefName)


class Ref(Record, strict=True):
    """An entry of a ref: where it points, since when, and why."""

    version: Version
    id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    """Random, so that a writer can tell its own entry from an equal one of another writer."""
    kind: Kind
    key: Sha256
    digest: Sha256
    reason: Text
    suspect: Text | None = None
    """Why the target is in doubt; None if it isn't."""
    time: AwareDatetime


class RefDocument(SealedRecord, Ref):
    """A ref as it is stored: the present entry and its history, oldest first."""

    history: Annotated[tuple[Ref, ...], FailFast()]

    @property
    def current(self) -> Ref:
        """The present entry."""
        return Ref(**self.model_dump(exclude={"history", "checksum"}))

    @property
    def entries(self) -> tuple[Ref, ...]:
        """All entries, oldest first."""
        return (*self.history, self.current)

    @model_validator(mode="after")
    def _counts_from_one(self) -> Self:
        versions = [*(ref.version for ref in self.history), self.version]
        if versions != list(range(1, len(versions) + 1)):
            raise ValueError(f"versions are {versions}, expected 1, 2, 3, …")
        return self


class Refs:
    """The refs of a store. Every method refuses an invalid name with StoreError."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    def names(self) -> tuple[str, ...]:
        """Return the names of all refs, sorted."""
        return tuple(sorted(self._documents.names("refs")))

    def get(self, name: str) -> Ref | None:
        """Return the present entry of a ref, or None if there is no such ref.

        Raises:
            StoreError: The stored document is not valid.
        """
        document, _ = self._read(name)
        return document.current if document is not None else None

    def history(self, name: str) -> tuple[Ref, ...]:
        """Return all entries of a ref, oldest first; the last one is the present one.

        Raises:
            StoreError: The stored document is not valid.
        """
        document, _ = self._read(name)
        return document.entries if document is not None else ()

    def set(
        self,
        name: str,
        target: Manifest | Ref,
        *,
        expected: Ref | None,
        reason: str,
        suspect: str | None = None,
    ) -> Ref:
        """Point a ref to an artifact, if it still is where the caller saw it.

        Args:
            name: The ref.
            target: The manifest of the artifact; or an entry that points to it, for when the
                manifest itself is damaged.
            expected: The entry that the caller saw.
            reason: Why the ref moves.
            suspect: Why the target is in doubt.

        Returns:
            The new entry.

        Raises:
            RefConflictError: The ref is not at `expected`.
            StoreError: The stored document is not valid, or one of the texts is empty.
        """
        present, version = self._read(name)
        document = next_document(
            name, present, target, expected=expected, reason=reason, suspect=suspect
        )
        if not self._documents.write(_path(name), document.encode(), expected=version):
            raise _moved(name)
        return document.current

    def follow(self, name: str, entries: Sequence[Ref]) -> bool:
        """Continue the history of a ref with that of the same ref in another store.

        Args:
            name: The ref.
            entries: All entries of the other store's ref, oldest first, and at least one.

        Returns:
            Whether there were new ones. A ref that has gone on here stays as it is.

        Raises:
            RefConflictError: Both have gone on, or another writer moves the ref.
            StoreError: The stored document is not valid.
        """
        present, version = self._read(name)
        here = present.entries if present is not None else ()
        if here[: len(entries)] == tuple(entries):
            return False
        if here != tuple(entries[: len(here)]):
            raise RefConflictError(
                f"ref {name!r} is at {_describe(here[-1])}, and the histories of both stores "
                f"differ: to replace it, remove refs/{name}.json there, then push again"
            )
        document = RefDocument(**entries[-1].model_dump(), history=tuple(entries[:-1]))
        if not self._documents.write(_path(name), document.encode(), expected=version):
            raise _moved(name)
        return True

    def _read(self, name: str) -> tuple[RefDocument | None, str | Expected]:
        path = _path(name)
        try:
            stored = self._documents.read(path)
            if stored is None:
                return None, Expected.NOTHING
            return RefDocument.decode(stored.content), stored.version
        except StoreError as error:
            raise StoreError(f"ref {name!r} is not valid: {error}") from error


def _moved(name: str) -> RefConflictError:
    return RefConflictError(
        f"ref {name!r} was moved by another writer: read it again before you move it"
    )


def require_kind(name: str, current: Ref | None, kind: str) -> None:
    """Check that a ref may point to an artifact of a kind: what reads a ref expects one kind.

    Args:
        name: The ref.
        current: Its present entry.
        kind: The kind of the artifact.

    Raises:
        StoreError: It may not.
    """
    expected = KINDS.get(name) or (current.kind if current is not None else kind)
    if kind != expected:
        raise StoreError(
            f"ref {name!r} points to artifacts of kind {expected!r} only, not to {kind!r}"
        )


def former_target(history: Sequence[Ref]) -> Ref | None:
    """Return the newest entry whose target is not that of the last entry; None if there is none.

    Entries that only mark their target as suspect, or withdraw the mark, don't count as moves.
    """
    present = (history[-1].kind, history[-1].key)
    return next((ref for ref in reversed(history) if (ref.kind, ref.key) != present), None)


def next_document(
    name: str,
    present: RefDocument | None,
    target: Manifest | Ref,
    *,
    expected: Ref | None,
    reason: str,
    suspect: str | None,
) -> RefDocument:
    """Return the document of a ref after its move from the expected entry to the target.

    Raises:
        RefConflictError: The present entry is not the expected one.
        StoreError: `reason` or `suspect` is empty or not Unicode.
    """
    current = present.current if present is not None else None
    if current != expected:
        raise RefConflictError(
            f"ref {name!r} is at {_describe(current)}, expected {_describe(expected)}: "
            "read it again before you move it"
        )
    history = present.entries if present is not None else ()
    try:
        return RefDocument(
            version=len(history) + 1,
            id=uuid4().hex,
            kind=target.kind,
            key=target.key,
            digest=target.digest,
            reason=reason,
            suspect=suspect,
            time=datetime.now(UTC),
            history=history,
        )
    except ValidationError as error:
        raise StoreError(f"ref {name!r} can't be moved: {one_line(error)}") from error


def _path(name: str) -> str:
    try:
        _REF_NAME.validate_python(name)
    except ValidationError as error:
        raise StoreError(f"no ref can be called {name!r}: {one_line(error)}") from error
    return f"refs/{name}.json"


def _describe(ref: Ref | None) -> str:
    return "no entry" if ref is None else f"version {ref.version} ({ref.kind}/{ref.key})"
