"""What a store offers those who predict or read reports without knowing stores.

The entry points `sknet.stores` of this project register these functions; see
`sknet.prediction.stores`.
"""

from pathlib import Path

from infra.artifacts import ArtifactStore, StoreError, default_store, open_store
from sknet.prediction.stores import StoredCheckpoint
from sknet.records.calibration import CALIBRATION_FILE
from sknet.records.evaluation import PREDICTIONS_FILE
from sknet.report import ReportContents
from tasks.catalog.production import newest
from tasks.catalog.runs import collect


def checkpoint(store_uri: str | None, ref: str) -> StoredCheckpoint:
    """Return the checkpoint to which a ref points, with its newest evaluation.

    Raises:
        StoreError: There is no such store or ref, it points to something else, or what it points
            to is damaged.
    """
    uri = store_uri or default_store()
    store = open_store(uri, create=False)
    found = store.refs.get(ref)
    if found is None:
        names = ", ".join(store.refs.names()) or "none yet: `sknet run` promotes a checkpoint"
        raise StoreError(f"store {uri} has no ref {ref!r}, expected one of its refs ({names})")
    if found.kind != "checkpoint":
        raise StoreError(f"ref {ref!r} of {uri} points to {found.kind}, expected a checkpoint")
    artifact = store.load(found.kind, found.key)
    return StoredCheckpoint(
        name=f"{found.kind}/{found.key}",
        directory=artifact.directory,
        evaluation=_evaluated(store, artifact.digest),
        suspect=found.suspect,
        shards=lambda: store.find("shards", artifact.manifest.made_from("shards")).directory,
    )


def _evaluated(store: ArtifactStore, digest: str) -> Path | None:
    manifests = [
        manifest
        for manifest in store.list("evaluation")
        if manifest.inputs.get("checkpoint") == digest
    ]
    # Evaluations of earlier versions have no calibration.
    for file in (CALIBRATION_FILE, PREDICTIONS_FILE):
        found = newest(each for each in manifests if file in {entry.path for entry in each.files})
        if found is not None:
            return store.load("evaluation", found.key).directory
    return None


def report(store_uri: str | None) -> ReportContents:
    """Return all that a report says of a store's runs.

    Raises:
        StoreError: There is no such store.
    """
    return collect(open_store(store_uri or default_store(), create=False))
