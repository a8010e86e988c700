"""Tables: the 13 columns that MindCV publishes, and everything that runs and nights recorded."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from sknet.records import Evaluation
from sknet.report.findings import EpochLine, Findings, StageTime, TrainedRun
from sknet.report.published import PUBLISHED, published_params

PUBLISHED_COLUMNS = {
    "model name": "string",
    "params(M)": "Float64",
    "cards": "Int64",
    "batch size": "Int64",  # per card, as MindCV gives it
    "resolution": "string",
    "jit level": "string",
    "graph compile": "Float64",  # seconds
    "ms/step": "Float64",
    "img/s": "Float64",
    "acc@top1": "Float64",  # percent
    "acc@top5": "Float64",
    "recipe": "string",
    "weight": "string",
}

_ACCURACY = {
    "accuracy@1": "Float64",  # percent
    "95 % from": "Float64",
    "95 % to": "Float64",
    "accuracy@5": "Float64",
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
    "parameters": "Int64",  # trainable
    "published parameters": "Int64",  # with as many classes
    "parameters are": "string",
    **_ACCURACY,
    "ms/step p50": "Float64",
    "ms/step p90": "Float64",
    "ms/step p99": "Float64",
    "img/s": "Float64",
    "data-wait share": "Float64",
    "compile seconds": "Float64",
    "train seconds": "Float64",
    "device-hours": "Float64",
    "cost": "Float64",  # device-hours times the price that was given
    "bytes": "Int64",  # of the artifacts of all stages
    "restarts": "Int64",
    "quarantined": "Int64",
    "device": "string",
    "mindspore": "string",
    "checkpoint": "string",
    "note": "string",
}

EPOCH_COLUMNS = {
    "run": "string",
    "epoch": "Int64",  # from 1
    "train loss": "Float64",
    "lr at the end": "Float64",
    "accuracy@1": "Float64",  # percent
    "accuracy@5": "Float64",
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
    **_ACCURACY,
    "calibration error": "Float64",  # expected; a share
}

NIGHT_COLUMNS = {
    "began": "string",
    "run": "string",
    "outcome": "string",
    "recorded correct@1": "Int64",
    "found correct@1": "Int64",
    "seen": "Int64",
    "differing": "Int64",
    "repairs": "Int64",
    "said": "string",
}

STAGE_COLUMNS = {
    "run": "string",
    "stage": "string",
    "artifact": "string",
    "digest": "string",
    "seconds": "Float64",
    "bytes": "Int64",
    "reused": "boolean",  # an earlier run of the store had made it
}

QUARANTINE_COLUMNS = {
    "data": "string",  # digest of the samples
    "split": "string",
    "key": "string",
    "reason": "string",
}

UNREADABLE_COLUMNS = {"artifact": "string", "reason": "string"}

UNKNOWN = "–"  # noqa: RUF001 (the dash of a table's empty cell)

_FORMATS: dict[str, Callable[[Any], str]] = {
    "params(M)": "{:.2f}".format,
    "graph compile": "{:.1f} s".format,
    "ms/step": "{:.2f}".format,
    "img/s": "{:.2f}".format,
    "acc@top1": "{:.2f} %".format,
    "acc@top5": "{:.2f} %".format,
    "95 % from": "{:.2f} %".format,
    "95 % to": "{:.2f} %".format,
    "train loss": "{:.4f}".format,
    "validation loss": "{:.4f}".format,
    "loss": "{:.4f}".format,
    "calibration error": "{:.4f}".format,
    "lr at the end": "{:.4g}".format,
    "seconds": "{:.1f}".format,
    "device-hours": "{:.4f}".format,
    "cost": "{:.4f}".format,
}


def accuracy(correct: int, seen: int) -> str:
    """With two decimals and its counts."""
    return f"{100 * correct / seen:.2f} % ({correct}/{seen})"


def interval(counts: Evaluation) -> str:
    """The 95 % interval of accuracy@1."""
    low, high = counts.interval_top1
    return f"{100 * low:.2f} … {100 * high:.2f} %"


def optional(number: float | None, form: str) -> str:
    """A dash for what wasn't measured."""
    return UNKNOWN if number is None else form.format(number)


def size(num_bytes: int | None) -> str:
    """Bytes in units of 1024, with three digits."""
    if num_bytes is None:
        return UNKNOWN
    value, units = float(num_bytes), iter(("B", "KiB", "MiB", "GiB", "TiB"))
    unit = next(units)
    while value >= 1000 and unit != "TiB":
        value, unit = value / 1024, next(units)
    return f"{value:.3g} {unit}"


