"""Runs side by side: how their choices differ, and how their accuracy and speed do."""

from collections.abc import Iterable, Mapping

import pandas as pd

from sknet.errors import UserError
from sknet.records import Evaluation
from sknet.report.cells import resolution_text
from sknet.report.changes import Change, changes_between
from sknet.report.contents import SHORT_KEY_LENGTH, ReportContents, ReportRecord, TrainedRun
from sknet.report.speed import speed_sentences
from sknet.report.text import accuracy_text
from sknet.significance import (
    Interval,
    PairedCounts,
    independent_difference,
    mcnemar_p_value,
    paired_difference,
)

MIN_KEY_DIGITS = 4
"""Fewest digits of a key that may name a run."""


class AccuracyChange(ReportRecord):
    """Accuracy@1 of two runs at one resolution, and its difference."""

    resolution: int
    first: Evaluation
    second: Evaluation
    difference: Interval
    """The second accuracy minus the first, as fractions."""
    paired: PairedCounts | None
    """Counts over the samples if both runs predicted the same ones, else None."""
    p_value: float | None
    """Two-sided p value of McNemar's exact test, if the samples are paired."""


class RunComparison(ReportRecord):
    """Two runs side by side."""

    first: TrainedRun
    second: TrainedRun
    changes: tuple[Change, ...]
    accuracies: tuple[AccuracyChange, ...]
    """One for each resolution at which both runs were evaluated."""


def find_run(contents: ReportContents, name: str, refs: Mapping[str, str]) -> TrainedRun:
    """Return the run that a name stands for.

    Args:
        contents: The runs to choose from.
        name: The name of a ref, or the first digits of a run's key.
        refs: The checkpoint digest that each ref points to, by the ref's name.

    Raises:
        UserError: The name stands for no run, or for more than one.
    """
    if name in refs:
        found = [run for run in contents.runs if run.checkpoint_digest == refs[name]]
        if not found:
            raise UserError(f"refs/{name} points to no run that the report can read")
        return found[0]
    runs = {run.key: run for run in contents.runs}
    if key := key_beginning_with(name, runs):
        return runs[key]
    some_runs = ", ".join(run.short_key for run in contents.runs[:5]) or "none"
    known_refs = f"; refs: {', '.join(sorted(refs))}" if refs else ""
    raise UserError(
        f"no run or ref {name!r}: expected the beginning of a run's key; the newest runs are "
        f"{some_runs}{known_refs}"
    )


def key_beginning_with(name: str, keys: Iterable[str]) -> str | None:
    """Return the key of a run that begins with a name; None if there is none.

    Raises:
        UserError: Several do, or the name has too few digits to stay unique in a growing store.
    """
    found = [key for key in keys if key.startswith(name)]
    if len(found) > 1 or (found and len(name) < MIN_KEY_DIGITS):
        shown = ", ".join(key[:SHORT_KEY_LENGTH] for key in found[:5])
        raise UserError(
            f"{name!r} is the beginning of {len(found)} runs ({shown}): give more digits of "
            f"the key, at least {MIN_KEY_DIGITS}"
        )
    return found[0] if found else None


def refuse_same_run(chosen: Iterable[tuple[str, str]]) -> None:
    """Check that names stand for different runs.

    Args:
        chosen: Each name, and the key of the run that it stands for.

    Raises:
        UserError: Two stand for the same run.
    """
    names: dict[str, str] = {}
    for name, key in chosen:
        if key in names:
            raise UserError(
                f"{names[key]!r} and {name!r} are the same run, {key[:SHORT_KEY_LENGTH]}: name "
                "different ones"
            )
        names[key] = name


def compare_runs(
    first: TrainedRun, second: TrainedRun, paired: Mapping[int, PairedCounts] | None = None
) -> RunComparison:
    """Return the differences of two runs.

    Args:
        first: The run to compare with.
        second: The run that is compared.
        paired: Counts over the samples that both runs predicted, by resolution. At a resolution
            that is missing, the samples are treated as independent.
    """
    pairs = paired or {}
    of_second = {counts.resolution: counts for counts in second.evaluations}
    return RunComparison(
        first=first,
        second=second,
        changes=tuple(changes_between(first, second)),
        accuracies=tuple(
            _accuracy_change(counts, of_second[counts.resolution], pairs.get(counts.resolution))
            for counts in first.evaluations
            if counts.resolution in of_second
        ),
    )


def conclusions(comparison: RunComparison) -> list[str]:
    """Return what the comparison shows, in sentences, the most important first."""
    sentences = [_accuracy_sentence(change) for change in comparison.accuracies]
    if not sentences:
        sentences.append("Accuracy can't be compared: no resolution at which both were evaluated.")
    sentences += speed_sentences(comparison.first, comparison.second, comparison.changes)
    if not comparison.changes:
        sentences.append("Nothing differs in recipe, data, software, layout or machine.")
    return sentences


def changes_table(comparison: RunComparison) -> pd.DataFrame:
    """Return a table with one row for each property in which the runs differ."""
    rows = [
        {
            "part": change.part,
            "name": change.name,
            comparison.first.short_key: _shortened_digest(change.first),
            comparison.second.short_key: _shortened_digest(change.second),
        }
        for change in comparison.changes
    ]
    return pd.DataFrame(rows, dtype="string")


def accuracy_table(comparison: RunComparison) -> pd.DataFrame:
    """Return a table with both accuracies and their difference, one row for each resolution."""
    rows = [
        {
            "resolution": resolution_text(change.resolution),
            comparison.first.short_key: accuracy_text(change.first.correct_top1, change.first.seen),
            comparison.second.short_key: accuracy_text(
                change.second.correct_top1, change.second.seen
            ),
            "difference": f"{100 * change.difference.value:+.2f} points",
            "95 % interval": f"{100 * change.difference.low:+.2f} … "
            f"{100 * change.difference.high:+.2f}",
            "samples": "the same" if change.paired else "treated as independent",
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


def _accuracy_change(
    first: Evaluation, second: Evaluation, paired: PairedCounts | None
) -> AccuracyChange:
    # Predictions that contradict the evaluations' counts are not used.
    if paired is not None and not (
        paired.seen == first.seen == second.seen
        and paired.both + paired.only_first == first.correct_top1
        and paired.both + paired.only_second == second.correct_top1
    ):
        paired = None
    if paired is None:
        difference = independent_difference(
            (first.correct_top1, first.seen), (second.correct_top1, second.seen)
        )
    else:
        difference = paired_difference(paired)
    return AccuracyChange(
        resolution=first.resolution,
        first=first,
        second=second,
        difference=difference,
        paired=paired,
        p_value=None if paired is None else mcnemar_p_value(paired),
    )


def _accuracy_sentence(change: AccuracyChange) -> str:
    difference = change.difference
    if difference.low > 0:
        verdict = "the second is better"
    elif difference.high < 0:
        verdict = "the first is better"
    else:
        verdict = "no difference is shown: the interval includes 0"
    samples = "the same samples" if change.paired else "samples treated as independent"
    test = "" if change.p_value is None else f", McNemar's exact p = {change.p_value:.4g}"
    return (
        f"Accuracy@1 at {resolution_text(change.resolution)}: {100 * difference.value:+.2f} "
        f"points, 95 % interval {100 * difference.low:+.2f} … {100 * difference.high:+.2f} "
        f"({samples}{test}): {verdict}."
    )


def _shortened_digest(text: str) -> str:
    is_digest = len(text) == 64 and set(text) <= set("0123456789abcdef")
    return text[:SHORT_KEY_LENGTH] if is_digest else text
