"""The evaluation by which a promoted checkpoint is measured, and the nights that did so."""

import tempfile
from datetime import UTC, datetime
from pathlib import Path

from infra.artifacts import ArtifactSpec, ArtifactStore, Manifest, Ref
from sknet.records import Record
from tasks.catalog.integrity import Wanted
from tasks.validate import EVALUATION_FORMAT


def recorded_evaluation(store: ArtifactStore, ref: Ref, shards: str) -> Wanted | None:
    """The evaluation with which it was promoted; of what was promoted by hand, the oldest.

    Args:
        store: Where it is.
        ref: The promoted checkpoint.
        shards: Digest of those it was trained on.
    """
    promotions = [
        manifest
        for manifest in store.list("promotion")
        if manifest.params.get("checkpoint") == ref.digest and manifest.params.get("granted")
    ]
    if promotions:
        last = max(promotions, key=_created)
        return Wanted("evaluation", last.inputs["candidate"], str(last.params["evaluation"]))
    evaluations = [
        manifest
        for manifest in store.list("evaluation")
        if manifest.inputs == {"checkpoint": ref.digest, "shards": shards}
        and manifest.format_version == EVALUATION_FORMAT
    ]
    if not evaluations:
        return None
    first = min(evaluations, key=_created)
    return Wanted("evaluation", first.digest, first.key)


def night_since(store: ArtifactStore, scheduled: datetime) -> Manifest | None:
    """The newest night that began at a time or later."""
    nights = [
        manifest
        for manifest in store.list("revalidation")
        if datetime.fromisoformat(str(manifest.params["began"])) >= scheduled
    ]
    return max(nights, key=lambda manifest: str(manifest.params["began"]), default=None)


def _created(manifest: Manifest) -> str:
    return str(manifest.provenance.get("created", ""))


def put_record(store: ArtifactStore, spec: ArtifactSpec, record: Record, name: str) -> None:
    """Commit a record as the one file of an artifact."""
    with tempfile.TemporaryDirectory(prefix=f"{spec.kind}-") as place:
        record.write(Path(place) / name)
        created = datetime.now(UTC).isoformat(timespec="seconds")
        store.put(spec, Path(place), stats={}, provenance={"created": created})
