"""The nightly check of what was promoted: its bytes, then its counts, then what follows."""

import os
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from prefect import get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.context import FlowRunContext
from prefect.events import emit_event
from pydantic import AwareDatetime, BaseModel, ConfigDict

from infra.artifacts import (
    Artifact,
    ArtifactSpec,
    ArtifactStore,
    BuildOutput,
    Manifest,
    Ref,
    RefConflictError,
    StoreError,
    open_store,
    resolve,
)
from sknet.errors import UserError
from sknet.evaluation.predictions import read_predictions
from sknet.judgement import MAX_LISTED, EvaluationPair, judge_revalidation
from sknet.recipe import Recipe
from sknet.records import (
    Checkpoint,
    CheckpointChecks,
    Counts,
    Evaluation,
    Repair,
    Revalidation,
)
from sknet.records.evaluation import CHECKS_FILE, evaluation_file, predictions_file
from tasks.catalog.integrity import Examined, Source, Wanted, copy_in, examine, locate, manifest_of
from tasks.catalog.production import night_since, put_record, recorded_evaluation
from tasks.convert import ConversionSettings, convert, stage
from tasks.promote import MAX_RACES, PRODUCTION, promoted
from tasks.results import FAILURES, artifact_of, results_of, stage_task
from tasks.validate import evaluate_checkpoint, evaluation_spec, processor, software


def rebuild_shards(store: ArtifactStore, wanted: Wanted, data: str, scratch: Path) -> Artifact:
    """Stage and convert a source again, as the damaged shards were.

    Raises:
        StoreError: other shards came out, or the settings can't be read any more.
    """
    recorded = manifest_of(store, wanted)
    if recorded is None:
        raise StoreError("their manifest, which says how they were made, can't be read")
    settings = _settings(recorded)
    staged = stage(data, str(scratch), max_quarantine=1.0)
    shards = convert(data, staged, str(scratch), settings, os.cpu_count() or 1)
    (result,) = results_of(shards)
    rebuilt = artifact_of(open_store(str(scratch)), result)
    _require_same(rebuilt.manifest.spec, recorded.spec)
    return rebuilt


def rebuild_evaluation(
    wanted: Wanted, checkpoint: Artifact, shards: Artifact, scratch: Path
) -> Artifact:
    """Evaluate again, with the software that is here.

    Raises:
        StoreError: the damaged evaluation was made with other software.
    """
    run = Checkpoint.read(checkpoint.path("state.json")).run
    spec = evaluation_spec(checkpoint.digest, shards.digest, run.device_target)
    if spec.key != wanted.key:
        raise StoreError("it was made by other software or on another device than is here")

    def build(workspace: Path) -> BuildOutput:
        out = evaluate_checkpoint(run.recipe, checkpoint, shards, run.device_target, workspace)
        return BuildOutput(out, {}, {"processor": processor(run.device_target)})

    return resolve(open_store(str(scratch)), spec, build).artifact


def _settings(recorded: Manifest) -> ConversionSettings:
    """What the user had chosen; how many samples may be left out was judged then."""
    reencoding = recorded.params["reencoding"]
    chosen = {"shards": recorded.params["num_shards"], "max_quarantine": 1.0}
    if isinstance(reencoding, dict):
        chosen |= {name: reencoding[name] for name in ("shorter_side", "quality")}
    return ConversionSettings.model_validate(chosen)


def _require_same(found: ArtifactSpec, expected: ArtifactSpec) -> None:
    if found.inputs != expected.inputs:
        raise StoreError("the source holds other samples than they were made from")
    for name, value in expected.params.items():
        if found.params.get(name) != value:
            raise StoreError(f"{name} is {found.params.get(name)}, they were made with {value}")
    if found != expected:
        raise StoreError(
            f"their format is {expected.format_version}, this version writes {found.format_version}"
        )


REGRESSED = "sknet.validation.regressed"


class Night(BaseModel):
    """What a night looks at."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ref: Ref
    began: AwareDatetime
    scheduled: AwareDatetime | None
    """For when, if by a schedule."""


class Soundness(BaseModel):
    """What reading every byte has shown."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    evaluation: str | None
    """Key of the recorded evaluation, if all is sound by now."""
    damages: tuple[str, ...]
    repairs: tuple[Repair, ...]


def caught_up(store_uri: str) -> str | None:
    """Why a scheduled run has nothing to do: a night began since it was due. None if it has.

    When a server or worker was down, several runs are late; one of them makes up for all.
    """
    scheduled = _scheduled()
    if scheduled is None:
        return None
    night = night_since(open_store(store_uri, create=False), scheduled)
    if night is None:
        return None
    return f"the night of {scheduled:%Y-%m-%d %H:%M} was made up for at {night.params['began']}"


