"""Numbers as people read them: fixed decimals, counts beside percentages, a dash for unknown."""

from collections.abc import Callable
from typing import Any

import pandas as pd

from sknet.records import Evaluation

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
