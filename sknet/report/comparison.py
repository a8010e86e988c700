"""Two runs side by side: what was chosen otherwise, and what that did to accuracy and speed."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from sknet.errors import UserError
from sknet.records import Evaluation
from sknet.report.findings import Finding, Findings, TrainedRun
from sknet.report.tables import accuracy
from sknet.statistics import (
    Interval,
    Paired,
    independent_difference,
    mcnemar_p,
    paired_difference,
)

FEWEST_DIGITS = 4
"""Of a key's beginning, to name a run by."""


class Change(Finding):
    """Something that differs between two runs."""

    of: str
    """`recipe`, `data`, `software` or `run`."""
    name: str
    first: str
    second: str


class AccuracyChange(Finding):
    """The second run's accuracy@1 against the first one's, at one resolution."""

    resolution: int
    first: Evaluation
    second: Evaluation
    difference: Interval
    """Second minus first, as a share."""
    paired: Paired | None
    """If both predicted the same samples."""
    p_value: float | None
    """McNemar's exact test, if paired."""


class Comparison(Finding):
    """Two runs side by side."""

    first: TrainedRun
    second: TrainedRun
    changes: tuple[Change, ...]
    accuracies: tuple[AccuracyChange, ...]
    """At the resolutions that both were evaluated at."""

    @property
    def speed_ratio(self) -> float | None:
        """How many times as fast the second one's median step is."""
        first = self.first.history.end.ms_per_step_p50
        second = self.second.history.end.ms_per_step_p50
        return first / second if first and second else None


def find_run(findings: Findings, name: str, refs: Mapping[str, str]) -> TrainedRun:
    """The run that a key's beginning or a ref names; `refs` gives each ref's checkpoint digest.

    Raises UserError if there is none, or more than one.
    """
    if name in refs:
        found = [run for run in findings.runs if run.checkpoint_digest == refs[name]]
        if not found:
            raise UserError(f"refs/{name} points to no run that the report can read")
        return found[0]
    found = [run for run in findings.runs if run.run.startswith(name)]
    if len(found) == 1 and len(name) >= FEWEST_DIGITS:
        return found[0]
    shown = ", ".join(run.short for run in (found or findings.runs)[:5]) or "none"
    if len(found) > 1 or (found and len(name) < FEWEST_DIGITS):
        raise UserError(
            f"{name!r} is the beginning of {len(found)} runs ({shown}): give at least "
            f"{FEWEST_DIGITS} digits, and as many as tell one from the others"
        )
    known = f"; refs: {', '.join(sorted(refs))}" if refs else ""
    raise UserError(
        f"no run or ref {name!r}: expected the beginning of a run's key; the newest runs are "
        f"{shown}{known}"
    )


def compare_runs(
    first: TrainedRun, second: TrainedRun, paired: Mapping[int, Paired] | None = None
) -> Comparison:
    """What differs; `paired` has the counts of the same samples by resolution, where there are."""
    pairs = paired or {}
    seconds = {counts.resolution: counts for counts in second.evaluations}
    return Comparison(
        first=first,
        second=second,
        changes=tuple(_changes(first, second)),
        accuracies=tuple(
            _accuracy_change(counts, seconds[counts.resolution], pairs.get(counts.resolution))
            for counts in first.evaluations
            if counts.resolution in seconds
        ),
    )


def _accuracy_change(
    first: Evaluation, second: Evaluation, paired: Paired | None
) -> AccuracyChange:
    agree = paired is not None and (
        paired.seen == first.seen == second.seen
        and paired.both + paired.only_first == first.correct_top1
        and paired.both + paired.only_second == second.correct_top1
    )
    if paired is None or not agree:
        difference = independent_difference(
            (first.correct_top1, first.seen), (second.correct_top1, second.seen)
        )
        paired = None
    else:
        difference = paired_difference(paired)
    return AccuracyChange(
        resolution=first.resolution,
        first=first,
        second=second,
        difference=difference,
        paired=paired,
        p_value=None if paired is None else mcnemar_p(paired),
    )


def _changes(first: TrainedRun, second: TrainedRun) -> Iterable[Change]:
    parts = (
        ("recipe", _recipe(first), _recipe(second)),
        ("data", _data(first), _data(second)),
        ("software", first.software, second.software),
        ("run", _layout(first), _layout(second)),
    )
    for of, own, other in parts:
        for name in sorted(own.keys() | other.keys()):
            one, two = str(own.get(name, "absent")), str(other.get(name, "absent"))
            if one != two:
                yield Change(of=of, name=name, first=one, second=two)


def _recipe(run: TrainedRun) -> dict[str, Any]:
    return run.recipe.choices()


def _data(run: TrainedRun) -> dict[str, Any]:
    if run.data is None:
        return {}
    return {
        "source": run.data.source,
        "samples": run.data.digest,
        "shards": run.data.shards,
        "quarantined": len(run.data.quarantined),
        **{f"{split} samples": count for split, count in run.data.splits.items()},
    }


def _layout(run: TrainedRun) -> dict[str, Any]:
    return {
        "model": run.model,
        "parameters": run.params,
        "ranks": run.world_size,
        "global batch": run.global_batch_size,
        "device": run.device_target,
        "steps": run.steps,
    }


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
