"""Figures over all runs: accuracy beside published results, speed, and revalidations.

Each figure comes with a function `describe_…` that puts what it shows into words.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from sknet.records import Counts, Revalidation
from sknet.report.contents import ReportContents, TrainedRun
from sknet.report.figures import (
    BLUE,
    INK,
    MAX_LABEL_LENGTH,
    ORANGE,
    RED,
    ROW_HEIGHT,
    Drawing,
    draw,
    label_rows,
    note_empty,
    panels,
    shortened,
)
from sknet.report.published import IMAGENET_VALIDATION, PUBLISHED
from sknet.report.results import is_imagenet
from sknet.significance import wilson_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_OWN_RUNS = 6
"""Most own runs in the figure of accuracies."""

MAX_REVALIDATIONS = 180
"""Most revalidations in their figure."""

# Outcomes differ in their marker too, for readers who don't see the colours.
_OUTCOMES = {
    "as recorded": ("o", BLUE),
    "within tolerance": ("^", BLUE),
    "regressed": ("X", RED),
    "damaged": ("s", ORANGE),
}


class Accuracy(NamedTuple):
    """A row of the figure of accuracies."""

    name: str
    fraction: float
    interval: tuple[float, float]
    is_own: bool


class StepTimes(NamedTuple):
    """A row of the figure of speeds: percentiles of a run's milliseconds per step."""

    name: str
    p50: float
    p90: float
    p99: float


def accuracy_figure(contents: ReportContents) -> Drawing:
    """Draw accuracy@1 with 95 % intervals: the best runs, then published results."""
    own, published = own_accuracies(contents), published_accuracies(contents)
    rows = [*own, *published]

    def paint(figure: "Figure") -> None:
        (axes,) = panels(figure, 1, left=0.03)
        axes.set_title("Accuracy@1, %, with 95 % intervals")
        if not rows:
            note_empty(axes, "no run has been evaluated")
            return
        for y, row in enumerate(rows):
            colour = BLUE if row.is_own else INK
            low, high = row.interval
            axes.plot([100 * low, 100 * high], [y, y], color=colour, linewidth=1.6)
            axes.plot(
                [100 * row.fraction],
                [y],
                color=colour,
                marker="o",
                markersize=6,
                markerfacecolor=colour if row.is_own else "none",
            )
        labels = [
            f"{shortened(row.name, MAX_LABEL_LENGTH)}  {100 * row.fraction:.2f}" for row in rows
        ]
        label_rows(axes, labels)
        if own and published:
            axes.axhline(len(own) - 0.62, color=INK, linewidth=0.6, linestyle=":")

    height = 0.9 + ROW_HEIGHT * max(2, len(rows))
    return draw("accuracy", describe_accuracy(contents), paint, height=height)


def describe_accuracy(contents: ReportContents) -> str:
    """Return what the figure of accuracies shows, in words."""
    own, published = own_accuracies(contents), published_accuracies(contents)
    if not own:
        return "No run has been evaluated."
    best = own[0]
    low, high = (100 * bound for bound in best.interval)
    data = contents.comparable[0].data
    which = f"the best {len(own)} of {len(contents.comparable)} runs" if len(own) > 1 else "the run"
    sentences = [
        f"Accuracy@1 of {which}{f' on {data.source}' if data else ''}. "
        f"Best: {100 * best.fraction:.2f} % ({low:.2f} to {high:.2f}), {best.name}."
    ]
    if published:
        sentences.append(
            "Hollow: published results for ImageNet-1K; their intervals are computed from its "
            "50,000 validation images."
        )
    return " ".join(sentences)


def own_accuracies(contents: ReportContents) -> list[Accuracy]:
    """Return the accuracies of the best runs on the newest run's data, the best first."""
    rows = [
        Accuracy(
            f"{run.model}, {run.recipe.name}, {run.short_key}",
            run.evaluation.accuracy_top1,
            run.evaluation.interval_top1,
            is_own=True,
        )
        for run in contents.comparable
        if run.evaluation is not None
    ]
    return sorted(rows, key=lambda row: -row.fraction)[:MAX_OWN_RUNS]


def published_accuracies(contents: ReportContents) -> list[Accuracy]:
    """Return the published accuracies of the runs' models, or all; none beside other data."""
    if not any(is_imagenet(run) for run in contents.comparable):
        return []
    models = {run.model for run in contents.runs}
    results = [each for each in PUBLISHED if each.model in models] or PUBLISHED
    rows = []
    for result in results:
        name = f"{result.model} at {result.resolution}, {result.source}"
        num_correct = round(result.top1 / 100 * IMAGENET_VALIDATION)
        interval = wilson_interval(num_correct, IMAGENET_VALIDATION)
        rows.append(Accuracy(name, result.top1 / 100, interval, is_own=False))
    return rows


