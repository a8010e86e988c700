"""Learning curves as SVG that stands within a page, in equal bytes for equal runs.

matplotlib takes half a second to import, so that is done where a curve is drawn: every command of
the flows imports this module, and few of them draw.
"""

import io
import math
import re
from html import escape
from typing import TYPE_CHECKING, Any

from sknet.report.frames import percent
from sknet.report.runs import TrainedRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# At least 3:1 in contrast against white and against #14171a.
BLUE, ORANGE = "#2f7fd6", "#c8680a"
# Stands for the colour of the surrounding text while matplotlib draws.
INK = "#010203"

# Any: since 3.11, matplotlib types the keys one by one.
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: smaller, and it can be read aloud and searched
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def learning_curve(run: TrainedRun) -> str:
    """Loss per step and accuracy per epoch, as an `<svg>` element with a text alternative."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # not the reader's own style: equal bytes everywhere
        matplotlib.rcParams.update(_STYLE)
        matplotlib.rcParams["svg.hashsalt"] = run.run
        figure = Figure(figsize=(4.8, 5.0), layout="constrained")
        above, below = figure.subplots(2)
        _draw_loss(above, run)
        _draw_accuracy(below, run)
        drawing = io.StringIO()
        figure.savefig(drawing, format="svg", metadata=_NO_METADATA)
    return _embed(drawing.getvalue(), run)


def describe_curve(run: TrainedRun) -> str:
    """What the curve shows, in words."""
    losses = _losses(run)
    drawn = [loss for _, loss in losses if math.isfinite(loss)]
    parts = [f"Learning curve of {run.recipe.name}, run {run.short}."]
    if drawn:
        parts.append(f"Loss per step from {drawn[0]:.3g} to {drawn[-1]:.3g}.")
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


def _losses(run: TrainedRun) -> list[tuple[int, float]]:
    return [(line.step, line.loss) for line in run.history.steps if line.loss is not None]


def _accuracies(run: TrainedRun, counted: str) -> list[tuple[int, float]]:
    shares = [
        (line.epoch + 1, percent(getattr(line, counted), line.seen)) for line in run.history.epochs
    ]
    return [(epoch, share) for epoch, share in shares if share is not None]


def _draw_loss(axes: "Axes", run: TrainedRun) -> None:
    points = [(step, loss) for step, loss in _losses(run) if math.isfinite(loss)]
    _draw(axes, points, BLUE, "loss", xlabel="step", empty="no loss was logged")
    for start in run.history.starts[1:]:
        axes.axvline(start.step, color=INK, linestyle=":", linewidth=0.8, alpha=0.7)


def _draw_accuracy(axes: "Axes", run: TrainedRun) -> None:
    from matplotlib.ticker import MaxNLocator

    top5 = _accuracies(run, "correct_top5")
    if top5:
        _draw(axes, top5, ORANGE, "top 5", linestyle="--")
    top1 = _accuracies(run, "correct_top1")
    _draw(axes, top1, BLUE, "top 1", xlabel="epoch", empty="no epoch was evaluated")
    axes.set_ylabel("accuracy (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if top1:
        axes.legend(frameon=False, loc="lower right")


def _draw(
    axes: "Axes",
    points: list[tuple[int, float]],
    colour: str,
    name: str,
    *,
    linestyle: str = "-",
    xlabel: str = "",
    empty: str = "",
) -> None:
    axes.set_xlabel(xlabel)
    axes.set_ylabel(name)
    axes.grid(color=INK, alpha=0.15, linewidth=0.6)
    if not points:
        axes.text(0.5, 0.5, empty, ha="center", transform=axes.transAxes)
        return
    marker = "o" if len(points) <= 40 else None
    axes.plot(
        [x for x, _ in points],
        [y for _, y in points],
        color=colour,
        linestyle=linestyle,
        linewidth=1.8,
        marker=marker,
        markersize=3.5,
        label=name,
    )


def _embed(document: str, run: TrainedRun) -> str:
    """The `<svg>` element alone: ids of its own in the page, colours of the page, words."""
    svg = document[document.index("<svg") :]
    prefix = f"run-{run.short}-"
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}", svg)
    svg = svg.replace(INK, "currentColor")
    words = escape(describe_curve(run))
    return svg.replace("<svg ", f'<svg role="img" aria-label="{words}" ', 1).strip() + "\n"
