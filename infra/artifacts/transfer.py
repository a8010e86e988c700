"""Artifacts out of a store: into a directory, or into another store."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from infra.artifacts.errors import DamagedArtifactError, StoreError
from infra.base.files import sha256_of
from infra.artifacts.pending import discard
from infra.artifacts.records import Artifact, Manifest
from infra.artifacts.store import ArtifactStore, require_same_digest


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
            if sha256_of(target) != entry.sha256:
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
