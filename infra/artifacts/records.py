"""The records of a store: what an artifact is made from, what it holds, what is wrong with it.

The key of an artifact is known before it is built (`ArtifactSpec.key`), its digest afterwards
(`Manifest.digest`). Both are sha256 over canonical JSON, so that any language can recompute them.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    FailFast,
    Field,
    JsonValue,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from infra.base.outcomes import UserError
from infra.base.records import (
    Record,
    SealedRecord,
    Sha256,
    canonical_json,
    one_line,
    sha256_of_json,
)


class StoreError(UserError):
    """The store can't do what was asked; the message says what was found and expected."""


class DamagedArtifactError(StoreError):
    """An artifact is there, but is not what its manifest says."""


class DigestConflictError(StoreError):
    """Two builds of one key gave different files."""


class RefConflictError(StoreError):
    """A ref moved since the caller read it."""


class LostLeaseError(OSError):
    """Another builder took the key over; what it commits will be found when this is tried again."""


MANIFEST = "manifest.json"

MAX_INPUTS = 1000

RESERVED_KINDS = {"refs"}  # shares the store's root with the kinds


def _has_canonical_json(value: Any) -> Any:
    canonical_json(value)
    return value


def _has_few_entries(value: Any) -> Any:
    if isinstance(value, dict) and len(value) > MAX_INPUTS:
        raise ValueError(f"has {len(value)} entries, expected at most {MAX_INPUTS}")
    return value


def _not_reserved(kind: str) -> str:
    if kind in RESERVED_KINDS:
        raise ValueError(f"{kind!r} is reserved by the layout of the store")
    return kind


def _stays_inside(path: str) -> str:
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or str(pure) != path or path == ".":
        raise ValueError(f"{path!r} is not a plain relative POSIX path")
    if "\\" in path or not path.isprintable():
        raise ValueError(f"{path!r} has a backslash or characters that don't print")
    if path == MANIFEST:
        raise ValueError(f"{path!r} is the store's own file")
    return path


Kind = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z][a-z0-9-]*$", max_length=64),
    AfterValidator(_not_reserved),
]

Count = Annotated[int, Field(ge=0, lt=2**63)]

Version = Annotated[int, Field(ge=1, lt=2**63)]

FilePath = Annotated[str, AfterValidator(_stays_inside)]

# Counted first, as each wrong entry costs a kilobyte of complaint.
Digests = Annotated[
    dict[str, Sha256], BeforeValidator(_has_few_entries), AfterValidator(_has_canonical_json)
]

JsonObject = Annotated[dict[str, JsonValue], AfterValidator(_has_canonical_json)]

_ADDRESS = TypeAdapter(tuple[Kind, Sha256])


def check_address(kind: str, key: str) -> None:
    """Refuse a kind or a key that can't name an artifact.

    Raises:
        StoreError: one of them has the wrong form.
    """
    try:
        _ADDRESS.validate_python((kind, key))
    except ValidationError as error:
        raise StoreError(
            f"no artifact can be called {f'{kind}/{key}'!r}: {one_line(error)}"
        ) from error


def is_address(kind: str, key: str) -> bool:
    """Tell whether a kind and a key can name an artifact."""
    try:
        check_address(kind, key)
    except StoreError:
        return False
    return True


class ArtifactSpec(Record, strict=True):
    """What an artifact is made from: all that may change its content, and nothing else."""

    kind: Kind
    """The stage's output, such as ``shards`` or ``checkpoint``."""
    format_version: Version
    """Raised when the code that builds this kind gives other files for the same params."""
    params: JsonObject
    inputs: Digests
    """Name of each input artifact → its digest."""

    @property
    def key(self) -> str:
        """The name of the artifact in the store."""
        return sha256_of_json(self.model_dump(mode="json"))


class FileEntry(Record, strict=True):
    """One file of an artifact."""

    path: FilePath
    """Relative to the artifact's directory."""
    size: Count
    """Bytes."""
    sha256: Sha256


class Manifest(SealedRecord):
    """An artifact's own description; it is valid only if its key and digest can be recomputed."""

    kind: Kind
    key: Sha256
    format_version: Version
    params: JsonObject
    inputs: Digests
    files: Annotated[tuple[FileEntry, ...], FailFast()]
    """Sorted by path."""
    digest: Sha256
    """sha256 over the canonical JSON of the list of ``[path, size, sha256]``, sorted."""
    stats: JsonObject
    """Counts and measures of the content."""
    provenance: JsonObject
    """Times, versions and host of the build: all that a second build may give differently."""

    @classmethod
    def describe(
        cls,
        spec: ArtifactSpec,
        files: Iterable[FileEntry],
        *,
        stats: Mapping[str, JsonValue],
        provenance: Mapping[str, JsonValue],
    ) -> Self:
        """Return the manifest of a spec's files.

        Raises:
            StoreError: stats or provenance is not JSON.
        """
        entries = tuple(sorted(files, key=lambda entry: entry.path))
        try:
            return cls(
                key=spec.key,
                files=entries,
                digest=_digest(entries),
                stats=dict(stats),
                provenance=dict(provenance),
                **spec.model_dump(),
            )
        except ValidationError as error:
            raise StoreError(
                f"no manifest for {spec.kind}/{spec.key}: {one_line(error)}"
            ) from error

    @property
    def spec(self) -> ArtifactSpec:
        """What the artifact was made from."""
        return ArtifactSpec(
            kind=self.kind,
            format_version=self.format_version,
            params=self.params,
            inputs=self.inputs,
        )

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        paths = [entry.path for entry in self.files]
        if paths != sorted(set(paths)):
            raise ValueError("files are not sorted by path, each named once")
        if self.key != (key := self.spec.key):
            raise ValueError(f"key is {self.key}, but kind, params and inputs give {key}")
        if self.digest != (digest := _digest(self.files)):
            raise ValueError(f"digest is {self.digest}, but the files give {digest}")
        return self


def _digest(files: Iterable[FileEntry]) -> str:
    return sha256_of_json(sorted([entry.path, entry.size, entry.sha256] for entry in files))


class Damage(Record, strict=True):
    """One way in which an artifact is not what its manifest says."""

    problem: Literal["manifest", "missing", "extra", "type", "size", "sha256"]
    path: str
    """Relative to the artifact's directory; ``.`` is the directory itself."""
    detail: str
    """What was found and expected, in one line."""

    def __str__(self) -> str:
        return f"{self.path!r}: {self.problem}: {self.detail}"


class DamageReport(Record, strict=True):
    """What is kept beside an artifact that has been set aside."""

    kind: str
    key: str
    damages: tuple[Damage, ...]


@dataclass(frozen=True)
class Artifact:
    """An immutable set of files, which come to this host when they are asked for."""

    manifest: Manifest
    bring: Callable[[tuple[FileEntry, ...]], Path] = field(compare=False, repr=False)
    """Has these files here, as the manifest describes them, and tells in which directory."""

    @property
    def digest(self) -> str:
        """The identity of the content: what a dependent artifact's spec names as its input."""
        return self.manifest.digest

    @property
    def directory(self) -> Path:
        """Where all of its files are."""
        return self.bring(self.manifest.files)

    def path(self, name: str) -> Path:
        """Return where the file of this name is, without bringing the others.

        Raises:
            StoreError: the artifact has no such file.
        """
        wanted = tuple(entry for entry in self.manifest.files if entry.path == name)
        if not wanted:
            raise StoreError(
                f"{self.manifest.kind}/{self.manifest.key} has no file {name!r}; "
                f"its manifest lists {len(self.manifest.files)} others"
            )
        return self.bring(wanted) / name
