"""A comparison in sentences and tables, for pages and terminals alike."""

import pandas as pd

from sknet.report.comparison import AccuracyChange, Comparison
from sknet.report.numbers import accuracy


def sentences(comparison: Comparison) -> list[str]:
    """What the comparison comes to, the most important first."""
    said = [_accuracy_sentence(change) for change in comparison.accuracies]
    if not said:
        said.append("Accuracy can't be compared: no resolution at which both were evaluated.")
    ratio = comparison.speed_ratio
    if ratio is None:
        said.append("Speed can't be compared: a run logged no step times.")
    else:
        first = comparison.first.history.end.ms_per_step_p50
        second = comparison.second.history.end.ms_per_step_p50
        said.append(
            f"Speed: the median step takes {second:.2f} ms against {first:.2f} ms, {ratio:.2f} "
            "times as fast."
        )
    if not comparison.changes:
        said.append("Nothing differs in recipe, data, software or layout.")
    return said


def changes_frame(comparison: Comparison) -> pd.DataFrame:
    """What differs, a row each."""
    rows = [
        {
            "of": change.of,
            "what": change.name,
            comparison.first.short: _short(change.first),
            comparison.second.short: _short(change.second),
        }
        for change in comparison.changes
    ]
    return pd.DataFrame(rows, dtype="string")


def accuracy_frame(comparison: Comparison) -> pd.DataFrame:
    """Accuracy@1 of both, and the difference with its interval, a row for each resolution."""
    rows = [
        {
            "resolution": f"{change.resolution}x{change.resolution}",
            comparison.first.short: accuracy(change.first.correct_top1, change.first.seen),
            comparison.second.short: accuracy(change.second.correct_top1, change.second.seen),
            "difference": f"{100 * change.difference.value:+.2f} points",
            "95 % interval": f"{100 * change.difference.low:+.2f} … "
            f"{100 * change.difference.high:+.2f}",
            "samples": "the same" if change.paired else "taken as independent",
            "only first / only second correct": (
                f"{change.paired.only_first} / {change.paired.only_second}"
                if change.paired
                else "unknown"
            ),
            "McNemar's p": "unknown" if change.p_value is None else f"{change.p_value:.4g}",
        }
        for change in comparison.accuracies
    ]
    return pd.DataFrame(rows, dtype="string")


def _accuracy_sentence(change: AccuracyChange) -> str:
    difference = change.difference
    side = f"{change.resolution}x{change.resolution}"
    if difference.low > 0:
        verdict = "the second is better"
    elif difference.high < 0:
        verdict = "the first is better"
    else:
        verdict = "no difference is shown: the interval includes 0"
    how = "the same samples" if change.paired else "samples taken as independent"
    test = "" if change.p_value is None else f", McNemar's exact p = {change.p_value:.4g}"
    return (
        f"Accuracy@1 at {side}: {100 * difference.value:+.2f} points, 95 % interval "
        f"{100 * difference.low:+.2f} … {100 * difference.high:+.2f} ({how}{test}): {verdict}."
    )


def _short(text: str) -> str:
    """Of a digest, the digits that people see."""
    return text[:10] if len(text) == 64 and set(text) <= set("0123456789abcdef") else text
