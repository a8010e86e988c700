"""The speeds of two runs: the difference, how sure it is, and what else differs between them."""

import math
from collections.abc import Iterator
from typing import NamedTuple

from sknet.report.contents import TrainedRun
from sknet.significance import Z_95, Interval


class Difference(NamedTuple):
    """A circumstance of the speed in which two runs differ, or may."""

    name: str
    first: str
    second: str


BUSY = 0.1
"""Load by others, as a fraction of the processor's cores, from which a machine counts as busy."""


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


def circumstances(first: TrainedRun, second: TrainedRun) -> list[Difference]:
    """Return what differs between two runs that a speed depends on."""
    return [each for each in _circumstances(first, second) if each.first != each.second]


def _circumstances(first: TrainedRun, second: TrainedRun) -> Iterator[Difference]:
    runs = (first, second)
    yield Difference("machine", *(run.machine or "unknown" for run in runs))
    yield Difference("processor", *(run.processor or "unknown" for run in runs))
    yield Difference("load by others", *(load_text(run) for run in runs))
    for name in sorted(first.software.keys() | second.software.keys()):
        yield Difference(name, *(run.software.get(name, "unknown") for run in runs))
    yield Difference("model", *(run.model for run in runs))
    yield Difference("ranks", *(str(run.world_size) for run in runs))
    yield Difference("global batch", *(str(run.global_batch_size) for run in runs))
    yield Difference("device", *(run.device_target for run in runs))
    yield Difference("resolution", *(str(run.recipe.image_resize) for run in runs))


def load_text(run: TrainedRun) -> str:
    """Return how busy other programs kept the machine during the training, in words."""
    if run.load is None:
        return "not recorded"
    return "idle" if run.load < BUSY else f"{100 * run.load:.0f} % of the cores"


def speed_sentences(first: TrainedRun, second: TrainedRun) -> list[str]:
    """Return what can be said of the speeds of two runs, without more than was measured."""
    ends = (first.history.end.ms_per_step_p50, second.history.end.ms_per_step_p50)
    if not all(each is not None and math.isfinite(each) and each > 0 for each in ends):
        return ["Speed can't be compared: a run logged no step times."]
    of_first, of_second = median_step(first), median_step(second)
    sentences = [
        f"Median step: {_text(ends[1], of_second)} against {_text(ends[0], of_first)}: "
        f"{_verdict(of_first, of_second)}."
    ]
    differing = circumstances(first, second)
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
