"""Figures over all runs: accuracy beside what others published, speed, and the nights."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from sknet.records import Revalidation
from sknet.report.figures import (
    BLUE,
    INK,
    ORANGE,
    RED,
    draw,
    panels,
    say_empty,
    shortened,
)
from sknet.report.findings import Findings, TrainedRun
from sknet.report.published import IMAGENET_VALIDATION, PUBLISHED
from sknet.statistics import wilson_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_OWN = 6
MOST_NIGHTS = 180
ROW_INCHES = 0.36

# A form of its own for each outcome: colour alone tells not everybody.
_OUTCOMES = {
    "as recorded": ("o", BLUE),
    "within tolerance": ("^", BLUE),
    "regressed": ("X", RED),
    "damaged": ("s", ORANGE),
}


class _Row(NamedTuple):
    name: str
    share: float
    interval: tuple[float, float]
    is_own: bool


def accuracy_figure(findings: Findings) -> str:
    """Accuracy@1 with 95 % intervals: the best own runs, then what was published."""
    own, others = own_rows(findings), published_rows(findings)
    rows = [*own, *others]

    def paint(figure: "Figure") -> None:
        (axes,) = panels(figure, 1, left=0.03)
        axes.set_title("Accuracy@1, %, with 95 % intervals")
        for place, row in enumerate(rows):
            colour = BLUE if row.is_own else INK
            low, high = row.interval
            axes.plot([100 * low, 100 * high], [place, place], color=colour, linewidth=1.6)
            axes.plot(
                [100 * row.share],
                [place],
                color=colour,
                marker="o",
                markersize=6,
                markerfacecolor=colour if row.is_own else "none",
            )
            name = f"{shortened(row.name, 44)}  {100 * row.share:.2f}"
            axes.text(
                0,
                place - 0.36,
                name,
                fontsize=10,
                va="center",
                transform=axes.get_yaxis_transform(),
            )
        axes.set_ylim(len(rows) - 0.5, -0.85)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.grid(visible=True, axis="x")
        if own and others:
            axes.axhline(len(own) - 0.62, color=INK, linewidth=0.6, linestyle=":")

    return draw("accuracy", describe_accuracy(findings), paint, height=0.9 + ROW_INCHES * len(rows))


def describe_accuracy(findings: Findings) -> str:
    """What the figure shows, in words."""
    own = own_rows(findings)
    said = "Published results are of ImageNet-1K, their intervals of its 50,000 validation images."
    if not own:
        return f"Accuracy@1 as published. {said}"
    best = own[0]
    low, high = (100 * bound for bound in best.interval)
    return (
        f"Accuracy@1 of own runs (the best {len(own)}), filled, and of published ones, hollow. "
        f"Best: {100 * best.share:.2f} % ({low:.2f} to {high:.2f}), {best.name}. {said}"
    )


def own_rows(findings: Findings) -> list[_Row]:
    """The best runs, the best first."""
    rows = [
        _Row(
            f"{run.model}, {run.recipe.name}, {run.short}",
            run.evaluation.correct_top1 / run.evaluation.seen,
            run.evaluation.interval_top1,
            is_own=True,
        )
        for run in findings.runs
        if run.evaluation is not None
    ]
    return sorted(rows, key=lambda row: -row.share)[:MOST_OWN]


def published_rows(findings: Findings) -> list[_Row]:
    """Of the models that were trained here; of all of them if none of these was published."""
    rows: list[tuple[str, _Row]] = []
    for row in PUBLISHED:
        share = float(str(row["acc@top1"])) / 100
        source = str(row["recipe"]).removeprefix("published: ").split(" (")[0]
        side = str(row["resolution"]).split("x")[0]
        name = f"{row['model name']} at {side}, {source}"
        interval = wilson_interval(round(share * IMAGENET_VALIDATION), IMAGENET_VALIDATION)
        rows.append((str(row["model name"]), _Row(name, share, interval, is_own=False)))
    models = {run.model for run in findings.runs}
    same = [row for model, row in rows if model in models]
    return same or [row for _, row in rows]


def speed_figure(runs: Sequence[TrainedRun]) -> str:
    """Step time of each run: median, with the range to the 99th percentile."""
    rows = speed_rows(runs)

    def paint(figure: "Figure") -> None:
        (axes,) = panels(figure, 1, left=0.03)
        axes.set_title("Milliseconds a step: p50, p90, p99")
        for place, (name, p50, p90, p99) in enumerate(rows):
            axes.plot([p50, p99], [place, place], color=BLUE, linewidth=1.6)
            axes.plot([p50], [place], "o", color=BLUE, markersize=6)
            axes.plot([p90], [place], "|", color=BLUE, markersize=10, markeredgewidth=1.6)
            axes.plot([p99], [place], "|", color=ORANGE, markersize=10, markeredgewidth=1.6)
            axes.text(
                0,
                place - 0.36,
                f"{shortened(name, 44)}  {p50:.1f}",
                fontsize=10,
                va="center",
                transform=axes.get_yaxis_transform(),
            )
        axes.set_ylim(len(rows) - 0.5, -0.85)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlim(left=0)
        axes.grid(visible=True, axis="x")

    height = max(2.2, 0.9 + ROW_INCHES * len(rows))
    return draw("speed", describe_speed(runs), paint, height=height)


def speed_rows(runs: Sequence[TrainedRun]) -> list[tuple[str, float, float, float]]:
    """Name and percentiles of the runs that recorded them."""
    rows = []
    for run in runs:
        end = run.history.end
        marks = (end.ms_per_step_p50, end.ms_per_step_p90, end.ms_per_step_p99)
        p50, p90, p99 = (float("nan") if mark is None else mark for mark in marks)
        if p50 < float("inf") and p90 < float("inf") and p99 < float("inf"):
            rows.append(
                (f"{run.model}, {run.world_size}x {run.device_target}, {run.short}", p50, p90, p99)
            )
    return rows


def describe_speed(runs: Sequence[TrainedRun]) -> str:
    """What the figure shows, in words."""
    rows = speed_rows(runs)
    fastest = min(rows, key=lambda row: row[1])
    return (
        f"Milliseconds a step: the median as a dot, the 90th and the 99th percentile as strokes, "
        f"of the runs in detail ({len(rows)}). Least median: {fastest[1]:.1f}, {fastest[0]}."
    )


def nightly_figure(nights: Sequence[Revalidation]) -> str:
    """Accuracy that each night found, and what had been recorded."""
    shown = nights[-MOST_NIGHTS:]

    def paint(figure: "Figure") -> None:
        import matplotlib.dates

        (axes,) = panels(figure, 1)
        axes.set_title("Accuracy@1 found each night, %")
        counted = [night for night in shown if night.found and night.found.seen]
        recorded = [night for night in shown if night.recorded and night.recorded.seen]
        if recorded:
            axes.step(
                [_day(night.began) for night in recorded],
                [_accuracy(night, "recorded") for night in recorded],
                where="mid",
                color=INK,
                linewidth=0.9,
                linestyle=":",
                label="recorded",
            )
        for outcome, (marker, colour) in _OUTCOMES.items():
            nights_of = [night for night in counted if night.outcome == outcome]
            if nights_of:
                axes.plot(
                    [_day(night.began) for night in nights_of],
                    [_accuracy(night, "found") for night in nights_of],
                    linestyle="none",
                    marker=marker,
                    color=colour,
                    markersize=6,
                    label=outcome,
                )
        for night in shown:
            if night.found is None:
                axes.axvline(_day(night.began), color=ORANGE, linewidth=1.4)
        if not counted and not recorded:
            say_empty(axes, "nothing could be counted")
            return
        values = [value for _, value in _counted(shown)]
        margin = max(1.0, 0.25 * (max(values) - min(values)))
        axes.set_ylim(min(values) - margin, max(values) + margin)
        # matplotlib gives its dates no types.
        locator = matplotlib.dates.AutoDateLocator(minticks=2, maxticks=5)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        formatter = matplotlib.dates.DateFormatter("%b %d")  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_formatter(formatter)
        axes.grid(visible=True)
        axes.legend(loc="best")

    return draw("nights", describe_nights(nights), paint, height=3.2)


def describe_nights(nights: Sequence[Revalidation]) -> str:
    """What the timeline shows, in words."""
    counts = {outcome: sum(night.outcome == outcome for night in nights) for outcome in _OUTCOMES}
    said = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
    last = nights[-1]
    older = f" The last {MOST_NIGHTS} are drawn." if len(nights) > MOST_NIGHTS else ""
    return (
        f"{len(nights)} nights from {nights[0].began:%Y-%m-%d} to {last.began:%Y-%m-%d}: {said}. "
        f"Last: {last.said}{'' if last.said.endswith('.') else '.'}{older}"
    )


def _counted(nights: Sequence[Revalidation]) -> list[tuple[str, float]]:
    return [
        (name, _accuracy(night, name))
        for night in nights
        for name in ("recorded", "found")
        if (counts := getattr(night, name)) and counts.seen
    ]


def _accuracy(night: Revalidation, name: str) -> float:
    counts = getattr(night, name)
    return float(100 * counts.correct_top1 / counts.seen)


def _day(moment: datetime) -> float:
    """Days since 1970 in UTC, as matplotlib counts them."""
    return moment.timestamp() / 86_400