def _scheduled() -> datetime | None:
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    return run.expected_start_time if run and run.auto_scheduled else None


@stage_task("begin-night")
def begin_night(store_uri: str) -> Night:
    """What production points to, and when."""
    return Night(ref=promoted(store_uri), began=datetime.now(UTC), scheduled=_scheduled())


@stage_task("verify-promoted")
def verify_promoted(
    night: Night, store_uri: str, replica: str | None, data: str | None
) -> Soundness:
    """Read every byte of the promoted checkpoint, its shards and its recorded evaluation.

    What is damaged is replaced by a sound copy, if there is one.
    """
    store = open_store(store_uri, create=False)
    with tempfile.TemporaryDirectory(prefix="revalidate-") as scratch:
        found = _examined(night.ref, store, _copies(store_uri, replica), data, Path(scratch))
        damages = tuple(damage for each in found for damage in each.damages)
        repairs = tuple(repair for each in found for repair in each.repairs)
    logger = get_run_logger()
    for repair in repairs:
        logger.warning("%s was damaged and %s: %s", repair.artifact, repair.how, repair.damages[0])
    for damage in damages:
        logger.error("%s", damage)
    evaluation = found[-1].artifact
    key = evaluation.manifest.key if evaluation and not damages else None
    return Soundness(evaluation=key, damages=damages, repairs=repairs)


def _copies(store_uri: str, replica: str | None) -> list[Source]:
    """Where copies may be: what this host has of a bucket, then the replica."""
    places = [("this host's copies", store_uri)] if store_uri.startswith("s3://") else []
    if replica:
        places.append((f"replica {replica}", replica))
    return [Source("fetched", name, partial(_copy_at, uri)) for name, uri in places]


def _copy_at(uri: str, wanted: Wanted) -> Artifact:
    return copy_in(open_store(uri, create=False), wanted)


def _examined(
    ref: Ref, store: ArtifactStore, copies: list[Source], data: str | None, scratch: Path
) -> list[Examined]:
    """Each needs those before it: what they are is told by the checkpoint's manifest."""
    found = [examine(store, Wanted(ref.kind, ref.digest, ref.key), copies)]
    if (checkpoint := found[-1].artifact) is None:
        return found
    sources = list(copies)
    if data:
        again = partial(rebuild_shards, store, data=data, scratch=scratch / "shards")
        sources.append(Source("rebuilt", f"data {data}", again))
    found.append(
        examine(store, locate(store, "shards", checkpoint.manifest.inputs["shards"]), sources)
    )
    if (shards := found[-1].artifact) is None:
        return found
    recorded = recorded_evaluation(store, ref, shards.digest)
    if recorded is None:
        return [*found, Examined(None, ("no evaluation of it is recorded: run train-sknet",))]
    again = partial(
        rebuild_evaluation, checkpoint=checkpoint, shards=shards, scratch=scratch / "evaluation"
    )
    sources = [*copies, Source("rebuilt", "the checkpoint", again)]
    return [*found, examine(store, recorded, sources)]


@stage_task("reevaluate-promoted")
def reevaluate_promoted(
    night: Night, soundness: Soundness, store_uri: str, tolerance: float
) -> Revalidation:
    """Evaluate production again and compare with the record; say what was found."""
    store = open_store(store_uri, create=False)
    blank = Revalidation(
        checkpoint=night.ref.digest,
        began=night.began,
        scheduled=night.scheduled,
        outcome="damaged",
        said=f"{'; '.join(soundness.damages[:2])} ({len(soundness.damages)} findings)",
        damages=soundness.damages,
        repairs=soundness.repairs,
        recorded_software={},
        software={},
        recorded=None,
        found=None,
        tolerance=tolerance,
        num_differing=0,
        differing=(),
    )
    if soundness.evaluation is None:
        return blank
    with tempfile.TemporaryDirectory(prefix="revalidate-") as scratch:
        return _compared(blank, night.ref, store, soundness.evaluation, Path(scratch))


