"""Tables of a report, as they are exported: all that is known of the runs of a store.

Each table is a frame with typed columns. What isn't known, and what isn't finite, is NA.
"""

from collections.abc import Iterator, Sequence

import pandas as pd

from sknet.records import Evaluation
from sknet.report.cells import Row, interval_cells, not_finite, percent, resolution_text, table_of
from sknet.report.contents import EpochLine, ReportContents, TaskOutput, TrainedRun
from sknet.report.published import published_params
from sknet.report.published_table import published_table

_ACCURACY_COLUMNS = {
    "accuracy@1": "Float64",  # percent
    "95 % from": "Float64",  # percent
    "95 % to": "Float64",  # percent
    "without leaked": "Float64",  # accuracy@1 of samples without copies in other splits, percent
    "accuracy@5": "Float64",  # percent; unknown of fewer than six classes, where it says nothing
    "balanced accuracy": "Float64",  # percent
    "macro-F1": "Float64",  # percent
    "mean average precision": "Float64",  # percent
    "correct@1": "Int64",
    "correct@5": "Int64",
    "seen": "Int64",
    "loss": "Float64",
}

RUN_COLUMNS = {
    "run": "string",
    "key": "string",
    "recipe": "string",
    "model": "string",
    "created": "string",
    "verdict": "string",
    "data": "string",
    "cards": "Int64",
    "global batch": "Int64",
    "steps": "Int64",
    "epochs": "Int64",
    "parameters": "Int64",  # trainable ones
    "published parameters": "Int64",  # of the published network, with as many classes
    "parameters are": "string",
    **_ACCURACY_COLUMNS,
    "ms/step p50": "Float64",
    "ms/step p90": "Float64",
    "ms/step p99": "Float64",
    "img/s": "Float64",
    "data-wait share": "Float64",
    "compile seconds": "Float64",
    "train seconds": "Float64",
    "device-hours": "Float64",
    "cost": "Float64",  # device-hours times the price of one
    "bytes": "Int64",  # of the artifacts of all tasks
    "restarts": "Int64",
    "quarantined": "Int64",
    "device": "string",
    "mindspore": "string",
    "checkpoint": "string",
    "note": "string",
}

EPOCH_COLUMNS = {
    "run": "string",
    "epoch": "Int64",  # counted from 1
    "train loss": "Float64",
    "lr at the end": "Float64",
    "accuracy@1": "Float64",  # percent
    "accuracy@5": "Float64",  # percent
    "validation loss": "Float64",
    "correct@1": "Int64",
    "correct@5": "Int64",
    "seen": "Int64",
    "seconds": "Float64",
    "note": "string",
}

EVALUATION_COLUMNS = {
    "run": "string",
    "recipe": "string",
    "split": "string",
    "resolution": "string",
    **_ACCURACY_COLUMNS,
    **{
        f"{name} 95 % {end}": "Float64"  # percent
        for name in ("balanced accuracy", "macro-F1", "mean average precision")
        for end in ("from", "to")
    },
    "leaked": "Int64",
    "leaked correct@1": "Int64",
    "calibration error": "Float64",  # expected calibration error, a fraction
    "temperature": "Float64",
    "held-out error": "Float64",  # as the calibration error, on the half without the fit
    "with temperature": "Float64",  # the same, with the temperature
    "looks": "Int64",  # how often a sealed test split had been looked at
}

REVALIDATION_COLUMNS = {
    "began": "string",
    "run": "string",
    "outcome": "string",
    "recorded correct@1": "Int64",
    "found correct@1": "Int64",
    "seen": "Int64",
    "differing": "Int64",
    "repairs": "Int64",
    "said": "string",  # the outcome in one line
}

TASK_COLUMNS = {
    "run": "string",
    "stage": "string",
    "artifact": "string",
    "digest": "string",
    "seconds": "Float64",
    "bytes": "Int64",
    "reused": "boolean",  # whether an earlier run of the store had built it
}

QUARANTINE_COLUMNS = {
    "data": "string",  # digest of the samples
    "split": "string",
    "key": "string",
    "reason": "string",
}

DATA_CLASSES_COLUMNS = {
    "samples digest": "string",
    "data": "string",
    "split": "string",
    "label": "Int64",
    "class": "string",
    "samples": "Int64",
}

UNREADABLE_COLUMNS = {"artifact": "string", "reason": "string"}


