"""The records of a store: what an artifact is made from, what it holds, what is wrong with it.

The key of an artifact is known before it is built (`ArtifactSpec.key`), its digest afterwards
(`Manifest.digest`). Both are SHA-256 over canonical JSON, so that any language can recompute them.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self, TypeVar

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

from infra.artifacts.documents import (
    SealedRecord,
    StoreError,
    one_line,
)
from infra.base import progress
from infra.base.on_demand import Supplier
from infra.base.records import Record, Sha256, canonical_json, sha256_of_json

T = TypeVar("T")


class DamagedArtifactError(StoreError):
    """An artifact is in the store, but differs from its manifest."""


class UnreadableArtifactError(StoreError):
    """An artifact is in the store, but this user can't read it, so that nobody knows more of it."""


class DigestConflictError(StoreError):
    """Two builds of one key have different files."""


class RefConflictError(StoreError):
    """A ref has moved since the caller read it."""


class LostLeaseError(OSError):
    """Another builder has taken the key over. A retry will find what that builder commits."""


MANIFEST = "manifest.json"
MAX_INPUTS = 1000
RESERVED_KINDS = {"refs"}  # the directory of the refs lies beside those of the kinds

Address = tuple[str, str]
"""Kind and key."""


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
# Counted first, because pydantic's report of each wrong entry takes a kilobyte.
Digests = Annotated[
    dict[str, Sha256], BeforeValidator(_has_few_entries), AfterValidator(_has_canonical_json)
]
JsonObject = Annotated[dict[str, JsonValue], AfterValidator(_has_canonical_json)]

_ADDRESS = TypeAdapter(tuple[Kind, Sha256])


def check_address(kind: str, key: str) -> None:
    """Refuse a kind or a key that can't name an artifact.

    Raises:
        StoreError: One of them has the wrong form.
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
    """What sort of artifact it is, such as ``shards`` or ``checkpoint``."""
    format_version: Version
    """Raised whenever the code that builds this kind gives other files for the same params."""
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
    """Path relative to the artifact's directory."""
    size: Count
    """Size in bytes."""
    sha256: Sha256


class Manifest(SealedRecord):
    """The description of an artifact, valid only if key and digest follow from the other fields."""

    kind: Kind
    key: Sha256
    format_version: Version
    params: JsonObject
    inputs: Digests
    files: Annotated[tuple[FileEntry, ...], FailFast()]
    """Sorted by path."""
    digest: Sha256
    """SHA-256 of the canonical JSON of the sorted list of ``[path, size, sha256]``."""
    stats: JsonObject
    """Counts and measures of the content."""
    provenance: JsonObject
    """Times, versions and host of the build: all that may differ in a second build."""

    @classmethod
    def describe(
        cls,
        spec: ArtifactSpec,
        files: Iterable[FileEntry],
        *,
        stats: Mapping[str, JsonValue],
        provenance: Mapping[str, JsonValue],
    ) -> Self:
        """Return the manifest of the files that were built from a spec.

        Raises:
            StoreError: `stats` or `provenance` is not JSON.
        """
        entries = tuple(sorted(files, key=lambda entry: entry.path))
        try:
            return cls(
                key=spec.key,
                files=entries,
                digest=content_digest(entries),
                stats=dict(stats),
                provenance=dict(provenance),
                **spec.model_dump(),
            )
        except ValidationError as error:
            raise StoreError(
                f"no manifest for {spec.kind}/{spec.key}: {one_line(error)}"
            ) from error

    @property
    def num_bytes(self) -> int:
        """Total size of the artifact's files, without the manifest."""
        return sum(entry.size for entry in self.files)

    def made_from(self, name: str) -> str:
        """Return the digest of an input.

        Raises:
            StoreError: It names no such input: another program than the pipeline has made it.
        """
        return self._named(self.inputs, name)

    def made_with(self, name: str) -> JsonValue:
        """Return a parameter.

        Raises:
            StoreError: It names no such parameter: another program than the pipeline has made it.
        """
        return self._named(self.params, name)

    def _named(self, values: Mapping[str, T], name: str) -> T:
        if name not in values:
            raise StoreError(
                f"{self.kind}/{self.key} does not say its {name}: it is none of the pipeline's"
            )
        return values[name]

    def work(
        self, what: str, entries: Iterable[FileEntry] | None = None
    ) -> AbstractContextManager[progress.Count]:
        """Begin work on the bytes of files, by default all; see `infra.base.progress`."""
        files = self.files if entries is None else entries
        name = f"{what} {self.kind}/{self.key[:10]}"
        return progress.work(name, sum(entry.size for entry in files))

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
        if self.digest != (digest := content_digest(self.files)):
            raise ValueError(f"digest is {self.digest}, but the files give {digest}")
        return self


def content_digest(files: Iterable[FileEntry]) -> str:
    """Return the digest of an artifact with these files."""
    return sha256_of_json(sorted([entry.path, entry.size, entry.sha256] for entry in files))


class Damage(Record, strict=True):
    """One difference between an artifact and its manifest."""

    problem: Literal["manifest", "missing", "extra", "type", "size", "sha256", "unreadable"]
    """``unreadable`` says nothing about the artifact: this user may not read it, or the disk can't
    at the moment."""
    path: str
    """Path relative to the artifact's directory; ``.`` is the directory itself."""
    detail: str
    """What was found and what was expected, in one line."""

    def __str__(self) -> str:
        return f"{self.path!r}: {self.problem}: {self.detail}"


class DamageReport(Record, strict=True):
    """The report beside an artifact in quarantine."""

    kind: str
    key: str
    damages: tuple[Damage, ...]


@dataclass(frozen=True)
class Artifact:
    """An immutable set of files in a store. They are fetched to this host on demand."""

    manifest: Manifest
    fetch: Callable[[tuple[FileEntry, ...]], Path] = field(compare=False, repr=False)
    """Makes these files available on this host, verified, and returns their directory."""
    check_copies: Callable[[], tuple[Damage, ...]] = field(compare=False, repr=False)
    """Reads this host's copies of the files of a remote store, and fetches damaged ones again.
    Returns the damage found; none for a store whose files are read in place."""
    supplier: Callable[[Path, Collection[str]], Supplier] | None = field(
        default=None, compare=False, repr=False
    )
    """Returns what brings single files into a directory on demand, and leaves those of the given
    paths in this host's cache, too. None for a store whose files are read in place."""

    @property
    def digest(self) -> str:
        """The digest of the content, which the specs of dependent artifacts name as an input."""
        return self.manifest.digest

    @property
    def directory(self) -> Path:
        """The directory that holds all of its files."""
        return self.fetch(self.manifest.files)

    def path(self, name: str) -> Path:
        """Return the path of one file, without fetching the others.

        Raises:
            StoreError: The artifact has no such file.
        """
        wanted = tuple(entry for entry in self.manifest.files if entry.path == name)
        if not wanted:
            raise StoreError(
                f"{self.manifest.kind}/{self.manifest.key} has no file {name!r}; "
                f"its manifest lists {len(self.manifest.files)} others"
            )
        return self.fetch(wanted) / name
