"""Copies artifacts out of a store: into a directory, or into another store."""

import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from uuid import uuid4

from infra.artifacts.documents import StoreError
from infra.artifacts.records import (
    Artifact,
    DamagedArtifactError,
    DigestConflictError,
    Manifest,
    RefConflictError,
)
from infra.artifacts.resolution import discard
from infra.artifacts.store import ArtifactStore, require_same_digest
from infra.base.files import file_sha256

NOT_MOVED = "not moved"
"""Begins the outcome of a ref that points elsewhere in both stores."""


def copy_files(artifact: Artifact, directory: Path) -> None:
    """Copy an artifact's files into a new or empty directory, verified: all of them, or none.

    Raises:
        DamagedArtifactError: A copy differs from the manifest.
        StoreError: The directory isn't empty, or isn't a directory.
    """
    if directory.exists() and not (directory.is_dir() and not any(directory.iterdir())):
        raise StoreError(f"{str(directory)!r} is there and not empty, expected a new directory")
    directory.parent.mkdir(parents=True, exist_ok=True)
    copy = directory.absolute().with_name(f".{directory.absolute().name}.{uuid4()}")
    try:
        with artifact.manifest.work("copying") as count:
            for entry in artifact.manifest.files:
                target = copy / entry.path
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(artifact.path(entry.path), target)
                if file_sha256(target, count) != entry.sha256:
                    raise DamagedArtifactError(
                        f"{artifact.manifest.kind}/{artifact.manifest.key} is damaged: "
                        f"{entry.path!r} isn't what its sha256 says; `repair` sets it aside"
                    )
        copy.rename(directory)
    except BaseException:
        shutil.rmtree(copy, ignore_errors=True)
        raise


def push(source: ArtifactStore, manifest: Manifest, target: ArtifactStore) -> bool:
    """Copy an artifact to another store, unless it is there.

    The manifest stays the same, to the byte.

    Returns:
        Whether it has been copied.

    Raises:
        DigestConflictError: The other store has its key with another digest.
        DamagedArtifactError: It is damaged in its own store.
    """
    with target.workspace(manifest.spec) as workspace:
        present = target.get(manifest.spec)
        if present is None:
            discard(workspace)
            copy_files(source.load(manifest.kind, manifest.key), workspace / "out")
            target.commit(manifest, workspace / "out")
        else:
            require_same_digest(present.manifest, manifest)
        discard(workspace)
    return present is None


def push_refs(
    source: ArtifactStore, pushed: Collection[Manifest], target: ArtifactStore
) -> dict[str, str]:
    """Copy the refs that point to pushed artifacts, with their histories, to another store.

    There they protect the artifacts from garbage collection. A ref that has moved on there stays.

    Returns:
        Name of each ref → what became of it.
    """
    targets = {(manifest.kind, manifest.key) for manifest in pushed}
    outcomes = {}
    for name in source.refs.names():
        entries = source.refs.history(name)
        if not entries or (entries[-1].kind, entries[-1].key) not in targets:
            continue
        try:
            moved = target.refs.follow(name, entries)
        except RefConflictError as error:
            outcomes[name] = f"{NOT_MOVED}: {error}"
            continue
        is_same = target.refs.get(name) == entries[-1]
        outcomes[name] = "pushed" if moved else "was there" if is_same else "is newer there"
    return outcomes


def with_inputs(store: ArtifactStore, manifest: Manifest) -> Iterator[Manifest]:
    """Yield the artifacts that an artifact was made from, each after its inputs; then itself.

    Raises:
        StoreError: One of them isn't in the store.
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
    """Commit a copy of a damaged or missing artifact, after setting the damaged one aside.

    The copy is read whole before anything in the store changes. An artifact that isn't damaged
    stays.

    Args:
        store: Where the artifact is damaged or missing.
        copy: The same artifact in another store.
        digest: The digest that the artifact should have.

    Raises:
        DigestConflictError: The copy, or an undamaged artifact in the store, has another digest.
        DamagedArtifactError: The copy is damaged too.
    """
    manifest = copy.manifest
    if manifest.digest != digest:
        raise DigestConflictError(
            f"the copy of {manifest.kind}/{manifest.key} has digest {manifest.digest}, "
            f"expected {digest}"
        )
    with store.workspace(manifest.spec) as workspace:
        discard(workspace)
        copy_files(copy, workspace / "out")
        if (manifest.kind, manifest.key) in store.addresses(manifest.kind):
            store.set_aside(manifest.kind, manifest.key, level="full")
        replaced = store.commit(manifest, workspace / "out")
        discard(workspace)
    return replaced