def all_tables(contents: ReportContents) -> dict[str, pd.DataFrame]:
    """Return every table of a report, by the name of its files."""
    runs = contents.runs
    return {
        "table": published_table(runs),
        "runs": runs_table(contents),
        "epochs": epochs_table(runs),
        "evaluations": evaluations_table(runs),
        "nights": revalidations_table(contents),
        "stages": tasks_table(runs),
        "quarantine": quarantine_table(runs),
        "data_classes": data_classes_table(contents),
        "unreadable": unreadable_table(contents),
    }


def runs_table(contents: ReportContents) -> pd.DataFrame:
    """Return one row for each run, with its accuracy, its speed and its cost."""
    return table_of((_run_row(run, contents.price) for run in contents.runs), RUN_COLUMNS)


def epochs_table(runs: Sequence[TrainedRun]) -> pd.DataFrame:
    """Return one row for each epoch of each run."""
    return table_of((row for run in runs for row in _epoch_rows(run)), EPOCH_COLUMNS)


def evaluations_table(runs: Sequence[TrainedRun]) -> pd.DataFrame:
    """Return one row for each resolution at which each run was evaluated, and for a sealed test."""
    rows = (row for run in runs for row in _evaluation_rows(run))
    return table_of(rows, EVALUATION_COLUMNS)


def tasks_table(runs: Sequence[TrainedRun]) -> pd.DataFrame:
    """Return one row for each task of each run, with the artifact that it made."""
    return table_of((_task_row(run, task) for run in runs for task in run.tasks), TASK_COLUMNS)


def revalidations_table(contents: ReportContents) -> pd.DataFrame:
    """Return one row for each revalidation, the oldest first."""
    short_keys = {run.checkpoint_digest: run.short_key for run in contents.runs}
    rows = (
        {
            "began": each.began.isoformat(timespec="seconds"),
            "run": short_keys.get(each.checkpoint, ""),
            "outcome": each.outcome,
            "recorded correct@1": each.recorded.correct_top1 if each.recorded else None,
            "found correct@1": each.found.correct_top1 if each.found else None,
            "seen": each.found.seen if each.found else None,
            "differing": each.num_differing,
            "repairs": len(each.repairs),
            "said": each.said,
        }
        for each in contents.revalidations
    )
    return table_of(rows, REVALIDATION_COLUMNS)


def quarantine_table(runs: Sequence[TrainedRun]) -> pd.DataFrame:
    """Return one row for each sample that was left out of each data set."""
    data = {run.data.shards: run.data for run in runs if run.data is not None}
    rows = (
        {"data": each.digest, "split": sample.split, "key": sample.key, "reason": sample.reason}
        for each in data.values()
        for sample in each.quarantined
    )
    return table_of(rows, QUARANTINE_COLUMNS)


def data_classes_table(contents: ReportContents) -> pd.DataFrame:
    """Return one row for each split and class of each data set, with its number of samples."""
    rows = (
        {
            "samples digest": data.digest,
            "data": data.source,
            "split": split,
            "label": label,
            "class": data.titles[label],
            "samples": count,
        }
        for data in contents.data_sets
        for split in data.ordered_splits
        for label, count in enumerate(data.class_counts.get(split, ()))
    )
    return table_of(rows, DATA_CLASSES_COLUMNS)


def unreadable_table(contents: ReportContents) -> pd.DataFrame:
    """Return one row for each part of the store that could not be read."""
    return table_of((each.model_dump() for each in contents.unreadable), UNREADABLE_COLUMNS)


def compared_params(run: TrainedRun) -> tuple[int | None, str | None]:
    """Compare a run's trainable parameters with those of the published network.

    Returns:
        The number of parameters of the published network with as many classes, and `equal` or the
        difference; (None, None) if no such network is published.
    """
    published = published_params(run.model, len(run.classes)) if run.classes else None
    if published is None:
        return None, None
    if published == run.params:
        return published, "equal"
    return published, f"differs by {run.params - published:+,}"


def verdict(run: TrainedRun) -> str | None:
    """Return whether the run is production, was promoted, or was refused and why."""
    if run.is_production:
        return f"production, suspect: {run.suspect}" if run.suspect else "production"
    if run.promotion is None:
        return None
    if run.promotion.granted:
        return "promoted"
    refused = next(each for each in run.promotion.criteria if not each.passed)
    return f"refused: {refused.name}: {refused.detail}"


