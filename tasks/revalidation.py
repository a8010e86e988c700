"""The nightly check of what was promoted."""

import json
from pathlib import Path

from prefect import get_run_logger
from prefect.artifacts import create_table_artifact
from pydantic import JsonValue

from infra.artifacts import Ref, StoreError, open_store
from sknet.records import Checkpoint, Evaluation
from tasks.evaluation import evaluate_checkpoint, evaluation_facts, table_row
from tasks.promotion import PRODUCTION, promoted
from tasks.stages import newest, stage_task


class RegressionError(RuntimeError):
    """The promoted checkpoint is not what was recorded of it."""


@stage_task("verify-promoted")
def verify_promoted(store_uri: str) -> Ref:
    """Read every byte of the promoted checkpoint and its shards. Raises RegressionError."""
    store = open_store(store_uri, create=False)
    ref = promoted(store_uri)
    faults = [f"checkpoint: {damage}" for damage in store.verify(ref.kind, ref.key, level="full")]
    if not faults:
        manifest = store.load(ref.kind, ref.key).manifest
        if manifest.digest != ref.digest:
            faults.append(f"checkpoint: digest is {manifest.digest}, {ref.digest} was promoted")
        else:
            shards = store.find("shards", manifest.inputs["shards"]).manifest
            damages = store.verify("shards", shards.key, level="full")
            faults += [f"shards: {damage}" for damage in damages]
    if faults:
        raise RegressionError(f"{PRODUCTION} ({ref.key[:10]}) is damaged: {'; '.join(faults)}")
    get_run_logger().info("%s: every file of checkpoint and shards is sound", PRODUCTION)
    return ref


@stage_task("reevaluate-promoted")
def reevaluate_promoted(ref: Ref, store_uri: str, scratch: Path) -> dict[str, JsonValue]:
    """Evaluate again and compare with the record, count by count. Raises RegressionError."""
    store = open_store(store_uri, create=False)
    checkpoint = store.load(ref.kind, ref.key)
    state = Checkpoint.read(checkpoint.path("state.json"))
    shards = store.find("shards", checkpoint.manifest.inputs["shards"])
    recorded = newest(
        manifest
        for manifest in store.list("evaluation")
        if manifest.inputs.get("checkpoint") == ref.digest
    )
    if recorded is None:
        raise StoreError(f"no evaluation of checkpoint {ref.key} is recorded: run train-sknet")
    record = Evaluation.read(store.load("evaluation", recorded.key).path("evaluation.json"))
    out = evaluate_checkpoint(
        state.run.recipe, checkpoint, shards, state.run.device_target, scratch
    )
    fresh = Evaluation.read(out / "evaluation.json")
    create_table_artifact(
        [
            {"evaluation": "recorded", **table_row(record)},
            {"evaluation": "tonight", **table_row(fresh)},
        ],
        key="revalidation",
        description=f"{PRODUCTION} ({ref.key[:10]}) against its recorded evaluation",
    )
    if differences := differing_counts(record, fresh):
        raise RegressionError(
            f"{PRODUCTION} ({ref.key[:10]}) differs from its recorded evaluation: "
            f"{'; '.join(differences)}"
        )
    return evaluation_facts(fresh)


def differing_counts(recorded: Evaluation, fresh: Evaluation) -> list[str]:
    """Every field that is not equal, with both values."""
    before, now = recorded.model_dump(mode="json"), fresh.model_dump(mode="json")
    return [
        f"{name} was {json.dumps(before[name])}, is {json.dumps(now[name])}"
        for name in before
        if before[name] != now[name]
    ]
