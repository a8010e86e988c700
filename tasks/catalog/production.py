"""Production: the checkpoint in use, its evaluations, and the decisions about it."""

import hashlib
import json
import platform
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from pydantic import JsonValue

from infra.artifacts import (
    Artifact,
    ArtifactSpec,
    ArtifactStore,
    DamagedArtifactError,
    Manifest,
    Ref,
    RefConflictError,
    StoreError,
    open_store,
)
from infra.base.records import Record
from sknet.data.sources import TEST
from sknet.data.staging import read_staged
from sknet.errors import UserError
from sknet.evaluation.predictions import read_predictions
from sknet.judgement import Candidate, Production, was_rolled_back
from sknet.records import (
    Checkpoint,
    CheckpointChecks,
    Evaluation,
    Promotion,
    Revalidation,
    SealedResult,
    Shards,
)
from sknet.records.data import SHARDS_FILE
from sknet.records.evaluation import CHECKS_FILE, EVALUATION_FILE, PREDICTIONS_FILE
from sknet.records.training import STATE_FILE

PRODUCTION = "production"
"""Name of the ref that points to the checkpoint in use."""

PROMOTION_FILE = "promotion.json"

EVALUATION_FORMAT = 4
"""Format of evaluation artifacts: format 3 counts by class, and has tables of the classes; format 4
has a calibration."""

COMPARABLE_FORMATS = (2, 3, EVALUATION_FORMAT)
"""Formats of evaluations that are read: they have checks, predictions, attention and examples."""

MAX_CONFLICTS = 5
"""How often a move of the ref is tried while other processes move it too."""


def promoted(store_uri: str) -> Ref:
    """Return where `refs/production` points.

    Raises:
        StoreError: There is no such store, nothing was promoted in it yet, or the ref points to
            something else than a checkpoint.
    """
    ref = open_store(store_uri, create=False).refs.get(PRODUCTION)
    if ref is None:
        raise StoreError(
            f"{store_uri} has no refs/{PRODUCTION}.json: run train-sknet until it promotes one"
        )
    if ref.kind != "checkpoint":
        raise StoreError(
            f"refs/{PRODUCTION} of {store_uri} points to {ref.kind}/{ref.key}, expected a "
            f"checkpoint: `refs set {PRODUCTION} checkpoint/KEY --reason …` points it to one"
        )
    return ref


def mark_production(store: ArtifactStore, ref: Ref, *, suspect: str | None, reason: str) -> bool:
    """Mark production as suspect, or take the mark away. The ref never moves.

    Args:
        store: The store of the ref.
        ref: The entry that was checked.
        suspect: What is wrong with the checkpoint; None if nothing is.
        reason: Why the mark changes.

    Returns:
        False if production has moved to another checkpoint meanwhile, which is not marked.

    Raises:
        RefConflictError: Other processes keep moving the ref.
    """
    for _ in range(MAX_CONFLICTS):
        current = store.refs.get(PRODUCTION)
        if current is None or (current.kind, current.key) != (ref.kind, ref.key):
            return False
        if current.suspect == suspect:
            return True
        try:
            store.refs.set(PRODUCTION, current, expected=current, reason=reason, suspect=suspect)
        except RefConflictError:
            continue
        return True
    raise RefConflictError(f"refs/{PRODUCTION} moved {MAX_CONFLICTS} times while it was marked")


def evaluation_spec(checkpoint: str, shards: str, device_target: str) -> ArtifactSpec:
    """Return the spec of a checkpoint's evaluation with the software of this host.

    Args:
        checkpoint: Digest of the checkpoint.
        shards: Digest of the shards that it was trained on.
        device_target: CPU or Ascend.
    """
    return ArtifactSpec(
        kind="evaluation",
        format_version=EVALUATION_FORMAT,
        params=software(device_target),
        inputs={"checkpoint": checkpoint, "shards": shards},
    )


def comparison_spec(checkpoint: str, shards: str, device_target: str) -> ArtifactSpec:
    """Return the spec of a checkpoint's evaluation on shards that it was not trained on."""
    return ArtifactSpec(
        kind="comparison",
        format_version=2,
        params=software(device_target),
        inputs={"checkpoint": checkpoint, "shards": shards},
    )


