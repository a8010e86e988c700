"""Stage `promote`: the checkpoint that production points to."""

import time

from prefect import get_run_logger

from infra.artifacts import Ref, StoreError, open_store
from sknet.recipe import Recipe
from sknet.records import Evaluation
from tasks.stages import StageResult, Status, artifact_of, completed, stage_task

PRODUCTION = "production"


@stage_task("promote")
def promote(
    recipe: Recipe, checkpoint: StageResult, evaluation: StageResult, store_uri: str
) -> StageResult:
    """Point `refs/production` to the checkpoint if it reaches the recipe's floor."""
    began = time.perf_counter()
    store = open_store(store_uri)
    counts = Evaluation.read(artifact_of(store, evaluation).path("evaluation.json"))
    current = store.refs.get(PRODUCTION)
    status: Status = "built"
    said = (
        f"accuracy@1 {counts.accuracy_top1:.2%} ({counts.correct_top1}/{counts.seen}), "
        f"floor {recipe.min_accuracy:.2%}"
    )
    if counts.accuracy_top1 < recipe.min_accuracy:
        status = "refused"
    elif current is not None and current.digest == checkpoint.digest:
        status = "reused"
    else:
        manifest = artifact_of(store, checkpoint).manifest
        store.refs.set(PRODUCTION, manifest, expected=current, reason=said)
    get_run_logger().info("promote: %s, %s", status, said)
    result = StageResult(
        stage="promote",
        status=status,
        seconds=time.perf_counter() - began,
        kind=checkpoint.kind,
        key=checkpoint.key,
        digest=checkpoint.digest,
        facts={"ref": PRODUCTION, "reason": said},
    )
    return completed(result)


def promoted(store_uri: str) -> Ref:
    """Where `refs/production` points. Raises StoreError if nothing was promoted yet."""
    ref = open_store(store_uri, create=False).refs.get(PRODUCTION)
    if ref is None:
        raise StoreError(
            f"{store_uri} has no refs/{PRODUCTION}.json: run train-sknet until it promotes one"
        )
    return ref
