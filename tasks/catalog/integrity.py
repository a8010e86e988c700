"""Is an artifact still what it was, to the byte? And where it isn't: a sound copy in its place."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from infra.artifacts import (
    Artifact,
    ArtifactStore,
    Manifest,
    StoreError,
    replace_damaged,
)
from sknet.records import Repair
from tasks.results import FAILURES, LostWorkerError


@dataclass(frozen=True)
class Wanted:
    """An artifact as it is referred to."""

    kind: str
    digest: str
    key: str | None = None
    """None if all that knows it is a manifest that can't be read."""

    def __str__(self) -> str:
        return f"{self.kind}/{self.key}" if self.key else f"{self.kind} with digest {self.digest}"


@dataclass(frozen=True)
class Source:
    """Where a sound copy may come from."""

    how: Literal["fetched", "rebuilt"]
    name: str
    copy: Callable[[Wanted], Artifact]
    """Raises StoreError, or what a stage raises, if there is none."""


@dataclass(frozen=True)
class Examined:
    """What was wrong with an artifact, and whether it still is."""

    artifact: Artifact | None
    """Sound by now; None if it couldn't be repaired."""
    damages: tuple[str, ...] = ()
    """What is wrong still, and why it couldn't be repaired."""
    repairs: tuple[Repair, ...] = ()


def examine(store: ArtifactStore, wanted: Wanted, sources: Sequence[Source]) -> Examined:
    """Read every byte of an artifact, and of what this host has copied of it; repair what it can.

    Sources are tried in their order, and only if something is wrong.
    """
    damages = damages_of(store, wanted)
    repairs = []
    if wanted.key and not damages:
        artifact = store.load(wanted.kind, wanted.key)
    else:
        unrepaired = list(damages)
        for source in sources:
            try:
                artifact = replace_damaged(store, source.copy(wanted), digest=wanted.digest)
            except (*FAILURES, LostWorkerError, OSError) as error:
                unrepaired.append(f"{wanted}: not from {source.name}: {error}")
                continue
            name = f"{artifact.manifest.kind}/{artifact.manifest.key}"
            repairs.append(Repair(artifact=name, how=source.how, damages=damages))
            break
        else:
            return Examined(None, tuple(unrepaired))
    if copies := store.check_copies(artifact):
        found = tuple(f"this host's copy of {wanted}: {damage}" for damage in copies)
        repairs.append(Repair(artifact=str(wanted), how="fetched", damages=found))
    return Examined(artifact, (), tuple(repairs))


def damages_of(store: ArtifactStore, wanted: Wanted) -> tuple[str, ...]:
    """All that is wrong with an artifact in its store."""
    if wanted.key is None:
        return (f"no {wanted} can be read in the store",)
    try:
        damages = store.verify(wanted.kind, wanted.key, level="full")
    except StoreError as error:
        return (f"{wanted}: {error}",)
    if damages:
        return tuple(f"{wanted}: {damage}" for damage in damages)
    found = store.load(wanted.kind, wanted.key).digest
    if found != wanted.digest:
        return (f"{wanted}: digest is {found}, expected {wanted.digest}",)
    return ()


def locate(store: ArtifactStore, kind: str, digest: str) -> Wanted:
    """An artifact by its digest, damaged files or not, as long as its manifest can be read."""
    keys = (manifest.key for manifest in store.list(kind) if manifest.digest == digest)
    return Wanted(kind, digest, next(keys, None))


def copy_in(store: ArtifactStore, wanted: Wanted) -> Artifact:
    """The artifact in another store. Raises StoreError if it isn't there."""
    if wanted.key is None:
        return store.find(wanted.kind, wanted.digest)
    return store.load(wanted.kind, wanted.key)


def manifest_of(store: ArtifactStore, wanted: Wanted) -> Manifest | None:
    """What an artifact was made from, if that can still be read."""
    found = (manifest for manifest in store.list(wanted.kind) if manifest.key == wanted.key)
    return next(found, None)