@dataclass(frozen=True)
class SealedSplit:
    """The test split of a checkpoint's data, which only a promotion evaluates."""

    spec: ArtifactSpec
    """Spec of the evaluation."""
    other_looks: int
    """How many other evaluations of these samples the store has."""

    def result(self, evaluation: Artifact) -> SealedResult:
        """Return the record of the evaluation."""
        counts = Evaluation.read(evaluation.path(EVALUATION_FILE))
        return SealedResult(evaluation=counts, looks=self.other_looks + 1)


def sealed_split(
    store: ArtifactStore, checkpoint: str, shards: Artifact, device_target: str
) -> SealedSplit | None:
    """Return the sealed test split of shards; None if they have none.

    Its evaluations are artifacts of kind `test-evaluation`. They name a digest of the test images
    and their labels, and count as looks at these, whatever else of the data has changed.

    Args:
        store: The store of the shards and their data set.
        checkpoint: Digest of the checkpoint.
        shards: The shards that it was trained on.
        device_target: CPU or Ascend.

    Raises:
        StoreError: The data set of the shards isn't in the store any more.
    """
    if not Shards.read(shards.path(SHARDS_FILE)).num_samples(TEST):
        return None
    staged = read_staged(store.find("dataset", shards.manifest.made_from("dataset")).directory)
    test = staged.index[staged.index["split"] == TEST]
    images = sorted(zip(test["sha256"].tolist(), test["label"].tolist(), strict=True))
    samples = hashlib.sha256(json.dumps(images).encode()).hexdigest()
    spec = ArtifactSpec(
        kind="test-evaluation",
        format_version=1,
        params={**software(device_target), "samples": samples},
        inputs={"checkpoint": checkpoint, "shards": shards.digest},
    )
    others = [
        manifest
        for manifest in store.list(spec.kind)
        if manifest.params.get("samples") == samples and manifest.key != spec.key
    ]
    return SealedSplit(spec, len(others))


def software(device_target: str) -> dict[str, JsonValue]:
    """Return the device and the versions that may change the files of an evaluation."""
    packages = ("mindspore", "numpy", "pillow", "pyarrow")
    return {"device_target": device_target, **{name: version(name) for name in packages}}


def processor(device_target: str) -> str:
    """Return the name of this host's kind of processor.

    Another kind may round differently. It is no part of any key.
    """
    if device_target != "CPU":
        return device_target
    lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def candidate_of(
    store: ArtifactStore, checkpoint: str, evaluation: Artifact, history: Sequence[Ref]
) -> Candidate:
    """Return a checkpoint as a candidate for production.

    Args:
        store: The store of its shards.
        checkpoint: Digest of the checkpoint.
        evaluation: Its evaluation.
        history: All entries of `refs/production`, oldest first.

    Raises:
        StoreError: The shards aren't in the store any more.
    """
    checks = CheckpointChecks.read(evaluation.path(CHECKS_FILE))
    shards = store.find("shards", evaluation.manifest.made_from("shards"))
    dataset = Shards.read(shards.path(SHARDS_FILE)).dataset
    return Candidate(
        checkpoint=checkpoint,
        classes=dataset.classes,
        titles=dataset.titles,
        checks=checks,
        evaluation=Evaluation.read(evaluation.path(EVALUATION_FILE)) if checks.passed else None,
        predictions=read_predictions(evaluation.path(PREDICTIONS_FILE)) if checks.passed else None,
        rolled_back=was_rolled_back([entry.digest for entry in history], checkpoint),
    )


@dataclass(frozen=True)
class ComparedProduction:
    """Production, as a candidate is compared with it."""

    production: Production
    evaluation: Manifest | None
    """Manifest of the artifact with production's predictions; None if it can't be compared."""


