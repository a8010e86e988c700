"""Two runs side by side: what was chosen otherwise, and what that did to accuracy and speed."""

from collections.abc import Iterable, Mapping
from typing import Any

from sknet.errors import UserError
from sknet.records import Evaluation
from sknet.report.findings import Finding, Findings, TrainedRun
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
