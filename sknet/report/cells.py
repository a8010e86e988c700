"""Cells of a report's tables: fractions in percent, intervals, and NA for what isn't known."""

import math
from collections.abc import Iterable, Mapping

import pandas as pd

from sknet.significance import Interval

Row = Mapping[str, object]


def percent(part: int | None, whole: int | None) -> float | None:
    """Return a fraction in percent, rounded to the two decimals that reports show."""
    if part is None or whole is None:
        return None
    return round(100 * part / whole, 2)


def resolution_text(side: int) -> str:
    """Return the resolution of square images, such as `224x224`."""
    return f"{side}x{side}"


def interval_cells(name: str, result: Interval | None) -> Row:
    """Return a result and the ends of its interval, in percent, under the names of the columns."""
    values = (None, None, None) if result is None else (round(100 * each, 2) for each in result)
    return dict(zip((name, f"{name} 95 % from", f"{name} 95 % to"), values, strict=True))


def not_finite(numbers: Mapping[str, float | None]) -> str | None:
    """Return a note that names the numbers that are NaN or infinite: their cells are NA."""
    faults = [
        f"{name} is {number}"
        for name, number in numbers.items()
        if number is not None and not math.isfinite(number)
    ]
    return "not finite: " + ", ".join(faults) if faults else None


def table_of(rows: Iterable[Row], columns: Mapping[str, str]) -> pd.DataFrame:
    """Return rows as a frame with these columns and types; what isn't known or finite is NA."""
    cells = [[_cell(row.get(name)) for name in columns] for row in rows]
    return pd.DataFrame(cells, columns=list(columns), dtype=object).astype(dict(columns))


def _cell(value: object) -> object:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return pd.NA
    return value
