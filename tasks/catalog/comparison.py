"""What is counted from the predictions of a store's runs, of one run or of several side by side."""

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from infra.artifacts import ArtifactStore
from sknet.errors import UserError
from sknet.evaluation.classes import Confusion
from sknet.evaluation.predictions import StoredPredictions, pair, read_predictions
from sknet.records.evaluation import predictions_file
from sknet.report import ReportContents, RunComparison, TrainedRun, compare_runs, find_run
from sknet.report.comparison import key_beginning_with, refuse_same_run
from sknet.report.contents import DataSetFacts
from sknet.report.data_section import measured_table
from sknet.significance import PairedCounts
from tasks.catalog.runs import evaluation_of

if TYPE_CHECKING:
    import pandas as pd


def check_names(store: ArtifactStore, names: Iterable[str]) -> None:
    """Check, before any run is read, that names stand for different runs.

    Raises:
        UserError: One of them is neither a ref nor the beginning of one key, or two stand for the
            same run.
    """
    keys = [key for _, key in store.addresses("checkpoint")]
    refs = store.refs.names()
    chosen = []
    for name in names:
        ref = store.refs.get(name) if name in refs else None
        key = ref.key if ref else key_beginning_with(name, keys)
        if key is None:
            raise UserError(
                f"no run or ref {name!r}: expected the beginning of a run's key, as `sknet store "
                f"ls checkpoint` lists them, or a ref ({', '.join(refs) or 'there is none'})"
            )
        chosen.append((name, key))
    refuse_same_run(chosen)


def compare_named(
    store: ArtifactStore, contents: ReportContents, *names: str
) -> tuple[RunComparison, ...]:
    """Compare each run but the first with the first.

    Args:
        store: The store of all.
        contents: Its runs.
        *names: At least two runs, each by a ref or by the first digits of its key.

    Raises:
        UserError: Fewer than two names, a name stands for no run or for several, or two stand for
            the same run.
    """
    if len(names) < 2:
        raise UserError(f"one run to compare, {', '.join(names)!r}: name at least two")
    refs = {name: ref.digest for name in store.refs.names() if (ref := store.refs.get(name))}
    runs = [find_run(contents, name, refs) for name in names]
    refuse_same_run((name, run.key) for name, run in zip(names, runs, strict=True))
    first_run, *others = runs
    return tuple(_compared(store, first_run, other) for other in others)


def _compared(store: ArtifactStore, own: TrainedRun, other: TrainedRun) -> RunComparison:
    shared = {counts.resolution for counts in own.evaluations} & {
        counts.resolution for counts in other.evaluations
    }
    pairs = {side: _paired(store, own, other, side) for side in shared}
    return compare_runs(own, other, {side: pair for side, pair in pairs.items() if pair})


def confusions(store: ArtifactStore, runs: Iterable[TrainedRun]) -> dict[str, Confusion]:
    """Return how the classes are confused by the key of the run.

    Runs are left out whose predictions can't be read, or contradict the counts of the evaluation.
    """
    found = {}
    for run in runs:
        if run.evaluation is None:
            continue
        with suppress(UserError, OSError):
            predictions = _predictions(store, run, run.evaluation.resolution)
            if predictions.correct.sum() == run.evaluation.correct_top1:
                found[run.key] = Confusion.of(predictions.labels, predictions.predicted)
    return found


def predicted_samples(
    store: ArtifactStore, runs: Iterable[TrainedRun], data_sets: Iterable[DataSetFacts]
) -> dict[str, "pd.DataFrame"]:
    """Return what runs predicted for the measured images of their data, by the run's key.

    Runs are left out of whose evaluated split nothing was measured, or whose predictions can't be
    read.
    """
    import pandas as pd

    measured = {data.digest: measured_table(data.measured) for data in data_sets}
    found = {}
    for run in runs:
        table = measured.get(run.data_digest)
        if run.evaluation is None or table is None:
            continue
        with suppress(UserError, OSError):
            predictions = _predictions(store, run, run.evaluation.resolution)
            columns = {
                "key": predictions.keys,
                "predicted": predictions.predicted,
                "probability": predictions.probability,
                "correct": predictions.correct,
            }
            of_split = table[table["split"] == run.evaluation.split]
            joined = of_split.merge(pd.DataFrame(columns), on="key")
            if len(joined):
                found[run.key] = joined
    return found


def _paired(
    store: ArtifactStore, first: TrainedRun, second: TrainedRun, side: int
) -> PairedCounts | None:
    """Return counts over the samples of both runs; None if they can't be paired.

    The page then says that the samples were treated as independent.
    """
    try:
        return pair(_predictions(store, first, side), _predictions(store, second, side)).counts
    except (UserError, OSError):
        return None


def _predictions(store: ArtifactStore, run: TrainedRun, side: int) -> StoredPredictions:
    return read_predictions(evaluation_of(store, run).path(predictions_file(run.recipe, side)))