def _run_row(run: TrainedRun, price: float | None) -> Row:
    end, counts, data, hours = run.history.end, run.evaluation, run.data, run.device_hours
    numbers = {
        "loss": counts.loss if counts else None,
        "ms/step p50": end.ms_per_step_p50,
        "ms/step p90": end.ms_per_step_p90,
        "ms/step p99": end.ms_per_step_p99,
        "img/s": end.images_per_second,
        "data-wait share": end.data_wait_share,
        "compile seconds": end.compile_seconds,
        "train seconds": run.train_seconds,
        "device-hours": hours,
    }
    published, comparison = compared_params(run)
    notes = [not_finite(numbers), None if counts else "not evaluated"]
    return {
        "run": run.short_key,
        "key": run.key,
        "recipe": run.recipe.name,
        "model": run.model,
        "created": run.created or None,
        "verdict": verdict(run),
        "data": data.source if data else None,
        "cards": run.world_size,
        "global batch": run.global_batch_size,
        "steps": run.steps,
        "epochs": run.recipe.epoch_size,
        "parameters": run.params,
        "published parameters": published,
        "parameters are": comparison,
        **(_accuracy_cells(counts) if counts else {}),
        **numbers,
        "cost": None if price is None or hours is None else round(hours * price, 6),
        "bytes": sum(task.num_bytes or 0 for task in run.tasks),
        "restarts": end.restarts,
        "quarantined": len(data.quarantined) if data else None,
        "device": run.device_target,
        "mindspore": run.mindspore,
        "checkpoint": run.checkpoint_digest,
        "note": "; ".join(note for note in notes if note) or None,
    }


def _epoch_rows(run: TrainedRun) -> Iterator[Row]:
    last_rates = {step.epoch: step.lr for step in run.history.steps}
    for epoch in run.history.epochs:
        yield _epoch_row(run, epoch, last_rates.get(epoch.epoch) if epoch.lr is None else epoch.lr)


def _epoch_row(run: TrainedRun, line: EpochLine, last_rate: float | None) -> Row:
    correct_top5 = line.correct_top5 if run.is_top5_telling else None
    numbers = {
        "train loss": line.train_loss,
        "lr at the end": last_rate,
        "validation loss": line.validation_loss,
        "seconds": line.seconds,
    }
    return {
        "run": run.short_key,
        "epoch": line.epoch + 1,
        **numbers,
        "accuracy@1": percent(line.correct_top1, line.seen),
        "accuracy@5": percent(correct_top5, line.seen),
        "correct@1": line.correct_top1,
        "correct@5": correct_top5,
        "seen": line.seen,
        "note": not_finite(numbers),
    }


def _evaluation_rows(run: TrainedRun) -> Iterator[Row]:
    for counts in run.evaluations:
        yield {**_evaluation_row(run, counts), **_calibration_cells(run, counts)}
    if run.promotion is not None and (sealed := run.promotion.sealed):
        yield {**_evaluation_row(run, sealed.evaluation), "looks": sealed.looks}


def _evaluation_row(run: TrainedRun, counts: Evaluation) -> Row:
    leaked = counts.leaked
    means: dict[str, object] = {}
    for name, mean in counts.means.items():
        means |= interval_cells(name, mean)
    return {
        "run": run.short_key,
        "recipe": run.recipe.name,
        "split": counts.split,
        "resolution": resolution_text(counts.resolution),
        **_accuracy_cells(counts),
        **means,
        "leaked": leaked.seen if leaked else None,
        "leaked correct@1": leaked.correct_top1 if leaked else None,
        "loss": counts.loss,
        "calibration error": counts.calibration_error,
    }


def _calibration_cells(run: TrainedRun, counts: Evaluation) -> Row:
    found = run.calibration
    if found is None or (found.split, found.resolution) != (counts.split, counts.resolution):
        return {}
    return {
        "temperature": found.temperature if found.is_fitted else None,
        "held-out error": found.error_before,
        "with temperature": found.error_after if found.is_fitted else None,
    }


def _task_row(run: TrainedRun, task: TaskOutput) -> Row:
    return {
        "run": run.short_key,
        "stage": task.task,
        "artifact": task.artifact,
        "digest": task.digest,
        "seconds": task.seconds,
        "bytes": task.num_bytes,
        "reused": task.reused,
    }


def _accuracy_cells(counts: Evaluation) -> Row:
    low, high = counts.interval_top1
    correct_top5 = counts.correct_top5 if counts.is_top5_telling else None
    return {
        "accuracy@1": percent(counts.correct_top1, counts.seen),
        "95 % from": round(100 * low, 2),
        "95 % to": round(100 * high, 2),
        "without leaked": percent(*(counts.without_leaked or (None, None))),
        "accuracy@5": percent(correct_top5, counts.seen),
        **{name: interval_cells(name, mean)[name] for name, mean in counts.means.items()},
        "correct@1": counts.correct_top1,
        "correct@5": correct_top5,
        "seen": counts.seen,
    }
