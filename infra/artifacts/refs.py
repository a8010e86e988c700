"""Refs: names that point to artifacts and move by compare-and-swap, with their history kept."""

from abc import ABC, abstractmethod
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

from infra.artifacts.records import Kind, Manifest, RefConflictError, StoreError, Version
from infra.base.records import Record, RecordError, SealedRecord, Sha256, one_line

Text = Annotated[str, StringConstraints(min_length=1)]
RefName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]

_REF_NAME = TypeAdapter(RefName)


def check_ref_name(name: str) -> None:
    """Refuse what can't name a ref.

    Raises:
        StoreError: the name has the wrong form.
    """
    try:
        _REF_NAME.validate_python(name)
    except ValidationError as error:
        raise StoreError(f"no ref can be called {name!r}: {one_line(error)}") from error


class Ref(Record, strict=True):
    """Where a name points, since when, and why."""

    version: Version
    id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    """Drawn for each move, so that a writer knows its own entry from another's equal one."""
    kind: Kind
    key: Sha256
    digest: Sha256
    reason: Text
    suspect: Text | None = None
    """Why what it points to is in doubt; None: nothing is known against it."""
    time: AwareDatetime


class RefDocument(SealedRecord, Ref):
    """A ref as stored: the present entry, and all former ones, oldest first."""

    history: Annotated[tuple[Ref, ...], FailFast()]

    @classmethod
    def parse(cls, name: str, document: bytes) -> Self:
        """Return a stored document.

        Raises:
            StoreError: it is not valid.
        """
        try:
            return cls.decode(document)
        except RecordError as error:
            raise StoreError(f"ref {name!r} is not valid: {error}") from error

    @property
    def current(self) -> Ref:
        """The present entry alone."""
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


def next_document(
    name: str,
    present: RefDocument | None,
    target: Manifest | Ref,
    *,
    expected: Ref | None,
    reason: str,
    suspect: str | None,
) -> RefDocument:
    """Return a ref's document after it has moved from the expected entry to the target.

    Raises:
        RefConflictError: the present entry is not the expected one.
        StoreError: the reason, or why it is suspect, is empty or not Unicode.
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


def former_target(history: Sequence[Ref]) -> Ref | None:
    """Return the newest entry that points elsewhere than the last one; None if there is none.

    Entries that only mark a target as suspect, or as sound again, are no move.
    """
    present = (history[-1].kind, history[-1].key)
    return next((ref for ref in reversed(history) if (ref.kind, ref.key) != present), None)


def _describe(ref: Ref | None) -> str:
    return "no entry" if ref is None else f"version {ref.version} ({ref.kind}/{ref.key})"


class Refs(ABC):
    """The named pointers of a store. Each method refuses an invalid name with StoreError."""

    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Return the names of all refs, sorted."""

    @abstractmethod
    def get(self, name: str) -> Ref | None:
        """Return where a name points, or None.

        Raises:
            StoreError: what is stored is not valid.
        """

    @abstractmethod
    def set(
        self,
        name: str,
        target: Manifest | Ref,
        *,
        expected: Ref | None,
        reason: str,
        suspect: str | None = None,
    ) -> Ref:
        """Point a name to an artifact, if it still is where the caller saw it.

        Args:
            name: Of the ref.
            target: The artifact's manifest; or an entry that points to it, as its manifest may be
                what is damaged.
            expected: The entry that the caller saw.
            reason: Why it moves.
            suspect: Why the target is in doubt.

        Raises:
            RefConflictError: the name is not at `expected`.
            StoreError: what is stored is not valid, or one of the texts is empty.
        """

    @abstractmethod
    def history(self, name: str) -> tuple[Ref, ...]:
        """Return all entries of a name, oldest first; the last one is the present one.

        Raises:
            StoreError: what is stored is not valid.
        """
