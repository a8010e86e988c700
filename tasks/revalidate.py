"""The tasks of a revalidation: is production intact, and does it still give the recorded results?

In their order: `begin-revalidation`, `verify-promoted`, `reevaluate-promoted`,
`record-revalidation`.
"""

import os
import tempfile
from collections.abc import Callable
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
    StoreError,
    absolute_uri,
    open_store,
    resolve,
)
from infra.artifacts.transfer import push
from sknet.data.sources import absolute
from sknet.judgement import MAX_LISTED, judge_revalidation
from sknet.records import Checkpoint, Counts, Evaluation, Repair, Revalidation
from sknet.records.training import STATE_FILE
from tasks.catalog.integrity import (
    CopySource,
    Examined,
    Wanted,
    copy_sources,
    examine,
    locate,
    manifest_of,
    mark_used,
    read_pairs,
    recorded_evaluation,
)
from tasks.catalog.production import (
    PRODUCTION,
    evaluation_spec,
    mark_production,
    processor,
    promoted,
    put_revalidation,
    revalidation_since,
    software,
)
from tasks.convert import ConversionSettings, convert
from tasks.errors import PERMANENT, LostWorkerError
from tasks.programs import device_here
from tasks.results import TaskResult, artifact_of, pipeline_task
from tasks.stage import stage
from tasks.validate import evaluate_checkpoint

REGRESSED = "sknet.validation.regressed"
"""Name of the event that is sent when production is damaged or gives other results."""


class Target(BaseModel):
    """The entry of `refs/production` that a revalidation checks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ref: Ref
    began: AwareDatetime
    scheduled: AwareDatetime | None
    """When the revalidation was due; None if it was started by hand."""

    @property
    def name(self) -> str:
        """The checkpoint's name in logs and titles."""
        return f"{PRODUCTION} ({self.ref.key[:10]})"


