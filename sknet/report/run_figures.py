"""Figures of how a run learned, and how fast."""

import math
from typing import TYPE_CHECKING

from sknet.records import Attention, CalibrationBin, Evaluation
from sknet.report.figures import (
    BLUE,
    FAINT,
    HEIGHT,
    INK,
    ORANGE,
    draw,
    panels,
    say_empty,
    shortened,
)
from sknet.report.findings import TrainedRun
from sknet.report.tables import percent
from sknet.statistics import wilson_interval

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


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_CLASSES = 20

COLOURS = (BLUE, ORANGE, INK)


def class_bars(run: TrainedRun, counts: Evaluation) -> str:
    """Accuracy of the classes with the lowest one, with Wilson's intervals."""
    labels = lowest_classes(counts)
    shares = [counts.class_correct[label] / counts.class_seen[label] for label in labels]

    def paint(figure: "Figure") -> None:
        (axes,) = panels(figure, 1, left=0.33)
        axes.set_title("Accuracy by class, %", x=-0.4)
        places = range(len(labels))
        axes.barh(places, [100 * share for share in shares], color=BLUE, alpha=0.85, height=0.66)
        for place, label, share in zip(places, labels, shares, strict=True):
            low, high = wilson_interval(counts.class_correct[label], counts.class_seen[label])
            axes.plot([100 * low, 100 * high], [place, place], color=INK, linewidth=1.1)
            axes.plot([100 * share], [place], "|", color=INK, markersize=7)
        names = [shortened(run.class_name(label), 17) for label in labels]
        axes.set_yticks(list(places), names, fontsize=10)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.set_xlim(0, 100)
        axes.grid(visible=True, axis="x")

    words = describe_classes(run, counts)
    height = max(HEIGHT, 0.9 + 0.24 * len(labels))
    return draw(f"classes-{run.short}-{counts.resolution}", words, paint, height=height)


def lowest_classes(counts: Evaluation) -> list[int]:
    """Labels of the classes with the lowest accuracy, the lowest first."""
    seen = [label for label, count in enumerate(counts.class_seen) if count]
    return sorted(seen, key=lambda each: counts.class_correct[each] / counts.class_seen[each])[
        :MOST_CLASSES
    ]


def describe_classes(run: TrainedRun, counts: Evaluation) -> str:
    """What the bars show, in words."""
    labels = lowest_classes(counts)
    num = sum(1 for seen in counts.class_seen if seen)
    which = f"the {len(labels)} lowest of {num} classes" if num > len(labels) else f"{num} classes"
    worst = labels[0]
    return (
        f"Accuracy@1 of {which}, with 95 % intervals. Lowest: {run.class_name(worst)} with "
        f"{counts.class_correct[worst]} of {counts.class_seen[worst]}."
    )


def reliability(run: TrainedRun, counts: Evaluation) -> str:
    """Accuracy against confidence, and how the samples are spread over confidence."""

    def paint(figure: "Figure") -> None:
        above, below = panels(figure, 2)
        _draw_reliability(above, counts.calibration)
        _draw_confidence(below, counts.calibration)

    return draw(f"reliability-{run.short}", describe_reliability(counts), paint)


def describe_reliability(counts: Evaluation) -> str:
    """What the diagram shows, in words."""
    error = counts.calibration_error or 0.0
    confidence = sum(each.confidence_sum for each in counts.calibration)
    correct = sum(each.correct for each in counts.calibration)
    tends = "less sure than right" if confidence < correct else "surer than right"
    return (
        f"Reliability: accuracy against confidence in {len(counts.calibration)} bins; on the "
        f"diagonal both agree. Expected calibration error {100 * error:.2f} %; on the whole the "
        f"network is {tends}."
    )


def _draw_reliability(axes: "Axes", bins: tuple[CalibrationBin, ...]) -> None:
    axes.set_title("Accuracy by confidence, %")
    filled = [each for each in bins if each.seen]
    axes.plot([0, 100], [0, 100], color=INK, linewidth=0.9, linestyle=":")
    x = [100 * each.confidence_sum / each.seen for each in filled]
    y = [100 * each.correct / each.seen for each in filled]
    intervals = [wilson_interval(each.correct, each.seen) for each in filled]
    for place, (low, high) in zip(x, intervals, strict=True):
        axes.plot([place, place], [100 * low, 100 * high], color=BLUE, linewidth=1.1, alpha=0.6)
    axes.plot(x, y, color=BLUE, marker="o", markersize=4, linewidth=1.2)
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 105)
    axes.grid(visible=True)


def _draw_confidence(axes: "Axes", bins: tuple[CalibrationBin, ...]) -> None:
    axes.set_title("Samples by confidence")
    width = 100 / len(bins)
    places = [width * (index + 0.5) for index in range(len(bins))]
    axes.bar(places, [each.seen for each in bins], width=0.86 * width, color=BLUE, alpha=0.75)
    axes.set_xlim(0, 100)
    axes.set_xlabel("confidence, %")
    axes.grid(visible=True, axis="y")


def attention_figure(run: TrainedRun, attention: Attention) -> str:
    """Attention to the larger kernel minus the smaller, by unit, at each scale of the object."""

    def paint(figure: "Figure") -> None:
        (axes,) = panels(figure, 1, left=0.17)
        axes.set_title("Attention: larger kernel minus smaller", x=-0.16)
        if not attention.units:
            say_empty(axes, "the units have one path each")
            return
        places = range(len(attention.units))
        axes.axhline(0, color=INK, linewidth=0.8)
        for index, (scale, colour) in enumerate(zip(attention.scales, COLOURS, strict=False)):
            values = [unit.differences[index] for unit in attention.units]
            marker = "os^"[index]
            axes.plot(
                places,
                values,
                color=colour,
                marker=marker,
                markersize=4.5,
                linewidth=1.5,
                linestyle=("-", "--", ":")[index],
                label=f"{scale:.1f}×",  # noqa: RUF001 (the paper's sign for a scale)
            )
        every = max(1, -(-len(attention.units) // 16))
        names = [
            unit.unit if place % every == 0 else "" for place, unit in enumerate(attention.units)
        ]
        axes.set_xticks(list(places), names, rotation=60, ha="right", fontsize=9)
        axes.grid(visible=True)
        axes.legend(loc="best", title="object enlarged", title_fontsize=10)
        figure.subplots_adjust(bottom=0.21)

    return draw(f"attention-{run.short}", describe_attention(attention), paint)


def describe_attention(attention: Attention) -> str:
    """What the figure shows, in words."""
    if not attention.units:
        return "The network's SK units have one path each: there is no attention to compare."
    said = [
        "Mean attention of the larger kernel minus the smaller in "
        f"{len(attention.units)} SK units, over {attention.num_images} images of "
        f"{attention.split}."
    ]
    if len(attention.scales) > 1:
        grown = [unit for unit in attention.units if unit.differences[-1] > unit.differences[0]]
        said.append(
            f"From scale {attention.scales[0]:.1f} to {attention.scales[-1]:.1f} it rises in "
            f"{len(grown)} of them."
        )
    return " ".join(said)
