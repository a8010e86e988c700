"""Figures of one run: how it learned, how fast it was, where it errs, what its units attend to.

Each figure comes with a function `describe_…` that puts what it shows into words.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sknet.records import Attention, CalibrationBin, Evaluation
from sknet.records.calibration import Calibration
from sknet.report.cells import percent
from sknet.report.contents import TrainedRun
from sknet.report.figures import (
    BLUE,
    FAINT,
    HEIGHT,
    INK,
    ORANGE,
    Drawing,
    draw,
    note_empty,
    panels,
    shortened,
)
from sknet.significance import wilson_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_CLASSES = 20
"""Most classes in the figure of accuracies by class."""

Points = list[tuple[float, float]]

Reliability = tuple[tuple[CalibrationBin, ...], str, str, str, str]
"""Predictions by confidence, with colour, marker, line style and name of their line."""


def learning_curve(run: TrainedRun) -> Drawing:
    """Draw the losses of training and validation, the accuracy and the learning rate by step."""

    def paint(figure: "Figure") -> None:
        losses, accuracies, rates = panels(figure, 3)
        _draw_losses(losses, run)
        _draw_accuracies(accuracies, run)
        _draw_rates(rates, run)

    return draw(f"learning-{run.short_key}", describe_curve(run), paint, height=1.5 * HEIGHT)


def describe_curve(run: TrainedRun) -> str:
    """Return what the learning curve shows, in words."""
    losses = _losses(run)
    drawn = _finite(losses)
    sentences = [f"Learning curve of {run.recipe.name}, run {run.short_key}."]
    if drawn:
        sentences.append(f"Training loss from {drawn[0][1]:.3g} to {drawn[-1][1]:.3g}.")
    else:
        sentences.append("No loss was logged.")
    if validated := _validation_losses(run):
        sentences.append(f"Validation loss of {validated[-1][1]:.3g} after the last epoch.")
        lowest = min(validated, key=lambda point: point[1])
        if lowest[1] < validated[-1][1]:
            sentences.append(f"It was lowest after step {lowest[0]:.0f}, {lowest[1]:.3g}.")
    if num_left := len(losses) - len(drawn):
        sentences.append(f"Losses not drawn because they are not finite: {num_left}.")
    accuracies = _accuracies_top1(run)
    if accuracies:
        last = accuracies[-1][1]
        sentences.append(f"Accuracy@1 of {last:.2f} % after {len(accuracies)} epochs.")
    else:
        sentences.append("No epoch was evaluated.")
    restarts = len(run.history.starts) - 1
    if restarts > 0:
        sentences.append(f"Restarts, shown as dotted lines: {restarts}.")
    return " ".join(sentences)


def step_time_figure(run: TrainedRun) -> Drawing:
    """Draw the milliseconds per step over the training, and their distribution."""

    def paint(figure: "Figure") -> None:
        above, below = panels(figure, 2)
        _draw_times(above, run)
        _draw_distribution(below, run)

    return draw(f"times-{run.short_key}", describe_times(run), paint)


def describe_times(run: TrainedRun) -> str:
    """Return what the step times show, in words."""
    sentences = [f"Step times of {run.recipe.name}, run {run.short_key}."]
    percentiles = _percentiles(run)
    if percentiles:
        values = ", ".join(f"{name} {value:.1f}" for name, value in percentiles)
        sentences.append(f"Milliseconds per step over the whole training: {values}.")
    if not _mean_times(run):
        sentences.append("No step time was logged.")
    return " ".join(sentences)


def class_bars(run: TrainedRun, counts: Evaluation) -> Drawing:
    """Draw the accuracies of the classes with the lowest ones, with Wilson's intervals."""
    labels = lowest_classes(counts)

    def paint(figure: "Figure") -> None:
        (axes,) = panels(figure, 1, left=0.33)
        axes.set_title("Accuracy by class, %", x=-0.4)
        for row, label in enumerate(labels):
            correct, seen = counts.class_correct[label], counts.class_seen[label]
            low, high = wilson_interval(correct, seen)
            axes.barh(row, 100 * correct / seen, color=BLUE, alpha=0.85, height=0.66)
            axes.plot([100 * low, 100 * high], [row, row], color=INK, linewidth=1.1)
            axes.plot([100 * correct / seen], [row], "|", color=INK, markersize=7)
        names = [shortened(run.class_name(label), 17) for label in labels]
        axes.set_yticks(range(len(labels)), names, fontsize=10)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.set_xlim(0, 100)
        axes.grid(visible=True, axis="x")

    name = f"classes-{run.short_key}-{counts.resolution}"
    height = max(HEIGHT, 0.9 + 0.24 * len(labels))
    return draw(name, describe_classes(run, counts), paint, height=height)