def shown(frame: pd.DataFrame) -> pd.DataFrame:
    """The cells of a table as text; counts stand beside their percentages."""
    result = pd.DataFrame(index=frame.index)
    for name in frame.columns:
        form = _FORMATS.get(name, str)
        result[name] = [UNKNOWN if pd.isna(cell) else form(cell) for cell in frame[name]]
    if "seen" not in frame.columns or "correct@1" not in frame.columns:
        return result
    for name, counted in (("accuracy@1", "correct@1"), ("accuracy@5", "correct@5")):
        result[name] = [
            UNKNOWN if pd.isna(correct) or pd.isna(seen) else accuracy(correct, seen)
            for correct, seen in zip(frame[counted], frame["seen"], strict=True)
        ]
    return result.drop(columns=["correct@1", "correct@5", "seen"])


Row = Mapping[str, object]


def published_table(runs: Sequence[TrainedRun]) -> pd.DataFrame:
    """Own runs, then published ones, in MindCV's 13 columns; what isn't known is NA."""
    return _frame([*map(_published_row, runs), *PUBLISHED], PUBLISHED_COLUMNS)


def runs_table(findings: Findings) -> pd.DataFrame:
    """One row per run: what it reached, how fast, and what it cost."""
    return _frame((_run_row(run, findings.price) for run in findings.runs), RUN_COLUMNS)


def epochs_table(runs: Sequence[TrainedRun]) -> pd.DataFrame:
    """One row per run and epoch."""
    rows = (row for run in runs for row in _epoch_rows(run))
    return _frame(rows, EPOCH_COLUMNS)


def evaluations_table(runs: Sequence[TrainedRun]) -> pd.DataFrame:
    """One row per run and resolution, with Wilson's 95 % interval of accuracy@1."""
    rows = (_evaluation_row(run, counts) for run in runs for counts in run.evaluations)
    return _frame(rows, EVALUATION_COLUMNS)


def stages_table(runs: Sequence[TrainedRun]) -> pd.DataFrame:
    """One row per run and stage: seconds, bytes, and whether an earlier run had made it."""
    rows = (_stage_row(run, stage) for run in runs for stage in run.stages)
    return _frame(rows, STAGE_COLUMNS)


def nights_table(findings: Findings) -> pd.DataFrame:
    """One row per nightly re-validation."""
    shown = {run.checkpoint_digest: run.short for run in findings.runs}
    rows = [
        {
            "began": night.began.isoformat(timespec="seconds"),
            "run": shown.get(night.checkpoint, ""),
            "outcome": night.outcome,
            "recorded correct@1": night.recorded.correct_top1 if night.recorded else None,
            "found correct@1": night.found.correct_top1 if night.found else None,
            "seen": night.found.seen if night.found else None,
            "differing": night.num_differing,
            "repairs": len(night.repairs),
            "said": night.said,
        }
        for night in findings.nights
    ]
    return _frame(rows, NIGHT_COLUMNS)


def quarantine_table(runs: Sequence[TrainedRun]) -> pd.DataFrame:
    """One row per data set and sample that was left out of it."""
    data = {run.data.shards: run.data for run in runs if run.data is not None}
    rows = (
        {"data": each.digest, "split": sample.split, "key": sample.key, "reason": sample.reason}
        for each in data.values()
        for sample in each.quarantined
    )
    return _frame(rows, QUARANTINE_COLUMNS)


def unreadable_table(findings: Findings) -> pd.DataFrame:
    """One row per thing that could not be read."""
    rows = [each.model_dump() for each in findings.unreadable]
    return _frame(rows, UNREADABLE_COLUMNS)


def all_frames(findings: Findings) -> dict[str, pd.DataFrame]:
    """Every table, by the name of its files."""
    runs = findings.runs
    return {
        "table": published_table(runs),
        "runs": runs_table(findings),
        "epochs": epochs_table(runs),
        "evaluations": evaluations_table(runs),
        "nights": nights_table(findings),
        "stages": stages_table(runs),
        "quarantine": quarantine_table(runs),
        "unreadable": unreadable_table(findings),
    }


def percent(part: int | None, whole: int | None) -> float | None:
    """A share in percent, with the two decimals that reports show."""
    if part is None or whole is None:
        return None
    return round(100 * part / whole, 2)


def compared_params(run: TrainedRun) -> tuple[int | None, str | None]:
    """What the published network has with as many classes, and how the run's own compares."""
    published = published_params(run.model, len(run.classes)) if run.classes else None
    if published is None:
        return None, None
    if published == run.params:
        return published, "equal"
    return published, f"differs by {run.params - published:+,}"


def verdict(run: TrainedRun) -> str | None:
    """What became of the run: production's, promoted, or refused and why."""
    if run.is_production:
        return f"production, suspect: {run.suspect}" if run.suspect else "production"
    if run.promotion is None:
        return None
    if run.promotion.granted:
        return "promoted"
    refused = next(each for each in run.promotion.criteria if not each.passed)
    return f"refused: {refused.name}: {refused.detail}"


