"""How the figures of a report are drawn: as SVG elements that stand within a page.

Equal contents give equal bytes. matplotlib takes half a second to import, so it is imported where a
figure is drawn: what only reads or compares runs imports this module too.
"""

import bisect
import io
import itertools
import re
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Each has a contrast of at least 3:1 against white and against #14171a, the dark page.
BLUE, ORANGE, RED = "#2f7fd6", "#c8680a", "#d9363e"
INK = "#010203"
"""Stands for the colour of the surrounding text while matplotlib draws."""

FAINT = 0.15
"""Opacity of grids and bands."""

WIDTH = 5.0
"""Inches. These are 360 units of the drawing, about as many pixels as a phone shows, so that text
keeps its size there."""

MAX_LABEL_LENGTH = 44
"""Characters of a name beside a bar; longer ones are shortened."""

HEIGHT = 4.4
"""Inches."""

ROW_HEIGHT = 0.36
"""Inches for a row of a figure that `label_rows` prepares."""

# Any: since 3.11, matplotlib types the keys one by one.
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: smaller, searchable, readable by screen readers
    "font.family": "DejaVu Sans",  # comes with matplotlib, so it measures alike on every machine
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": FAINT,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
}
_UNDRAWABLE = r"Glyph \d+ .* missing from|Matplotlib currently does not support \w+ natively"
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
# As matplotlib 3.10 writes it, then 3.11.
_FONT = re.compile(
    r"font: ([\d.]+px) 'DejaVu Sans'|font-size: ([\d.]+px); font-family: 'DejaVu Sans'"
)
# The colours of the page in report.css. An image has paper of its own, because some browsers choose
# by the system's mode, and others by that of the page around it.
_PAPER = (
    "<style>svg { color: #1b1f23 } .paper { fill: #ffffff } @media (prefers-color-scheme: dark) "
    "{ svg { color: #e6e9ec } .paper { fill: #14171a } }</style>"
    '<rect class="paper" width="100%" height="100%"/>'
)


class Drawing(NamedTuple):
    """A figure, and what it shows in words."""

    svg: str
    """An `<svg>` element whose text alternative are the words."""
    words: str


def draw(
    name: str, words: str, paint: Callable[["Figure"], None], *, height: float = HEIGHT
) -> Drawing:
    """Draw a figure.

    Args:
        name: A name that is unique within the page. All ids of the drawing begin with it.
        words: What the figure shows.
        paint: Paints the empty figure that it is given.
        height: Height in inches.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # the user's own style would change the bytes
        matplotlib.rcParams.update(_STYLE)
        matplotlib.rcParams["svg.hashsalt"] = name
        figure = Figure(figsize=(WIDTH, height))
        paint(figure)
        document = io.StringIO()
        with warnings.catch_warnings():
            # Text stays text: the reader's browser finds fonts for what this one doesn't have.
            warnings.filterwarnings("ignore", _UNDRAWABLE, UserWarning)
            figure.savefig(document, format="svg", metadata=_NO_METADATA)
    return Drawing(_embeddable(document.getvalue(), name, words), words)


def standalone(drawing: Drawing) -> str:
    """Return the drawing as an SVG file of its own, which follows light and dark mode."""
    start, rest = drawing.svg.split(">", 1)
    return f"{start}>{_PAPER}{rest}"


def panels(figure: "Figure", count: int, *, left: float = 0.15) -> "Sequence[Axes]":
    """Return axes, one below the other, with fixed margins: `left` is a fraction of the width."""
    axes = figure.subplots(count, squeeze=False)
    inches = figure.get_figheight()
    figure.subplots_adjust(
        left=left, right=0.97, top=1 - 0.32 / inches, bottom=0.52 / inches, hspace=0.62
    )
    return list(axes[:, 0])


def label_rows(axes: "Axes", labels: Sequence[str]) -> None:
    """Prepare axes for a mark in each row y = 0, 1, …, from the top; write a label above each."""
    for row, label in enumerate(labels):
        above = row - 0.36
        side = axes.get_yaxis_transform()  # x = 0 is the left edge
        axes.text(0, above, label, fontsize=10, va="center", transform=side)
    axes.set_ylim(len(labels) - 0.5, -0.85)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(visible=True, axis="x")


def note_empty(axes: "Axes", words: str) -> None:
    """Write into axes why they show nothing."""
    axes.text(0.5, 0.5, words, ha="center", va="center", transform=axes.transAxes)
    axes.set_xticks([])
    axes.set_yticks([])


def shortened(text: str, max_length: int) -> str:
    """Return a text in one line of limited length, escaped from matplotlib's math mode.

    A character of full width, as Chinese ones are, counts twice.
    """
    line = "".join(c if c.isprintable() else " " for c in text)
    widths = list(itertools.accumulate(2 if _is_wide(c) else 1 for c in line))
    if widths and widths[-1] > max_length:
        line = line[: bisect.bisect_right(widths, max_length - 1)] + "…"
    return line.replace("$", r"\$")


def _is_wide(character: str) -> bool:
    return unicodedata.east_asian_width(character) in "WF"


def _embeddable(document: str, name: str, words: str) -> str:
    """Return the `<svg>` element of a document, fit to stand in a page.

    Its ids begin with `name`, its colours and its font are the page's, and it has `words` as a text
    alternative.
    """
    svg = document[document.index("<svg") :]
    referenced = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in referenced else "", svg)
    svg = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = _FONT.sub(r"font-size: \1\2", svg)
    svg = svg.replace(INK, "currentColor")
    label = f'role="img" aria-label="{escape(words)}" font-family="system-ui, sans-serif"'
    return svg.replace("<svg ", f"<svg {label} ", 1).strip() + "\n"
