"""Accuracy on parts of the validation images, by size and brightness, and single predictions."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from sknet.report.cells import Row, interval_cells, table_of
from sknet.report.contents import TrainedRun
from sknet.significance import Interval, independent_difference, wilson

Samples = Mapping[str, pd.DataFrame]
"""The measured images that each run predicted, by the key of the run. The columns are those of
`MeasuredSample`, and `predicted` (a label), `probability` and `correct`."""

NUM_PARTS = 3

MIN_SAMPLES = 30
"""Fewest measured images that are divided into parts."""

MAX_SHOWN = 12
"""Most single predictions that are shown of a run, half of them wrong ones if there are as many."""

SLICE_COLUMNS = {
    "run": "string",
    "by": "string",
    "from": "Float64",  # pixels, or grey values of 0 to 255
    "to": "Float64",
    "samples": "Int64",
    "correct": "Int64",
    "accuracy@1": "Float64",  # percent
    "accuracy@1 95 % from": "Float64",
    "accuracy@1 95 % to": "Float64",
}


class Slice(NamedTuple):
    """A part of the images, and how many of it are predicted correctly."""

    by: str
    low: float
    high: float
    correct: int
    seen: int
    rest: tuple[int, int]
    """Correct and all images of the other parts."""

    @property
    def accuracy(self) -> Interval:
        """Accuracy@1 with Wilson's interval."""
        return wilson(self.correct, self.seen)

    @property
    def difference(self) -> Interval:
        """Accuracy@1 minus that of the other parts, with Newcombe's interval."""
        return independent_difference(self.rest, (self.correct, self.seen))


def slices_of(samples: pd.DataFrame) -> list[Slice]:
    """Return the parts of images by shorter side and by brightness, three of about equal size.

    Fewer parts, if many images have the same value, and none where all have.
    """
    if len(samples) < MIN_SAMPLES:
        return []
    shorter = samples[["width", "height"]].min(axis=1)
    features = {"shorter side, pixels": shorter, "brightness": samples["brightness"]}
    return [each for by, values in features.items() for each in _parts(by, values, samples)]


def _parts(by: str, values: "pd.Series[float]", samples: pd.DataFrame) -> Iterator[Slice]:
    parts = pd.qcut(values, NUM_PARTS, labels=False, duplicates="drop")
    numbers = sorted(set(parts.dropna()))
    correct, seen = int(samples["correct"].sum()), len(samples)
    for number in numbers if len(numbers) > 1 else ():
        inside = parts == number
        right, count = int(samples["correct"][inside].sum()), int(inside.sum())
        low, high = float(values[inside].min()), float(values[inside].max())
        yield Slice(by, low, high, right, count, (correct - right, seen - count))


def slices_table(runs: Sequence[TrainedRun], samples: Samples) -> pd.DataFrame:
    """Return one row for each part of the images of each run."""
    rows = (
        _row(run, each)
        for run in runs
        if run.key in samples
        for each in slices_of(samples[run.key])
    )
    return table_of(rows, SLICE_COLUMNS)


def slices_as_text(samples: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each part of the images, as a reader sees it."""
    rows = [
        {
            "by": each.by,
            "from … to": f"{each.low:.0f} … {each.high:.0f}",
            "accuracy@1": f"{100 * each.accuracy.value:.2f} % ({each.correct}/{each.seen})",
            "95 % interval": f"{100 * each.accuracy.low:.2f} … {100 * each.accuracy.high:.2f} %",
            "beside the other parts": _verdict(each.difference),
        }
        for each in slices_of(samples)
    ]
    return pd.DataFrame(rows, dtype="string")


def shown_predictions(samples: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Return predictions to show of the images with these keys: wrong ones, then right ones.

    The most confident wrong ones come first, and of the right ones the least confident.
    """
    known = samples[samples["key"].isin(keys)]
    wrong = known[~known["correct"]].sort_values(["probability", "key"], ascending=[False, True])
    right = known[known["correct"]].sort_values(["probability", "key"])
    num_wrong = min(len(wrong), max(MAX_SHOWN // 2, MAX_SHOWN - len(right)))
    return pd.concat([wrong.head(num_wrong), right.head(MAX_SHOWN - num_wrong)])


def _row(run: TrainedRun, part: Slice) -> Row:
    return {
        "run": run.short_key,
        "by": part.by,
        "from": part.low,
        "to": part.high,
        "samples": part.seen,
        "correct": part.correct,
        **interval_cells("accuracy@1", part.accuracy),
    }


def _verdict(difference: Interval) -> str:
    text = f"{100 * difference.value:+.2f} points"
    if difference.high < 0:
        return f"lower, {text}"
    if difference.low > 0:
        return f"higher, {text}"
    return f"no difference is shown, {text}"
