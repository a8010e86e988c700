"""Figures of how a run learned, and how fast."""

import math
from typing import TYPE_CHECKING

from sknet.report.figures import BLUE, FAINT, INK, ORANGE, draw, panels, say_empty
from sknet.report.tables import percent
from sknet.report.findings import TrainedRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = list[tuple[float, float]]


def learning_curve(run: TrainedRun) -> str:
    """Loss per step and accuracy per epoch."""

    def paint(figure: "Figure") -> None:
        above, below = panels(figure, 2)
        _draw_loss(above, run)
        _draw_accuracy(below, run)

    return draw(f"learning-{run.short}", describe_curve(run), paint)


def describe_curve(run: TrainedRun) -> str:
    """What the learning curve shows, in words."""
    losses = _losses(run)
    drawn = _finite(losses)
    parts = [f"Learning curve of {run.recipe.name}, run {run.short}."]
    if drawn:
        parts.append(f"Loss per step from {drawn[0][1]:.3g} to {drawn[-1][1]:.3g}.")
    else:
        parts.append("No loss was logged.")
    if len(drawn) < len(losses):
        parts.append(f"Not finite, so not drawn: {len(losses) - len(drawn)} losses.")
    accuracies = _accuracies(run, "correct_top1")
    if accuracies:
        epoch, last = accuracies[-1]
        parts.append(f"Accuracy@1 of {last:.2f} % after epoch {epoch}.")
    else:
        parts.append("No epoch was evaluated.")
    restarts = len(run.history.starts) - 1
    if restarts > 0:
        parts.append(f"Restarts, dotted: {restarts}.")
    return " ".join(parts)


def step_times(run: TrainedRun) -> str:
    """Milliseconds a step over the training, and how they are distributed."""

    def paint(figure: "Figure") -> None:
        above, below = panels(figure, 2)
        _draw_times(above, run)
        _draw_distribution(below, run)

    return draw(f"times-{run.short}", describe_times(run), paint)


def describe_times(run: TrainedRun) -> str:
    """What the step times show, in words."""
    said = [f"Step times of {run.recipe.name}, run {run.short}."]
    marks = _percentiles(run)
    if marks:
        shown = ", ".join(f"{name} {value:.1f}" for name, value in marks)
        said.append(f"Milliseconds a step over the whole training: {shown}.")
    if not _finite(_times(run, "ms_per_step")):
        said.append("No step time was logged.")
    return " ".join(said)


def _losses(run: TrainedRun) -> Points:
    return [(line.step, line.loss) for line in run.history.steps if line.loss is not None]


def _times(run: TrainedRun, name: str) -> Points:
    lines = [(line.step, getattr(line, name)) for line in run.history.steps]
    return [(step, value) for step, value in lines if value is not None]


def _finite(points: Points) -> Points:
    return [(x, y) for x, y in points if math.isfinite(y)]


def _percentiles(run: TrainedRun) -> list[tuple[str, float]]:
    end = run.history.end
    marks = {"p50": end.ms_per_step_p50, "p90": end.ms_per_step_p90, "p99": end.ms_per_step_p99}
    return [
        (name, value) for name, value in marks.items() if value is not None and math.isfinite(value)
    ]


def _accuracies(run: TrainedRun, counted: str) -> list[tuple[int, float]]:
    shares = [
        (line.epoch + 1, percent(getattr(line, counted), line.seen)) for line in run.history.epochs
    ]
    return [(epoch, share) for epoch, share in shares if share is not None]


def _draw_loss(axes: "Axes", run: TrainedRun) -> None:
    points = _finite(_losses(run))
    axes.set_title("Loss")
    if not points:
        say_empty(axes, "no loss was logged")
        return
    _line(axes, points, BLUE)
    axes.set_xlabel("step")
    for start in run.history.starts[1:]:
        axes.axvline(start.step, color=INK, linestyle=":", linewidth=0.8, alpha=0.7)


def _draw_accuracy(axes: "Axes", run: TrainedRun) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title("Accuracy on the validation split, %")
    top1, top5 = _accuracies(run, "correct_top1"), _accuracies(run, "correct_top5")
    if not top1:
        say_empty(axes, "no epoch was evaluated")
        return
    if top5:
        _line(axes, [*top5], ORANGE, "top 5", linestyle="--")
    _line(axes, [*top1], BLUE, "top 1")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="lower right")


def _draw_times(axes: "Axes", run: TrainedRun) -> None:
    axes.set_title("Milliseconds a step")
    points = _finite(_times(run, "ms_per_step_p50")) or _finite(_times(run, "ms_per_step"))
    if not points:
        say_empty(axes, "no step time was logged")
        return
    slow = dict(_finite(_times(run, "ms_per_step_p99")))
    band = [(step, fast, slow[step]) for step, fast in points if step in slow]
    if band:
        steps, low, high = zip(*band, strict=True)
        axes.fill_between(steps, low, high, color=BLUE, alpha=FAINT, linewidth=0, label="to p99")
    _line(axes, points, BLUE, "median")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("step")
    axes.legend(loc="best", ncols=2)


def _draw_distribution(axes: "Axes", run: TrainedRun) -> None:
    axes.set_title("Distribution, lines of the log by milliseconds a step")
    times = [value for _, value in _finite(_times(run, "ms_per_step"))]
    marks = _percentiles(run)
    if not times:
        say_empty(axes, "no step time was logged")
        return
    axes.hist(times, bins=min(30, max(5, len(times) // 2)), color=BLUE, alpha=0.75)
    for (name, value), style in zip(marks, ("-", "--", ":"), strict=False):
        axes.axvline(value, color=ORANGE, linestyle=style, linewidth=1.4, label=name)
    axes.set_xlabel("ms")
    if marks:
        axes.legend(loc="best")


def _line(
    axes: "Axes", points: Points, colour: str, name: str | None = None, linestyle: str = "-"
) -> None:
    axes.grid(visible=True)
    axes.plot(
        [x for x, _ in points],
        [y for _, y in points],
        color=colour,
        linestyle=linestyle,
        linewidth=1.8,
        marker="o" if len(points) <= 40 else None,
        markersize=3.5,
        label=name,
    )
