"""Tables: the 13 columns that MindCV publishes, the epochs, and the evaluations."""

import math
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from sknet.report.runs import EpochLine, TrainedRun

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
    "accuracy@1": "Float64",  # percent
    "95 % from": "Float64",
    "95 % to": "Float64",
    "accuracy@5": "Float64",
    "loss": "Float64",
    "correct@1": "Int64",
    "correct@5": "Int64",
    "seen": "Int64",
    "note": "string",
}

_ON_ASCEND = {"cards": 8, "batch size": 64, "resolution": "224x224", "jit level": "O2"}
_MINDCV = {"cards": 8, "batch size": 64, "resolution": "224x224", "recipe": "published: MindCV"}
_TIMM = {"resolution": "224x224", "recipe": "published: timm"}
_PAPER = "published: paper"

# ImageNet-1K. MindCV's configs/sknet/README.md and model list; timm's results; the paper's table
# (100 minus its errors). MindCV counts the statistics of BatchNorm as parameters.
PUBLISHED: tuple[Mapping[str, object], ...] = (
    {
        **_ON_ASCEND,
        "model name": "skresnet18",
        "params(M)": 11.97,
        "graph compile": 134.0,
        "ms/step": 46.83,
        "img/s": 10933.16,
        "acc@top1": 72.85,
        "acc@top5": 90.83,
        "recipe": "published: MindCV, 8x Ascend 910*",
    },
    {
        **_ON_ASCEND,
        "model name": "skresnet18",
        "params(M)": 11.97,
        "graph compile": 60.0,
        "ms/step": 45.84,
        "img/s": 11169.28,
        "acc@top1": 73.09,
        "acc@top5": 91.20,
        "recipe": "published: MindCV, 8x Ascend 910",
    },
    {**_MINDCV, "model name": "skresnet34", "params(M)": 22.31, "acc@top1": 76.71}
    | {"acc@top5": 93.10},
    {**_MINDCV, "model name": "skresnext50_32x4d", "params(M)": 37.31, "acc@top1": 79.08}
    | {"acc@top5": 94.60, "recipe": "published: MindCV (built without groups, not SKNet-50)"},
    {**_TIMM, "model name": "skresnet18", "params(M)": 11.96, "acc@top1": 73.02}
    | {"acc@top5": 91.17},
    {**_TIMM, "model name": "skresnet34", "params(M)": 22.28, "acc@top1": 76.96}
    | {"acc@top5": 93.32},
    {**_TIMM, "model name": "skresnext50_32x4d", "params(M)": 27.48, "acc@top1": 80.17}
    | {"acc@top5": 94.64},
    {"model name": "SKNet-50", "resolution": "224x224", "acc@top1": 79.21, "recipe": _PAPER},
    {"model name": "SKNet-50", "resolution": "320x320", "acc@top1": 80.68, "recipe": _PAPER},
    {"model name": "SKNet-101", "resolution": "224x224", "acc@top1": 79.81, "recipe": _PAPER},
    {"model name": "SKNet-101", "resolution": "320x320", "acc@top1": 81.60, "recipe": _PAPER},
)


def published_table(runs: Sequence[TrainedRun]) -> pd.DataFrame:
    """Own runs, then published ones, in MindCV's 13 columns; what isn't known is NA."""
    return _frame([*map(_published_row, runs), *PUBLISHED], PUBLISHED_COLUMNS)


def epochs_table(runs: Sequence[TrainedRun]) -> pd.DataFrame:
    """One row per run and epoch."""
    rows = [_epoch_row(run, epoch) for run in runs for epoch in run.history.epochs]
    return _frame(rows, EPOCH_COLUMNS)


def evaluations_table(runs: Sequence[TrainedRun]) -> pd.DataFrame:
    """One row per run: its final evaluation, with Wilson's 95 % interval of accuracy@1."""
    return _frame(map(_evaluation_row, runs), EVALUATION_COLUMNS)


def percent(part: int | None, whole: int | None) -> float | None:
    """A share in percent, with the two decimals that reports show."""
    if part is None or whole is None:
        return None
    return round(100 * part / whole, 2)


def _published_row(run: TrainedRun) -> Mapping[str, object]:
    end, counts = run.history.end, run.evaluation
    numbers = {
        "graph compile": end.compile_seconds,
        "ms/step": end.ms_per_step_p50,
        "img/s": end.images_per_second,
    }
    note = _not_finite(numbers)
    starts = run.history.starts
    return {
        "model name": run.model,
        "params(M)": round(run.params / 1e6, 2),
        "cards": run.world_size,
        "batch size": run.global_batch_size // run.world_size,
        "resolution": f"{counts.resolution}x{counts.resolution}",
        "jit level": starts[-1].jit_level if starts else None,
        **numbers,
        "acc@top1": percent(counts.correct_top1, counts.seen),
        "acc@top5": percent(counts.correct_top5, counts.seen),
        "recipe": f"{run.recipe.name}, {run.world_size}x {run.device_target}, run {run.short}"
        + (f" ({note})" if note else ""),
        "weight": run.checkpoint_digest[: len(run.short)],
    }


def _epoch_row(run: TrainedRun, line: EpochLine) -> Mapping[str, object]:
    rates = [step.lr for step in run.history.steps if step.epoch == line.epoch]
    numbers = {
        "train loss": line.train_loss,
        "lr at the end": rates[-1] if rates else None,
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


def _evaluation_row(run: TrainedRun) -> Mapping[str, object]:
    counts = run.evaluation
    low, high = counts.interval_top1
    return {
        "run": run.short,
        "recipe": run.recipe.name,
        "split": counts.split,
        "resolution": f"{counts.resolution}x{counts.resolution}",
        "accuracy@1": percent(counts.correct_top1, counts.seen),
        "95 % from": round(100 * low, 2),
        "95 % to": round(100 * high, 2),
        "accuracy@5": percent(counts.correct_top5, counts.seen),
        "loss": counts.loss,
        "correct@1": counts.correct_top1,
        "correct@5": counts.correct_top5,
        "seen": counts.seen,
        "note": _not_finite({"loss": counts.loss}),
    }


def _not_finite(numbers: Mapping[str, float | None]) -> str | None:
    """Says which numbers are NaN or infinite: a table shows such a cell as NA."""
    faults = [
        f"{name} is {number}"
        for name, number in numbers.items()
        if number is not None and not math.isfinite(number)
    ]
    return "not finite: " + ", ".join(faults) if faults else None


def _frame(rows: Iterable[Mapping[str, object]], columns: Mapping[str, str]) -> pd.DataFrame:
    cells = [[_cell(row.get(name)) for name in columns] for row in rows]
    return pd.DataFrame(cells, columns=list(columns), dtype=object).astype(dict(columns))


def _cell(value: object) -> object:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return pd.NA
    return value
