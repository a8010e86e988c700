"""The speeds of two runs: the difference, how sure it is, and what else differs between them."""

import math
from collections.abc import Iterable

from sknet.report.changes import Change
from sknet.report.contents import TrainedRun
from sknet.significance import Z_95, Interval

NO_CAUSES = ("parameters", "steps")
"""Differences of layout that explain no speed: a step takes as long however many there are, and the
model says more than the number of its parameters."""


def median_step(run: TrainedRun) -> Interval | None:
    """Return the median of the milliseconds per step over the lines of the log.

    Its 95 % interval is the one from order statistics, with the normal approximation of the
    binomial distribution (David and Nagaraja, Order Statistics, 3rd edition, section 7.1). It tells
    how much the times vary within the run, and nothing of other runs. None of fewer than 6 lines,
    which have no such interval.
    """
    times = sorted(
        line.ms_per_step_p50
        for line in run.history.steps
        if line.ms_per_step_p50 is not None and math.isfinite(line.ms_per_step_p50)
    )
    num = len(times)
    half = Z_95 * math.sqrt(num) / 2
    low, high = math.floor(num / 2 - half), math.ceil(num / 2 + half)
    if low < 0 or high >= num:
        return None
    middle = (times[(num - 1) // 2] + times[num // 2]) / 2
    return Interval(middle, times[low], times[high])


def circumstances(changes: Iterable[Change]) -> list[Change]:
    """Return those differences of two runs on which a speed depends."""
    return [
        each
        for each in changes
        if (each.part in ("software", "run", "machine") and each.name not in NO_CAUSES)
        or (each.part, each.name) == ("recipe", "image_resize")
    ]


def speed_sentences(first: TrainedRun, second: TrainedRun, changes: Iterable[Change]) -> list[str]:
    """Return what can be said of the speeds of two runs, without more than was measured.

    Args:
        first: The run to compare with.
        second: The run that is compared.
        changes: In what they differ.
    """
    ends = (first.history.end.ms_per_step_p50, second.history.end.ms_per_step_p50)
    if not all(each is not None and math.isfinite(each) and each > 0 for each in ends):
        return ["Speed can't be compared: a run logged no step times."]
    of_first, of_second = median_step(first), median_step(second)
    sentences = [
        f"Median step: {_text(ends[1], of_second)} against {_text(ends[0], of_first)}: "
        f"{_verdict(of_first, of_second)}."
    ]
    differing = circumstances(changes)
    if differing:
        listed = ", ".join(f"{each.name} ({each.first} → {each.second})" for each in differing)
        sentences.append(f"The speeds were measured under other circumstances: {listed}.")
    if unknown := [run for run in (first, second) if run.load is None]:
        which = "both runs" if len(unknown) == 2 else f"run {unknown[0].short_key}"
        sentences.append(
            f"The load by other programs isn't recorded of {which}, so that they may have caused "
            "the difference: time both in turn on an idle machine."
        )
    return sentences


def _text(median: float | None, interval: Interval | None) -> str:
    if interval is None:
        return f"{median:.1f} ms"
    middle, low, high = interval
    return f"{middle:.1f} ms (95 % interval within the run {low:.1f} … {high:.1f})"


def _verdict(first: Interval | None, second: Interval | None) -> str:
    if first is None or second is None:
        return "too few log lines to tell a difference"
    if second.high < first.low:
        return "the second run's steps were shorter"
    if second.low > first.high:
        return "the second run's steps were longer"
    return "no difference is shown, as the intervals overlap"