def describe_classes(run: TrainedRun, counts: Evaluation) -> str:
    """Return what the accuracies by class show, in words."""
    labels = lowest_classes(counts)
    num = sum(1 for seen in counts.class_seen if seen)
    which = f"the {len(labels)} lowest of {num} classes" if num > len(labels) else f"{num} classes"
    worst = labels[0]
    return (
        f"Accuracy@1 of {which}, with 95 % intervals. Lowest: {run.class_name(worst)} with "
        f"{counts.class_correct[worst]} of {counts.class_seen[worst]}."
    )


def lowest_classes(counts: Evaluation) -> list[int]:
    """Return the labels of the classes with the lowest accuracy, the lowest first."""
    seen = [label for label, count in enumerate(counts.class_seen) if count]
    ascending = sorted(seen, key=lambda each: counts.class_correct[each] / counts.class_seen[each])
    return ascending[:MAX_CLASSES]


def reliability_diagram(run: TrainedRun, counts: Evaluation) -> Drawing:
    """Draw the accuracy by confidence, and the number of samples by confidence.

    If a temperature was fitted, both are those of the held-out half, without it and with it.
    """
    calibration = run.calibration
    fitted = calibration if calibration and calibration.is_fitted else None
    series = [(counts.calibration, BLUE, "o", "-", "")]
    if fitted and fitted.bins_before and fitted.bins_after:
        series = [
            (fitted.bins_before, BLUE, "o", "-", "as predicted"),
            (fitted.bins_after, ORANGE, "s", "--", f"temperature {fitted.temperature:.2f}"),
        ]

    def paint(figure: "Figure") -> None:
        above, below = panels(figure, 2)
        _draw_reliability(above, series)
        _draw_confidence(below, series)

    words = describe_reliability(counts, calibration)
    return draw(f"reliability-{run.short_key}", words, paint)


def describe_reliability(counts: Evaluation, calibration: Calibration | None = None) -> str:
    """Return what the reliability diagram shows, in words."""
    error = counts.calibration_error or 0.0
    confidence = sum(each.confidence_sum for each in counts.calibration)
    correct = sum(each.correct for each in counts.calibration)
    tendency = "underconfident" if confidence < correct else "overconfident"
    said = (
        f"Reliability: accuracy against confidence in {len(counts.calibration)} bins; on the "
        f"diagonal both agree. Expected calibration error {100 * error:.2f} %; overall the "
        f"network is {tendency}."
    )
    if calibration is None:
        return said
    if not calibration.is_fitted:
        return f"{said} No temperature could be fitted."
    return (
        f"{said} A temperature of {calibration.temperature:.2f}, fitted on "
        f"{calibration.num_fitted:,} of the images, changes the error on the other "
        f"{calibration.num_held_out:,} from {100 * calibration.error_before:.2f} % to "
        f"{100 * calibration.error_after:.2f} %."
    )