def production_of(
    store: ArtifactStore,
    ref: Ref,
    candidate: Manifest,
    classes: tuple[str, ...],
    *,
    evaluate: Callable[[Artifact, Checkpoint, Artifact], Artifact],
    warn: Callable[[str], None],
) -> ComparedProduction:
    """Return production with its predictions of the samples that a candidate was evaluated on.

    If it can't be compared, the result says why.

    Args:
        store: The store of both.
        ref: The present entry of `refs/production`.
        candidate: Manifest of the candidate's evaluation.
        classes: The candidate's classes.
        evaluate: Evaluates a checkpoint, with its state, on shards; called if production was never
            evaluated on the candidate's. Raises UserError if that is not possible.
        warn: Called with one line for each recorded evaluation that is damaged.
    """

    def not_compared(own_classes: tuple[str, ...] | None, reason: str) -> ComparedProduction:
        known = Production(ref.digest, own_classes, None, reason, ref.suspect)
        return ComparedProduction(known, None)

    try:
        checkpoint = store.load(ref.kind, ref.key)
        state = Checkpoint.read(checkpoint.path(STATE_FILE))
    except UserError as error:
        return not_compared(None, f"production's checkpoint can't be read: {error}")
    if state.run.classes != classes:
        return not_compared(state.run.classes, "production has other classes")
    try:
        evaluation = _intact_evaluation(store, ref, candidate, warn)
        if evaluation is None:
            shards = store.find("shards", candidate.made_from("shards"))
            evaluation = evaluate(checkpoint, state, shards)
        predictions = read_predictions(evaluation.path(PREDICTIONS_FILE))
    except UserError as error:
        return not_compared(classes, f"production can't be evaluated on these samples: {error}")
    known = Production(ref.digest, classes, predictions, "", ref.suspect)
    return ComparedProduction(known, evaluation.manifest)


def _intact_evaluation(
    store: ArtifactStore, ref: Ref, candidate: Manifest, warn: Callable[[str], None]
) -> Artifact | None:
    """Return an evaluation of production on the candidate's shards, if an undamaged one is stored.

    One with the candidate's software comes first.
    """
    inputs = {"checkpoint": ref.digest, "shards": candidate.made_from("shards")}
    manifests = [
        manifest
        for manifest in store.list("evaluation")
        if manifest.inputs == inputs
        and manifest.format_version in COMPARABLE_FORMATS
        and PREDICTIONS_FILE in {entry.path for entry in manifest.files}
    ]
    for manifest in sorted(manifests, key=lambda each: each.params != candidate.params):
        try:
            return store.load("evaluation", manifest.key, level="full")
        except DamagedArtifactError as error:
            warn(f"a recorded evaluation of production is not used: {error}")
    return None


def put_promotion(
    store: ArtifactStore, promotion: Promotion, candidate: Manifest, production: Manifest | None
) -> Artifact:
    """Store the decision about a candidate, whether it was granted or refused, and return it.

    Args:
        store: Where to.
        promotion: The decision.
        candidate: Manifest of the candidate's evaluation.
        production: Manifest of the evaluation that it was compared with.
    """
    spec = ArtifactSpec(
        kind="promotion",
        format_version=2,
        params={
            "checkpoint": promotion.candidate,
            "evaluation": candidate.key,
            "granted": promotion.granted,
            "floor": promotion.floor,
            "significance": promotion.significance,
            # The same decision may have another text if something couldn't be read.
            "record": promotion.content_digest,
        },
        inputs={
            "candidate": candidate.digest,
            **({"production": production.digest} if production else {}),
        },
    )
    return _put_record(store, spec, promotion, PROMOTION_FILE)


def put_revalidation(store: ArtifactStore, found: Revalidation) -> None:
    """Store what a revalidation found."""
    spec = ArtifactSpec(
        kind="revalidation",
        format_version=1,
        params={"checkpoint": found.checkpoint, "began": found.began.isoformat()},
        inputs={},
    )
    _put_record(store, spec, found, "revalidation.json")


def revalidation_since(store: ArtifactStore, time: datetime) -> Manifest | None:
    """Return the newest revalidation that began at a time or later; None if there is none."""
    later = [
        manifest
        for manifest in store.list("revalidation")
        if datetime.fromisoformat(str(manifest.made_with("began"))) >= time
    ]
    return max(later, key=lambda manifest: str(manifest.made_with("began")), default=None)


def created_at(manifest: Manifest) -> str:
    """Return when an artifact was made, as an ISO time; empty if its manifest doesn't tell."""
    return str(manifest.provenance.get("created", ""))


def newest(manifests: Iterable[Manifest]) -> Manifest | None:
    """Return the artifact that was made last; None if there is none."""
    return max(manifests, key=created_at, default=None)


def _put_record(store: ArtifactStore, spec: ArtifactSpec, record: Record, name: str) -> Artifact:
    """Commit a record as the only file of an artifact."""
    with tempfile.TemporaryDirectory(prefix=f"{spec.kind}-") as directory:
        record.write(Path(directory) / name)
        created = datetime.now(UTC).isoformat(timespec="seconds")
        return store.put(spec, Path(directory), stats={}, provenance={"created": created})
