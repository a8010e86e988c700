"""Figures of a data set: samples of each class, and sizes, shapes and brightness of the images."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

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
    panels,
    shortened,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_BARS = 20
"""Most classes with a bar of their own; more are drawn as one curve."""

NUM_BINS = 40

# Splits differ in their line too, for readers who don't see the colours.
_STYLES = {"train": (BLUE, "-"), "val": (ORANGE, "--"), "test": (RED, ":")}


def measured_figures(
    measured: pd.DataFrame, titles: Sequence[str], prefix: str = ""
) -> Iterator[Drawing]:
    """Yield the figures of what was measured of a data set's images.

    Args:
        measured: Measures and labels of the images.
        titles: Names of the classes by label.
        prefix: What the names of the figures begin with.
    """
    if measured.empty:
        return
    shorter = measured[["width", "height"]].min(axis=1)
    yield _distribution(
        measured,
        shorter,
        f"{prefix}shorter-side",
        "Shorter side, pixels",
        f"Shorter side of the images: {_quartiles(shorter)} pixels.",
        log=True,
    )
    aspect = measured["width"] / measured["height"]
    yield _distribution(
        measured,
        aspect,
        f"{prefix}aspect",
        "Width / height",
        f"Width divided by height: {_quartiles(aspect, '.2f')}.",
        log=True,
    )
    yield _distribution(
        measured,
        measured["brightness"],
        f"{prefix}brightness",
        "Mean grey value",
        f"Brightness, the mean grey value of 0 to 255: {_quartiles(measured['brightness'])}.",
    )
    yield _distribution(
        measured,
        measured["contrast"],
        f"{prefix}contrast",
        "Standard deviation of the grey values",
        f"Contrast, the standard deviation of the grey values: {_quartiles(measured['contrast'])}.",
    )
    if 2 <= len(titles) <= MAX_BARS:
        yield class_brightness_figure(measured, titles, f"{prefix}class-brightness")


def counts_figure(
    counts: pd.DataFrame, titles: tuple[str, ...], name: str = "class-counts"
) -> Drawing:
    """Draw the number of samples of each class.

    Args:
        counts: Number of samples by label (rows) and split (columns).
        titles: Names of the classes by label.
        name: A name that is unique within the page.
    """
    totals = counts.sum(axis=1)
    order = totals.sort_values(ascending=False, kind="stable").index
    few = len(order) <= MAX_BARS

    def paint(figure: "Figure") -> None:
        (axes,) = panels(figure, 1, left=0.03 if few else 0.15)
        axes.set_title("Samples of each class")
        if few:
            for split in counts.columns:
                before = counts.loc[order, list(counts.columns)[: _position(counts, split)]]
                axes.barh(
                    range(len(order)),
                    counts.loc[order, split],
                    left=before.sum(axis=1),
                    height=0.3,
                    color=_STYLES.get(split, (INK, "-"))[0],
                    label=split,
                )
            label_rows(
                axes,
                [
                    f"{shortened(titles[label], MAX_LABEL_LENGTH)}  {totals[label]:,}"
                    for label in order
                ],
            )
        else:
            for split in counts.columns:
                colour, line = _STYLES.get(split, (INK, "-"))
                heights = np.sort(counts[split].to_numpy())[::-1]
                axes.plot(
                    range(1, len(heights) + 1), heights, color=colour, linestyle=line, label=split
                )
            axes.set_yscale("symlog", linthresh=1)
            axes.set_xlabel("Classes, the largest first")
            axes.grid(visible=True, axis="y")
        axes.legend(loc="lower right" if few else "best", fontsize=9)

    height = 0.9 + ROW_HEIGHT * len(order) if few else 3.2
    return draw(name, describe_counts(counts, titles), paint, height=height)


def describe_counts(counts: pd.DataFrame, titles: tuple[str, ...]) -> str:
    """Return in words how evenly the samples are spread over the classes."""
    totals = counts.sum(axis=1)
    largest, smallest = int(totals.to_numpy().argmax()), int(totals.to_numpy().argmin())
    if totals[largest] == totals[smallest]:
        return f"Each of {len(titles):,} classes has {totals[largest]:,} samples."
    ratio = totals[largest] / max(1, totals[smallest])
    return (
        f"The largest of {len(titles):,} classes, {titles[largest]}, has {totals[largest]:,} "
        f"samples; the smallest, {titles[smallest]}, has {totals[smallest]:,}: {ratio:.3g} to 1."
    )


def class_brightness_figure(measured: pd.DataFrame, titles: Sequence[str], name: str) -> Drawing:
    """Draw median and quartiles of the brightness of each class."""
    labels = sorted(set(measured["label"].tolist()))
    spreads = [
        np.quantile(measured["brightness"][measured["label"] == label], [0.25, 0.5, 0.75])
        for label in labels
    ]
    names = [shortened(titles[label], MAX_LABEL_LENGTH) for label in labels]

    def paint(figure: "Figure") -> None:
        (axes,) = panels(figure, 1, left=0.03)
        axes.set_title("Brightness of each class: median and quartiles")
        for row, (low, middle, high) in enumerate(spreads):
            axes.plot([low, high], [row, row], color=BLUE, linewidth=1.6)
            axes.plot([middle], [row], color=BLUE, marker="o", markersize=6)
        label_rows(axes, names)
        axes.set_xlim(0, 255)

    words = (
        "Median brightness of each class, with quartiles. Where classes differ much, a network "
        "may learn the light instead of the objects."
    )
    return draw(name, words, paint, height=0.9 + ROW_HEIGHT * len(names))


def _distribution(
    measured: pd.DataFrame,
    values: "pd.Series[float]",
    name: str,
    title: str,
    words: str,
    *,
    log: bool = False,
) -> Drawing:
    """Draw the fraction of each split's images over a value, in bins."""
    low, high = float(values.min()), float(values.max())
    if log:
        edges = np.geomspace(low * 0.9, high * 1.1, NUM_BINS + 1)
    else:
        edges = np.linspace(low - 0.5, high + 0.5, NUM_BINS + 1)

    def paint(figure: "Figure") -> None:
        (axes,) = panels(figure, 1)
        axes.set_title(title)
        if log:
            axes.set_xscale("log")
            _plain_ticks(axes)
        for split in dict.fromkeys(("train", "val", "test")):
            of_split = values[measured["split"] == split]
            if of_split.empty:
                continue
            colour, line = _STYLES[split]
            heights, _ = np.histogram(of_split, edges)
            axes.stairs(
                100 * heights / len(of_split),
                edges,
                color=colour,
                linestyle=line,
                linewidth=1.4,
                label=split,
            )
        axes.set_ylabel("% of the images")
        axes.grid(visible=True, axis="y")
        axes.legend(loc="best", fontsize=9)

    return draw(name, words, paint, height=2.6)


def _plain_ticks(axes: "Axes") -> None:
    """Write the ticks of a logarithmic axis as plain numbers, few enough to be read."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5), numticks=8))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _quartiles(values: "pd.Series[float]", form: str = ".0f") -> str:
    low, first, middle, third, high = values.quantile([0, 0.25, 0.5, 0.75, 1])
    return (
        f"median {middle:{form}}, half of them from {first:{form}} to {third:{form}}, all from "
        f"{low:{form}} to {high:{form}}"
    )


def _position(counts: pd.DataFrame, split: str) -> int:
    return list(counts.columns).index(split)
