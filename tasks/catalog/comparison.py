"""Two runs of a store side by side, on the predictions that were kept of both."""

from infra.artifacts import Artifact, ArtifactStore, StoreError
from sknet.errors import UserError
from sknet.evaluation.predictions import StoredPredictions, pair, read_predictions
from sknet.records.evaluation import predictions_file
from sknet.report import ReportContents, RunComparison, TrainedRun, compare_runs, find_run
from sknet.statistics import PairedCounts


def compare_named(
    store: ArtifactStore, findings: ReportContents, first: str, second: str
) -> RunComparison:
    """Compare two runs that are named by a key's beginning or a ref.

    Raises UserError if a name tells no run, or not one alone.
    """
    refs = {name: ref.digest for name in store.refs.names() if (ref := store.refs.get(name))}
    own, other = find_run(findings, first, refs), find_run(findings, second, refs)
    if own.key == other.key:
        raise UserError(f"{first!r} and {second!r} are the same run, {own.short_key}: name two")
    shared = {counts.resolution for counts in own.evaluations} & {
        counts.resolution for counts in other.evaluations
    }
    pairs = {side: _paired(store, own, other, side) for side in shared}
    return compare_runs(own, other, {side: pair for side, pair in pairs.items() if pair})


def _paired(
    store: ArtifactStore, first: TrainedRun, second: TrainedRun, side: int
) -> PairedCounts | None:
    try:
        return pair(_predictions(store, first, side), _predictions(store, second, side)).counts
    except (StoreError, UserError, OSError):
        return None  # the page says that the samples were taken as independent


def _predictions(store: ArtifactStore, run: TrainedRun, side: int) -> StoredPredictions:
    return read_predictions(evaluation_of(store, run).path(predictions_file(run.recipe, side)))


def evaluation_of(store: ArtifactStore, run: TrainedRun) -> Artifact:
    """The artifact of a run's evaluation. Raises StoreError if there is none."""
    for stage in run.tasks:
        if stage.task == "validate":
            kind, _, key = stage.artifact.partition("/")
            return store.load(kind, key)
    raise StoreError(f"run {run.short_key} is not evaluated")