def _compared(
    blank: Revalidation, ref: Ref, store: ArtifactStore, evaluation: str, scratch: Path
) -> Revalidation:
    checkpoint = store.load(ref.kind, ref.key)
    shards = store.find("shards", checkpoint.manifest.inputs["shards"])
    recorded = store.load("evaluation", evaluation)
    run = Checkpoint.read(checkpoint.path("state.json")).run
    device = run.device_target
    then = recorded.manifest.provenance.get("processor", "unknown")
    before = {**recorded.manifest.params, "processor": then}
    now = {**software(device), "processor": processor(device)}
    known = blank.model_copy(
        update={
            "recorded_software": {name: str(value) for name, value in before.items()},
            "software": {name: str(value) for name, value in now.items()},
        }
    )
    try:
        out = evaluate_checkpoint(run.recipe, checkpoint, shards, device, scratch)
        _require_sound(out)
        pairs = [_at(run.recipe, side, recorded, out) for side in run.recipe.resolutions]
    except FAILURES as error:
        said = f"it can't be evaluated as it was: {error}"
        return known.model_copy(update={"outcome": "regressed", "said": said})
    verdict = judge_revalidation(pairs, same_software=before == now, tolerance=blank.tolerance)
    return known.model_copy(
        update={
            "outcome": verdict.outcome,
            "said": verdict.summary,
            "recorded": _counts(pairs[0].recorded),
            "found": _counts(pairs[0].found),
            "num_differing": len(verdict.differing),
            "differing": verdict.differing[:MAX_LISTED],
        }
    )


def _require_sound(out: Path) -> None:
    checks = CheckpointChecks.read(out / CHECKS_FILE)
    failed = [f"{check.name}: {check.detail}" for check in checks.checks if not check.passed]
    if failed:
        raise UserError(f"checks fail that had passed: {'; '.join(failed)}")


def _at(recipe: Recipe, side: int, recorded: Artifact, out: Path) -> EvaluationPair:
    counts, predictions = evaluation_file(recipe, side), predictions_file(recipe, side)
    return EvaluationPair(
        recorded=Evaluation.read(recorded.path(counts)),
        found=Evaluation.read(out / counts),
        recorded_predictions=read_predictions(recorded.path(predictions)),
        found_predictions=read_predictions(out / predictions),
    )


def _counts(evaluation: Evaluation) -> Counts:
    return Counts(**evaluation.model_dump(include={*Counts.model_fields}))


@stage_task("record-night")
def record_night(night: Night, found: Revalidation, store_uri: str) -> Revalidation:
    """Append what was found to the history, let the ref say it too, and tell of a regression."""
    store = open_store(store_uri, create=False)
    spec = ArtifactSpec(
        kind="revalidation",
        format_version=1,
        params={"checkpoint": found.checkpoint, "began": found.began.isoformat()},
        inputs={},
    )
    put_record(store, spec, found, "revalidation.json")
    _mark(store, night, found, suspect=None if found.passed else f"{found.outcome}: {found.said}")
    create_table_artifact(
        _table(found), key="revalidation", description=f"{_name(night)}: {found.outcome}"
    )
    get_run_logger().info("%s is %s: %s", _name(night), found.outcome, found.said)
    if not found.passed:
        emit_event(
            REGRESSED,
            resource={
                "prefect.resource.id": f"sknet.ref.{PRODUCTION}",
                "prefect.resource.name": PRODUCTION,
            },
            payload={
                "store": store_uri,
                "key": night.ref.key,
                **found.model_dump(mode="json", exclude={"differing"}),
                "differing": [sample.key for sample in found.differing],
            },
        )
    return found


def _name(night: Night) -> str:
    return f"{PRODUCTION} ({night.ref.key[:10]})"


def _mark(store: ArtifactStore, night: Night, found: Revalidation, *, suspect: str | None) -> None:
    """Say of the present entry that it is suspect, or that it is not any more; never move it."""
    for _ in range(MAX_RACES):
        current = store.refs.get(PRODUCTION)
        if current is None or (current.kind, current.key) != (night.ref.kind, night.ref.key):
            get_run_logger().warning("%s is not production any more: not marked", _name(night))
            return
        if current.suspect == suspect:
            return
        reason = f"revalidation of {found.began:%Y-%m-%d %H:%M}: {found.outcome}"
        with suppress(RefConflictError):
            store.refs.set(PRODUCTION, current, expected=current, reason=reason, suspect=suspect)
            return
    raise RefConflictError(f"refs/{PRODUCTION} moved {MAX_RACES} times while it was marked")


def _table(found: Revalidation) -> list[dict[str, object]]:
    """Of the counts then and now; of what was found, if there are none."""
    if found.recorded is None or found.found is None:
        return [{"finding": damage} for damage in found.damages or (found.said,)]
    return [
        {"evaluation": "recorded", **found.recorded.model_dump(), **found.recorded_software},
        {"evaluation": "tonight", **found.found.model_dump(), **found.software},
    ]
