"""Artifacts out of a store: into a directory, or into another store."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from infra.artifacts.records import (
    Artifact,
    DamagedArtifactError,
    DigestConflictError,
    Manifest,
    StoreError,
)
from infra.artifacts.resolution import discard
from infra.artifacts.store import ArtifactStore, require_same_digest
from infra.base.files import file_sha256


def fetch(artifact: Artifact, directory: Path) -> None:
    """Copy an artifact's files into a new or empty directory, which has all of them or none.

    Raises:
        DamagedArtifactError: a copy isn't what the manifest says.
        StoreError: the directory isn't empty, or no directory.
    """
    if directory.exists() and not (directory.is_dir() and not any(directory.iterdir())):
        raise StoreError(f"{str(directory)!r} is there and not empty, expected a new directory")
    directory.parent.mkdir(parents=True, exist_ok=True)
    copy = directory.absolute().with_name(f".{directory.absolute().name}.{uuid4()}")
    try:
        for entry in artifact.manifest.files:
            target = copy / entry.path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(artifact.path(entry.path), target)
            if file_sha256(target) != entry.sha256:
                raise DamagedArtifactError(
                    f"{artifact.manifest.kind}/{artifact.manifest.key} is damaged: "
                    f"{entry.path!r} isn't what its sha256 says; `repair` sets it aside"
                )
        copy.rename(directory)
    except BaseException:
        shutil.rmtree(copy, ignore_errors=True)
        raise


def push(source: ArtifactStore, manifest: Manifest, target: ArtifactStore) -> bool:
    """Commit an artifact to another store as it is, unless it is there.

    Returns:
        Whether it was not.

    Raises:
        DigestConflictError: it is there with another digest.
        DamagedArtifactError: it is damaged in its own store.
    """
    with target.workspace(manifest.spec) as workspace:
        present = target.get(manifest.spec)
        if present is None:
            discard(workspace)
            fetch(source.load(manifest.kind, manifest.key), workspace / "out")
            target.commit(manifest, workspace / "out")
        else:
            require_same_digest(present.manifest, manifest)
        discard(workspace)
    return present is None


def with_inputs(store: ArtifactStore, manifest: Manifest) -> Iterator[Manifest]:
    """Yield all that an artifact was made from, each after its own inputs, and the artifact last.

    Raises:
        StoreError: one of them isn't in the store.
    """
    by_digest = {stored.digest: stored for stored in store.list()}
    done: set[str] = set()

    def visit(each: Manifest) -> Iterator[Manifest]:
        for name, digest in each.inputs.items():
            if digest not in by_digest:
                raise StoreError(
                    f"{each.kind}/{each.key} was made from {name} with digest {digest}, "
                    "which is not in the store: push without inputs"
                )
            if digest not in done:
                yield from visit(by_digest[digest])
        done.add(each.digest)
        yield each

    yield from visit(manifest)


def replace_damaged(store: ArtifactStore, copy: Artifact, *, digest: str) -> Artifact:
    """Put a copy from elsewhere into a store, setting aside what is damaged under its key.

    The copy is read whole before anything in the store changes. A sound artifact stays.

    Args:
        store: Where the damaged artifact is, or was.
        copy: The same artifact, of another store.
        digest: What the artifact is known to have.

    Raises:
        DigestConflictError: the copy, or what is there soundly, has another digest.
        DamagedArtifactError: the copy is damaged too.
    """
    manifest = copy.manifest
    if manifest.digest != digest:
        raise DigestConflictError(
            f"the copy of {manifest.kind}/{manifest.key} has digest {manifest.digest}, "
            f"expected {digest}"
        )
    with store.workspace(manifest.spec) as workspace:
        discard(workspace)
        fetch(copy, workspace / "out")
        if (manifest.kind, manifest.key) in store.addresses(manifest.kind):
            store.set_aside(manifest.kind, manifest.key, level="full")
        replaced = store.commit(manifest, workspace / "out")
        discard(workspace)
    return replaced