def speed_figure(runs: Sequence[TrainedRun]) -> Drawing:
    """Draw the step times of each run: the median, and the range to the 99th percentile."""
    rows = step_times(runs)

    def paint(figure: "Figure") -> None:
        (axes,) = panels(figure, 1, left=0.03)
        axes.set_title("Milliseconds per step: p50, p90, p99")
        for y, row in enumerate(rows):
            axes.plot([row.p50, row.p99], [y, y], color=BLUE, linewidth=1.6)
            axes.plot([row.p50], [y], "o", color=BLUE, markersize=6)
            axes.plot([row.p90], [y], "|", color=BLUE, markersize=10, markeredgewidth=1.6)
            axes.plot([row.p99], [y], "|", color=ORANGE, markersize=10, markeredgewidth=1.6)
        labels = [f"{shortened(row.name, MAX_LABEL_LENGTH)}  {row.p50:.1f}" for row in rows]
        label_rows(axes, labels)
        axes.set_xlim(left=0)

    height = max(2.2, 0.9 + ROW_HEIGHT * len(rows))
    return draw("speed", describe_speed(runs), paint, height=height)


def describe_speed(runs: Sequence[TrainedRun]) -> str:
    """Return what the figure of speeds shows, in words."""
    rows = step_times(runs)
    fastest = min(rows, key=lambda row: row.p50)
    which = f"the {len(rows)} runs" if len(rows) > 1 else "the run"
    return (
        f"Milliseconds per step of {which} shown in detail: the median as a dot, the "
        f"90th and the 99th percentile as strokes. Lowest median: {fastest.p50:.1f}, "
        f"{fastest.name}."
    )


def step_times(runs: Sequence[TrainedRun]) -> list[StepTimes]:
    """Return the step times of the runs that logged all three percentiles."""
    rows = []
    for run in runs:
        end = run.history.end
        values = (end.ms_per_step_p50, end.ms_per_step_p90, end.ms_per_step_p99)
        p50, p90, p99 = (float("nan") if value is None else value for value in values)
        if p50 < float("inf") and p90 < float("inf") and p99 < float("inf"):
            name = f"{run.model}, {run.world_size}x {run.device_target}, {run.short_key}"
            rows.append(StepTimes(name, p50, p90, p99))
    return rows


def revalidation_figure(revalidations: Sequence[Revalidation]) -> Drawing:
    """Draw the accuracy that each revalidation found, and the recorded one."""
    drawn = revalidations[-MAX_REVALIDATIONS:]
    found = [(each, _percent(each.found)) for each in drawn if each.found and each.found.seen]
    recorded = [
        (each, _percent(each.recorded)) for each in drawn if each.recorded and each.recorded.seen
    ]

    def paint(figure: "Figure") -> None:
        (axes,) = panels(figure, 1)
        axes.set_title("Accuracy@1 found by each revalidation, %")
        if recorded:
            axes.step(
                [_day(each.began) for each, _ in recorded],
                [percent for _, percent in recorded],
                where="mid",
                color=INK,
                linewidth=0.9,
                linestyle=":",
                label="recorded",
            )
        for outcome, (marker, colour) in _OUTCOMES.items():
            points = [(each.began, percent) for each, percent in found if each.outcome == outcome]
            if points:
                axes.plot(
                    [_day(began) for began, _ in points],
                    [percent for _, percent in points],
                    linestyle="none",
                    marker=marker,
                    color=colour,
                    markersize=6,
                    label=outcome,
                )
        for each in drawn:
            if each.found is None:
                axes.axvline(_day(each.began), color=ORANGE, linewidth=1.4)
        if not found and not recorded:
            note_empty(axes, "nothing could be counted")
            return
        percents = [percent for _, percent in (*found, *recorded)]
        margin = max(1.0, 0.25 * (max(percents) - min(percents)))
        axes.set_ylim(min(percents) - margin, max(percents) + margin)
        _label_days(axes)
        axes.grid(visible=True)
        axes.legend(loc="best")

    return draw("revalidations", describe_revalidations(revalidations), paint, height=3.2)


def describe_revalidations(revalidations: Sequence[Revalidation]) -> str:
    """Return what the figure of revalidations shows, in words."""
    counts = {name: sum(each.outcome == name for each in revalidations) for name in _OUTCOMES}
    outcomes = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    first, last = revalidations[0], revalidations[-1]
    num = len(revalidations)
    limit = f" The last {MAX_REVALIDATIONS} are drawn." if num > MAX_REVALIDATIONS else ""
    return (
        f"{num} revalidations from {first.began:%Y-%m-%d} to {last.began:%Y-%m-%d}: {outcomes}. "
        f"Last: {last.said.removesuffix('.')}.{limit}"
    )


def _percent(counts: Counts) -> float:
    return 100 * counts.correct_top1 / counts.seen


def _label_days(axes: "Axes") -> None:
    import matplotlib.dates

    # matplotlib gives its dates no types.
    locator = matplotlib.dates.AutoDateLocator(minticks=2, maxticks=5)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    formatter = matplotlib.dates.DateFormatter("%b %d")  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_formatter(formatter)


def _day(moment: datetime) -> float:
    """Return the days since 1970 in UTC, matplotlib's unit of time."""
    return moment.timestamp() / 86_400
