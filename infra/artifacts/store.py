"""What every artifact store does, wherever its files live."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path

from pydantic import JsonValue

from infra.artifacts.inspection import Level
from infra.artifacts.records import (
    Artifact,
    ArtifactSpec,
    Damage,
    DigestConflictError,
    Manifest,
    StoreError,
    check_address,
    is_address,
)
from infra.artifacts.refs import Refs
from infra.artifacts.staging import describe, gather


@dataclass(frozen=True)
class Lookup:
    """What a store found under a key."""

    artifact: Artifact | None
    damages: tuple[Damage, ...] = ()
    """Why what was there has been set aside."""


@dataclass(frozen=True)
class Build:
    """What somebody is building now."""

    kind: str
    key: str
    inputs: Mapping[str, str]
    """Name of each input artifact → its digest."""


@dataclass(frozen=True)
class Leftover:
    """What a dead process or a repair has left in a store beside its artifacts."""

    name: str
    """Where it is, in the store's own terms."""
    num_bytes: int
    reason: str


class ArtifactStore(ABC):
    """Immutable artifacts under ``<kind>/<key>``, and refs that point to them.

    Artifacts are handed out with what they hold; their files come to this host when asked for.
    """

    @property
    @abstractmethod
    def refs(self) -> Refs:
        """The named pointers of this store."""

    @abstractmethod
    def lookup(self, spec: ArtifactSpec, *, level: Level = "size") -> Lookup:
        """Find a sound artifact; a damaged one is set aside, and is absent from then on."""

    def get(self, spec: ArtifactSpec, *, level: Level = "size") -> Artifact | None:
        """Return the sound artifact of a spec, or None; like `lookup`, set damaged ones aside."""
        return self.lookup(spec, level=level).artifact

    @abstractmethod
    def load(self, kind: str, key: str, *, level: Level = "size") -> Artifact:
        """Return an artifact that has to be there, such as the one a ref points to.

        Raises:
            DamagedArtifactError: it is damaged; it stays where it is.
            StoreError: there is none, or kind or key has the wrong form.
        """

    def find(self, kind: str, digest: str) -> Artifact:
        """Return an artifact of a kind that has this digest.

        Costs one lookup, whatever else is in the store, unless the index has been lost.

        Raises:
            DamagedArtifactError: it is damaged; it stays where it is.
            StoreError: there is none.
        """
        check_address(kind, digest)
        key = self._indexed(kind, digest)
        if key is not None and is_address(kind, key) and self._has(kind, key):
            artifact = self.load(kind, key)
            if artifact.digest == digest:
                return artifact
        for manifest in self.list(kind):
            if manifest.digest == digest:
                self._index(manifest)
                return self.load(kind, manifest.key)
        raise StoreError(f"the store holds no {kind} with digest {digest}: run the pipeline again")

    @abstractmethod
    def _indexed(self, kind: str, digest: str) -> str | None:
        """Return the key that the index gives, a hint that nobody relies on."""

    @abstractmethod
    def _index(self, manifest: Manifest) -> None:
        """Write the index's entry."""

    @abstractmethod
    def _has(self, kind: str, key: str) -> bool:
        """Tell whether anything is there."""

    @abstractmethod
    def workspace(self, spec: ArtifactSpec) -> AbstractContextManager[Path]:
        """Hold the directory in which a spec is built, waiting for another builder to leave it.

        What is in it survives a crash, so that the next builder can go on from there.
        """

    @abstractmethod
    def keeping(self, spec: ArtifactSpec, directory: Path) -> AbstractContextManager[None]:
        """Keep what a build has finished so far where a builder on another host finds it.

        Meanwhile, whenever a directory has been renamed into `directory`, a part of the workspace,
        all that is in there is kept. The next holder of the workspace finds the newest of what is
        here and what was kept. No fault of the store disturbs the build.
        """

    def put(
        self,
        spec: ArtifactSpec,
        directory: Path,
        *,
        files: Iterable[str] | None = None,
        stats: Mapping[str, JsonValue],
        provenance: Mapping[str, JsonValue],
    ) -> Artifact:
        """Commit the files of a directory as the artifact of a spec: whole, or not at all.

        The files move into the store: once committed, they are gone from the directory. If the
        key is there already with the same digest, that artifact is returned.

        Args:
            spec: What the files were made from.
            directory: Where they are.
            files: Their paths in it; without, all of them.
            stats: Counts and measures of the content.
            provenance: Times, versions, host; never a secret.

        Raises:
            DigestConflictError: the key is there with another digest.
            StoreError: there is nothing to commit, or a symlink or special file, or a name that
                a manifest can't hold.
        """
        entries = describe(directory, gather(directory, files))
        manifest = Manifest.describe(spec, entries, stats=stats, provenance=provenance)
        return self.commit(manifest, directory)

    @abstractmethod
    def commit(self, manifest: Manifest, directory: Path) -> Artifact:
        """Commit the files of a directory that this manifest was made of just now; else as `put`.

        Raises:
            DigestConflictError: the key is there with another digest.
            StoreError: a file isn't any more what the manifest says.
        """

    @abstractmethod
    def verify(self, kind: str, key: str, *, level: Level = "full") -> tuple[Damage, ...]:
        """Return all that is wrong with an artifact, changing nothing of it.

        Raises:
            StoreError: there is none, or kind or key has the wrong form.
        """

    @abstractmethod
    def check_copies(self, artifact: Artifact) -> tuple[Damage, ...]:
        """Read whole what this host has copied of a remote store's artifact.

        A damaged copy is set aside and fetched again.

        Returns:
            What was wrong; nothing of a store that is read where it is.
        """

    @abstractmethod
    def addresses(self, kind: str | None = None) -> Iterator[tuple[str, str]]:
        """Yield kind and key of all that is in the store, sound or not, sorted."""

    @abstractmethod
    def list(self, kind: str | None = None) -> Iterator[Manifest]:
        """Yield the manifests sorted by kind and key; log a warning for each invalid one."""

    @abstractmethod
    def set_aside(self, kind: str, key: str, *, level: Level = "full") -> tuple[Damage, ...]:
        """Set an artifact aside if it is damaged, and return how.

        Raises:
            StoreError: there is none, or kind or key has the wrong form.
        """

    @abstractmethod
    def last_used(self, kind: str, key: str) -> datetime:
        """Return when an artifact was made, or last found by `lookup`: a run reused it then.

        `load` and `find` don't count, as reports look at whatever there is.

        Raises:
            StoreError: there is none.
        """

    @abstractmethod
    def held(self) -> Iterator[Build]:
        """Yield what living builders are building."""

    @abstractmethod
    def leftovers(self, unused_since: datetime) -> Iterator[Leftover]:
        """Yield commits of dead processes, and workspaces and damaged artifacts that are older."""

    @abstractmethod
    def remove(self, kind: str, key: str) -> None:
        """Remove an artifact; killed anywhere, it is whole or absent.

        Raises:
            StoreError: there is none, or kind or key has the wrong form.
        """

    @abstractmethod
    def clear(self, leftover: Leftover) -> None:
        """Remove what `leftovers` has named, unless somebody holds it by now."""


def require_same_digest(present: Manifest, other: Manifest) -> None:
    """Raise DigestConflictError, naming what differs, if two builds of a key differ."""
    if present.digest == other.digest:
        return
    differing = sorted({entry.path for entry in set(present.files) ^ set(other.files)})
    shown = ", ".join(map(repr, islice(differing, 3)))
    raise DigestConflictError(
        f"{present.kind}/{present.key} is in the store with digest {present.digest}, and was "
        f"built again with digest {other.digest}: {len(differing)} files differ, first {shown}"
    )
