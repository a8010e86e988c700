"""The evaluation by which a promoted checkpoint is measured, and the nights that did so."""

from datetime import datetime

from infra.artifacts import ArtifactStore, Manifest, Ref
from tasks.validate import EVALUATION_FORMAT
from tasks.catalog.integrity import Wanted


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