class ByteCheck(BaseModel):
    """What reading every byte of production has shown."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    evaluation: str | None
    """Key of the recorded evaluation; None if something is still damaged."""
    damages: tuple[str, ...]
    repairs: tuple[Repair, ...]


def caught_up(store_uri: str) -> str | None:
    """Return why a scheduled run has nothing to do; None if it has, or was started by hand.

    Several runs are late after a server or a worker was down, and the first of them makes up for
    all others.
    """
    scheduled = _scheduled()
    if scheduled is None:
        return None
    later = revalidation_since(open_store(store_uri, create=False), scheduled)
    if later is None:
        return None
    return (
        f"the revalidation that was due at {scheduled:%Y-%m-%d %H:%M} is not needed: another one "
        f"began at {later.params['began']}"
    )


@pipeline_task("begin-revalidation")
def begin_revalidation(store_uri: str) -> Target:
    """Return what production points to now.

    Raises:
        StoreError: Nothing was promoted yet.
    """
    return Target(ref=promoted(store_uri), began=datetime.now(UTC), scheduled=_scheduled())


@pipeline_task("verify-promoted")
def verify_promoted(
    target: Target, store_uri: str, replica: str | None, data: str | None
) -> ByteCheck:
    """Read every byte of the promoted checkpoint, its shards and its recorded evaluation.

    Args:
        target: What is checked.
        store_uri: The artifact store.
        replica: A store with copies, from which damaged artifacts are replaced.
        data: The source from which damaged shards are rebuilt.
    """
    store = open_store(store_uri, create=False)
    with tempfile.TemporaryDirectory(prefix="revalidate-") as scratch:
        found = _examine_all(
            target.ref, store, copy_sources(store_uri, replica), data, Path(scratch)
        )
        damages = tuple(damage for each in found for damage in each.damages)
        repairs = tuple(repair for each in found for repair in each.repairs)
    logger = get_run_logger()
    used = [each.artifact.manifest for each in found if each.artifact]
    for uri in (store_uri, *([replica] if replica else [])):
        for fault in mark_used(uri, used):
            logger.warning("%s", fault)
    for repair in repairs:
        logger.warning("%s was damaged and %s: %s", repair.artifact, repair.how, repair.damages[0])
    for damage in damages:
        logger.error("%s", damage)
    evaluation = found[-1].artifact
    key = evaluation.manifest.key if evaluation and not damages else None
    return ByteCheck(evaluation=key, damages=damages, repairs=repairs)


@pipeline_task("reevaluate-promoted")
def reevaluate_promoted(
    target: Target, bytes_found: ByteCheck, store_uri: str, tolerance: float
) -> Revalidation:
    """Evaluate production again, and compare the results with the recorded ones.

    Args:
        target: What is checked.
        bytes_found: What `verify_promoted` returned. If something is damaged, that is the outcome.
        store_uri: The artifact store.
        tolerance: Largest fraction of the samples for which other software or another device may
            predict another class.
    """
    store = open_store(store_uri, create=False)
    damages = bytes_found.damages
    damaged = Revalidation(
        checkpoint=target.ref.digest,
        began=target.began,
        scheduled=target.scheduled,
        outcome="damaged",
        said=f"{'; '.join(damages[:2])} ({len(damages)} findings)",
        damages=damages,
        repairs=bytes_found.repairs,
        recorded_software={},
        software={},
        recorded=None,
        found=None,
        tolerance=tolerance,
        num_differing=0,
        differing=(),
    )
    if bytes_found.evaluation is None:
        return damaged
    recorded = store.load("evaluation", bytes_found.evaluation)
    with tempfile.TemporaryDirectory(prefix="revalidate-") as scratch:
        return _reevaluate(damaged, target.ref, store, recorded, Path(scratch))


@pipeline_task("record-revalidation")
def record_revalidation(target: Target, found: Revalidation, store_uri: str) -> Revalidation:
    """Store the outcome, mark production accordingly, and send an event if it did not pass."""
    store = open_store(store_uri, create=False)
    logger = get_run_logger()
    put_revalidation(store, found)
    is_production = mark_production(
        store,
        target.ref,
        suspect=None if found.passed else f"{found.outcome}: {found.said}",
        reason=f"revalidation of {found.began:%Y-%m-%d %H:%M}: {found.outcome}",
    )
    if not is_production:
        logger.warning("%s is not production any more: not marked", target.name)
    create_table_artifact(
        _table(found), key="revalidation", description=f"{target.name}: {found.outcome}"
    )
    logger.info("%s is %s: %s", target.name, found.outcome, found.said)
    if not found.passed:
        emit_event(
            REGRESSED,
            resource={
                "prefect.resource.id": f"sknet.ref.{PRODUCTION}",
                "prefect.resource.name": PRODUCTION,
            },
            payload={
                "store": absolute_uri(store_uri),
                "key": target.ref.key,
                **found.model_dump(mode="json", exclude={"differing"}),
                "differing": [sample.key for sample in found.differing],
            },
        )
    return found


def _scheduled() -> datetime | None:
    """Return when this flow run was due; None if no schedule made it."""
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    return run.expected_start_time if run and run.auto_scheduled else None


def _examine_all(
    ref: Ref, store: ArtifactStore, copies: list[CopySource], data: str | None, scratch: Path
) -> list[Examined]:
    """Examine checkpoint, shards and evaluation, up to the first that can't be repaired.

    Which shards they are is known from the checkpoint's manifest only, and which evaluation from
    both.
    """
    found = [examine(store, Wanted(ref.kind, ref.digest, ref.key), copies)]
    if (checkpoint := found[-1].artifact) is None:
        return found
    sources = list(copies)
    if data:
        rebuild = partial(_rebuild_shards, store, data=data, scratch=scratch / "shards")
        sources.append(CopySource("rebuilt", f"data {absolute(data)}", _rebuilding(rebuild)))
    if "shards" not in checkpoint.manifest.inputs:
        return [
            *found,
            Examined(None, ("its manifest does not say on which shards it was trained",)),
        ]
    wanted = locate(store, "shards", checkpoint.manifest.made_from("shards"))
    found.append(examine(store, wanted, sources))
    if (shards := found[-1].artifact) is None:
        return found
    recorded = recorded_evaluation(store, ref.digest, shards.digest)
    if recorded is None:
        return [*found, Examined(None, ("no evaluation of it is recorded: run train-sknet",))]
    rebuild = partial(
        _rebuild_evaluation, checkpoint=checkpoint, shards=shards, scratch=scratch / "evaluation"
    )
    sources = [*copies, CopySource("rebuilt", "the checkpoint", _rebuilding(rebuild))]
    return [*found, examine(store, recorded, sources)]


def _rebuilding(rebuild: Callable[[Wanted], Artifact]) -> Callable[[Wanted], Artifact]:
    """Return the function with its failures as StoreErrors, which say that it has no copy."""

    def copy(wanted: Wanted) -> Artifact:
        try:
            return rebuild(wanted)
        except (*PERMANENT, LostWorkerError) as error:
            raise StoreError(str(error)) from error

    return copy


def _rebuild_shards(store: ArtifactStore, wanted: Wanted, data: str, scratch: Path) -> Artifact:
    """Stage and convert a source again, with the settings of the damaged shards.

    Raises:
        StoreError: Other shards came out, or the settings can't be read any more.
        UserError: The source's images are not those of the shards.
    """
    recorded = manifest_of(store, wanted)
    if recorded is None:
        raise StoreError("their manifest, which says how they were made, can't be read")
    staged = _staged_as_recorded(store, recorded.made_from("dataset"), data, scratch)
    settings = _settings_of(recorded)
    shards = convert(data, staged, str(scratch), settings, os.cpu_count() or 1).result()
    rebuilt = artifact_of(open_store(str(scratch)), shards)
    _require_same(rebuilt.manifest.spec, recorded.spec)
    return rebuilt


def _staged_as_recorded(store: ArtifactStore, dataset: str, data: str, scratch: Path) -> TaskResult:
    """Put the data set with a digest into a scratch store: the recorded one, or staged again.

    What the source holds now doesn't matter for the recorded one: conversion compares each image.

    Raises:
        StoreError: The recorded one can't be read, and another one is staged.
    """
    try:
        manifest = store.find("dataset", dataset).manifest
        push(store, manifest, open_store(str(scratch)))
    except StoreError:
        staged = stage(data, str(scratch), max_quarantine=1.0).result()
        if staged.digest != dataset:
            raise StoreError("the source holds other samples than they were made from") from None
        return staged
    return TaskResult(
        task="stage",
        status="reused",
        seconds=0.0,
        kind=manifest.kind,
        key=manifest.key,
        digest=manifest.digest,
    )


def _settings_of(recorded: Manifest) -> ConversionSettings:
    """Return the settings of recorded shards, without their limit of unreadable images."""
    reencoding = recorded.made_with("reencoding")
    chosen = {"shards": recorded.made_with("num_shards"), "max_quarantine": 1.0}
    if isinstance(reencoding, dict):
        chosen |= {name: reencoding[name] for name in ("shorter_side", "quality")}
    return ConversionSettings.model_validate(chosen)


def _require_same(found: ArtifactSpec, expected: ArtifactSpec) -> None:
    """Raise StoreError, with the first difference, if rebuilt shards are not the recorded ones."""
    for name, value in expected.params.items():
        if found.params.get(name) != value:
            raise StoreError(f"{name} is {found.params.get(name)}, they were made with {value}")
    if found != expected:
        raise StoreError(
            f"their format is {expected.format_version}, this version writes {found.format_version}"
        )


def _rebuild_evaluation(
    wanted: Wanted, checkpoint: Artifact, shards: Artifact, scratch: Path
) -> Artifact:
    """Evaluate again, with the software of this host.

    Raises:
        StoreError: The damaged evaluation was made with other software.
    """
    run = Checkpoint.read(checkpoint.path(STATE_FILE)).run
    device = device_here(run.device_target)
    spec = evaluation_spec(checkpoint.digest, shards.digest, device)
    if spec.key != wanted.key:
        raise StoreError(
            "it was made by other software, another version of this project, or on another device"
        )

    def build(workspace: Path) -> BuildOutput:
        out = evaluate_checkpoint(run.evaluated_recipe, checkpoint, shards, device, workspace)
        return BuildOutput(out, {}, {"processor": processor(device)})

    return resolve(open_store(str(scratch)), spec, build).artifact


def _reevaluate(
    base: Revalidation, ref: Ref, store: ArtifactStore, recorded: Artifact, scratch: Path
) -> Revalidation:
    """Return the record with the outcome of evaluating production again."""
    checkpoint = store.load(ref.kind, ref.key)
    shards = store.find("shards", checkpoint.manifest.made_from("shards"))
    run = Checkpoint.read(checkpoint.path(STATE_FILE)).run
    device = device_here(run.device_target)
    recorded_processor = recorded.manifest.provenance.get("processor", "unknown")
    before = {**recorded.manifest.params, "processor": recorded_processor}
    now = {**software(device), "processor": processor(device)}
    base = base.model_copy(
        update={
            "recorded_software": {name: str(value) for name, value in before.items()},
            "software": {name: str(value) for name, value in now.items()},
        }
    )
    try:
        out = evaluate_checkpoint(run.evaluated_recipe, checkpoint, shards, device, scratch)
        pairs = read_pairs(run.recipe, recorded, out)
    except PERMANENT as error:
        said = f"it can't be evaluated any more: {error}"
        return base.model_copy(update={"outcome": "regressed", "said": said})
    verdict = judge_revalidation(pairs, same_software=before == now, tolerance=base.tolerance)
    return base.model_copy(
        update={
            "outcome": verdict.outcome,
            "said": verdict.summary,
            "recorded": _counts_of(pairs[0].recorded),
            "found": _counts_of(pairs[0].found),
            "num_differing": len(verdict.differing),
            "differing": verdict.differing[:MAX_LISTED],
        }
    )


def _counts_of(evaluation: Evaluation) -> Counts:
    return Counts(**evaluation.model_dump(include={*Counts.model_fields}))


def _table(found: Revalidation) -> list[dict[str, object]]:
    """Return the counts then and now as rows; without them, one row for each damage."""
    if found.recorded is None or found.found is None:
        return [{"finding": damage} for damage in found.damages or (found.said,)]
    return [
        {"evaluation": "recorded", **_row(found.recorded), **found.recorded_software},
        {"evaluation": "now", **_row(found.found), **found.software},
    ]


def _row(counts: Counts) -> dict[str, object]:
    return {
        **counts.model_dump(exclude={"loss_sum"}),
        "loss": f"{counts.loss_sum / counts.seen:.6f}" if counts.seen else "unknown",
    }