def attention_figure(run: TrainedRun, attention: Attention) -> Drawing:
    """Draw the attention to the largest kernel minus that to the smallest, by unit and scale."""

    def paint(figure: "Figure") -> None:
        (axes,) = panels(figure, 1, left=0.17)
        axes.set_title("Attention: largest kernel minus smallest", x=-0.16)
        if not attention.units:
            note_empty(axes, "the units have one path each")
            return
        positions = range(len(attention.units))
        axes.axhline(0, color=INK, linewidth=0.8)
        # Scales differ in marker and line style too, for readers who don't see the colours.
        styles = ((BLUE, "o", "-"), (ORANGE, "s", "--"), (INK, "^", ":"))
        for index, (scale, style) in enumerate(zip(attention.scales, styles, strict=False)):
            colour, marker, linestyle = style
            axes.plot(
                positions,
                [unit.differences[index] for unit in attention.units],
                color=colour,
                marker=marker,
                markersize=4.5,
                linewidth=1.5,
                linestyle=linestyle,
                label=f"{scale:.1f}×",  # noqa: RUF001 (the paper's sign for a scale)
            )
        label_every = max(1, -(-len(attention.units) // 16))
        names = [
            unit.unit if position % label_every == 0 else ""
            for position, unit in enumerate(attention.units)
        ]
        axes.set_xticks(positions, names, rotation=60, ha="right", fontsize=9)
        axes.grid(visible=True)
        axes.legend(loc="best", title="object enlarged", title_fontsize=10)
        figure.subplots_adjust(bottom=0.21)

    return draw(f"attention-{run.short_key}", describe_attention(attention), paint)


def describe_attention(attention: Attention) -> str:
    """Return what the figure of attention shows, in words."""
    if not attention.units:
        return "The network's SK units have one path each: there is no attention to compare."
    sentences = [
        "Mean attention to the largest kernel minus that to the smallest in "
        f"{len(attention.units)} SK units, over {attention.num_images} images of "
        f"{attention.split}."
    ]
    if len(attention.scales) > 1:
        rising = [unit for unit in attention.units if unit.differences[-1] > unit.differences[0]]
        sentences.append(
            f"From scale {attention.scales[0]:.1f} to {attention.scales[-1]:.1f} it rises in "
            f"{len(rising)} of them."
        )
    return " ".join(sentences)


def _losses(run: TrainedRun) -> Points:
    """Return the losses of steps that were logged, or the means of epochs if these are more."""
    history = run.history
    steps: Points = [(line.step, line.loss) for line in history.steps if line.loss is not None]
    epochs: Points = [
        (line.step, line.train_loss) for line in history.epochs if line.train_loss is not None
    ]
    return max(steps, epochs, key=len)


def _rates(run: TrainedRun) -> Points:
    steps = _finite([(line.step, line.lr) for line in run.history.steps])
    epochs = _finite([(line.step, line.lr) for line in run.history.epochs])
    return max(steps, epochs, key=len)


def _validation_losses(run: TrainedRun) -> Points:
    return _finite([(line.step, line.validation_loss) for line in run.history.epochs])


def _mean_times(run: TrainedRun) -> Points:
    return _finite([(line.step, line.ms_per_step) for line in run.history.steps])


def _accuracies_top1(run: TrainedRun) -> Points:
    lines = run.history.epochs
    return _finite([(line.step, percent(line.correct_top1, line.seen)) for line in lines])


def _accuracies_top5(run: TrainedRun) -> Points:
    lines = run.history.epochs if run.is_top5_telling else ()
    return _finite([(line.step, percent(line.correct_top5, line.seen)) for line in lines])


def _percentiles(run: TrainedRun) -> list[tuple[str, float]]:
    end = run.history.end
    values = {"p50": end.ms_per_step_p50, "p90": end.ms_per_step_p90, "p99": end.ms_per_step_p99}
    return [
        (name, value)
        for name, value in values.items()
        if value is not None and math.isfinite(value)
    ]


def _finite(points: Sequence[tuple[float, float | None]]) -> Points:
    """Return the points whose value is known and finite."""
    return [(x, y) for x, y in points if y is not None and math.isfinite(y)]


def _draw_losses(axes: "Axes", run: TrainedRun) -> None:
    axes.set_title("Loss")
    points = _finite(_losses(run))
    if not points:
        note_empty(axes, "no loss was logged")
        return
    _plot(axes, points, BLUE, "training")
    if validated := _validation_losses(run):
        _plot(axes, validated, ORANGE, "validation", linestyle="--")
    axes.legend(loc="best")
    for start in run.history.starts[1:]:
        axes.axvline(start.step, color=INK, linestyle=":", linewidth=0.8, alpha=0.7)


def _draw_accuracies(axes: "Axes", run: TrainedRun) -> None:
    axes.set_title("Accuracy on the validation split, %")
    top1, top5 = _accuracies_top1(run), _accuracies_top5(run)
    if not top1:
        note_empty(axes, "no epoch was evaluated")
        return
    if top5:
        _plot(axes, top5, ORANGE, "top 5", linestyle="--")
    _plot(axes, top1, BLUE, "top 1")
    axes.legend(loc="lower right")


def _draw_rates(axes: "Axes", run: TrainedRun) -> None:
    axes.set_title("Learning rate")
    rates = _rates(run)
    if not rates:
        note_empty(axes, "no learning rate was logged")
        return
    _plot(axes, rates, BLUE)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("step")


def _draw_times(axes: "Axes", run: TrainedRun) -> None:
    axes.set_title("Milliseconds per step")
    lines = run.history.steps
    points = _finite([(line.step, line.ms_per_step_p50) for line in lines]) or _mean_times(run)
    if not points:
        note_empty(axes, "no step time was logged")
        return
    slow = dict(_finite([(line.step, line.ms_per_step_p99) for line in lines]))
    band = [(step, median, slow[step]) for step, median in points if step in slow]
    if band:
        steps, low, high = zip(*band, strict=True)
        axes.fill_between(steps, low, high, color=BLUE, alpha=FAINT, linewidth=0, label="to p99")
    _plot(axes, points, BLUE, "median")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("step")
    axes.legend(loc="best", ncols=2)


def _draw_distribution(axes: "Axes", run: TrainedRun) -> None:
    axes.set_title("Number of log lines by milliseconds per step")
    times = [value for _, value in _mean_times(run)]
    if not times:
        note_empty(axes, "no step time was logged")
        return
    axes.hist(times, bins=min(30, max(5, len(times) // 2)), color=BLUE, alpha=0.75)
    percentiles = _percentiles(run)
    for (name, value), style in zip(percentiles, ("-", "--", ":"), strict=False):
        axes.axvline(value, color=ORANGE, linestyle=style, linewidth=1.4, label=name)
    axes.set_xlabel("ms")
    if percentiles:
        axes.legend(loc="upper center")  # on the right is the last percentile


def _draw_reliability(axes: "Axes", series: Sequence[Reliability]) -> None:
    axes.set_title("Accuracy by confidence, %")
    axes.plot([0, 100], [0, 100], color=INK, linewidth=0.9, linestyle=":")
    for bins, colour, marker, linestyle, name in series:
        filled = [each for each in bins if each.seen]
        confidences = [100 * each.confidence_sum / each.seen for each in filled]
        accuracies = [100 * each.correct / each.seen for each in filled]
        for x, each in zip(confidences, filled, strict=True):
            low, high = wilson_interval(each.correct, each.seen)
            axes.plot([x, x], [100 * low, 100 * high], color=colour, linewidth=1.1, alpha=0.6)
        axes.plot(
            confidences,
            accuracies,
            color=colour,
            marker=marker,
            markersize=4,
            linewidth=1.2,
            linestyle=linestyle,
            label=name,
        )
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 105)
    axes.grid(visible=True)
    if len(series) > 1:
        axes.legend(loc="best")


def _draw_confidence(axes: "Axes", series: Sequence[Reliability]) -> None:
    axes.set_title("Samples by confidence")
    for place, (bins, colour, *_) in enumerate(series):
        part = 100 / len(bins)
        width = 0.86 * part / len(series)
        lefts = [part * index + 0.07 * part + width * place for index in range(len(bins))]
        heights = [each.seen for each in bins]
        axes.bar(lefts, heights, width=width, align="edge", color=colour, alpha=0.75)
    axes.set_xlim(0, 100)
    axes.set_xlabel("confidence, %")
    axes.grid(visible=True, axis="y")


def _plot(
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