def _accuracy(counts: Evaluation | None) -> Row:
    if counts is None:
        return {}
    low, high = counts.interval_top1
    return {
        "accuracy@1": percent(counts.correct_top1, counts.seen),
        "95 % from": round(100 * low, 2),
        "95 % to": round(100 * high, 2),
        "accuracy@5": percent(counts.correct_top5, counts.seen),
        "correct@1": counts.correct_top1,
        "correct@5": counts.correct_top5,
        "seen": counts.seen,
    }


def _published_row(run: TrainedRun) -> Row:
    end, counts = run.history.end, run.evaluation
    side = run.recipe.image_resize if counts is None else counts.resolution
    numbers = {
        "graph compile": end.compile_seconds,
        "ms/step": end.ms_per_step_p50,
        "img/s": end.images_per_second,
    }
    note = _not_finite(numbers)
    starts = run.history.starts
    accuracy = _accuracy(counts)
    return {
        "model name": run.model,
        "params(M)": round(run.params / 1e6, 2),
        "cards": run.world_size,
        "batch size": run.global_batch_size // run.world_size,
        "resolution": f"{side}x{side}",
        "jit level": starts[-1].jit_level if starts else None,
        **numbers,
        "acc@top1": accuracy.get("accuracy@1"),
        "acc@top5": accuracy.get("accuracy@5"),
        "recipe": f"{run.recipe.name}, {run.world_size}x {run.device_target}, run {run.short}"
        + (f" ({note})" if note else ""),
        "weight": run.checkpoint_digest[: len(run.short)],
    }


def _run_row(run: TrainedRun, price: float | None) -> Row:
    end, counts, data = run.history.end, run.evaluation, run.data
    numbers = {
        "loss": counts.loss if counts else None,
        "ms/step p50": end.ms_per_step_p50,
        "ms/step p90": end.ms_per_step_p90,
        "ms/step p99": end.ms_per_step_p99,
        "img/s": end.images_per_second,
        "data-wait share": end.data_wait_share,
        "compile seconds": end.compile_seconds,
        "train seconds": run.train_seconds,
        "device-hours": run.device_hours,
    }
    hours = run.device_hours
    published, compared = compared_params(run)
    said = [_not_finite(numbers), None if counts else "not evaluated"]
    return {
        "run": run.short,
        "key": run.run,
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
        "parameters are": compared,
        **_accuracy(counts),
        **numbers,
        "cost": None if price is None or hours is None else round(hours * price, 6),
        "bytes": sum(stage.num_bytes or 0 for stage in run.stages),
        "restarts": end.restarts,
        "quarantined": len(data.quarantined) if data else None,
        "device": run.device_target,
        "mindspore": run.mindspore,
        "checkpoint": run.checkpoint_digest,
        "note": "; ".join(each for each in said if each) or None,
    }


def _epoch_rows(run: TrainedRun) -> Iterable[Row]:
    last_rates = {step.epoch: step.lr for step in run.history.steps}
    return (_epoch_row(run, epoch, last_rates.get(epoch.epoch)) for epoch in run.history.epochs)


def _epoch_row(run: TrainedRun, line: EpochLine, last_rate: float | None) -> Row:
    numbers = {
        "train loss": line.train_loss,
        "lr at the end": last_rate,
        "validation loss": line.validation_loss,
        "seconds": line.seconds,
    }
    return {
        "run": run.short,
        "epoch": line.epoch + 1,
        **numbers,
        "accuracy@1": percent(line.correct_top1, line.seen),
        "accuracy@5": percent(line.correct_top5, line.seen),
        "correct@1": line.correct_top1,
        "correct@5": line.correct_top5,
        "seen": line.seen,
        "note": _not_finite(numbers),
    }


def _evaluation_row(run: TrainedRun, counts: Evaluation) -> Row:
    return {
        "run": run.short,
        "recipe": run.recipe.name,
        "split": counts.split,
        "resolution": f"{counts.resolution}x{counts.resolution}",
        **_accuracy(counts),
        "loss": counts.loss,
        "calibration error": counts.calibration_error,
    }


def _stage_row(run: TrainedRun, stage: StageTime) -> Row:
    return {
        "run": run.short,
        "stage": stage.stage,
        "artifact": stage.artifact,
        "digest": stage.digest,
        "seconds": stage.seconds,
        "bytes": stage.num_bytes,
        "reused": stage.reused,
    }


def _not_finite(numbers: Mapping[str, float | None]) -> str | None:
    """Says which numbers are NaN or infinite: a table shows such a cell as NA."""
    faults = [
        f"{name} is {number}"
        for name, number in numbers.items()
        if number is not None and not math.isfinite(number)
    ]
    return "not finite: " + ", ".join(faults) if faults else None


def _frame(rows: Iterable[Row], columns: Mapping[str, str]) -> pd.DataFrame:
    cells = [[_cell(row.get(name)) for name in columns] for row in rows]
    return pd.DataFrame(cells, columns=list(columns), dtype=object).astype(dict(columns))


def _cell(value: object) -> object:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return pd.NA
    return value
