"""A sound copy in the place of an artifact that is damaged or gone."""

from infra.artifacts.errors import DigestConflictError
from infra.artifacts.pending import discard
from infra.artifacts.records import Artifact
from infra.artifacts.store import ArtifactStore
from infra.artifacts.transfer import fetch


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
