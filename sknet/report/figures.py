"""Figures as SVG that stands within a page, in equal bytes for equal findings.

matplotlib takes half a second to import, so that is done where a figure is drawn: every command of
the flows imports this module, and few of them draw.
"""

import io
import re
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# At least 3:1 in contrast against white and against #14171a.
BLUE, ORANGE, RED = "#2f7fd6", "#c8680a", "#d9363e"
# Stands for the colour of the surrounding text while matplotlib draws.
INK = "#010203"
FAINT = 0.15
"""Opacity of a grid."""

WIDTH = 5.0
"""Inches: 360 units of the drawing, about what a phone shows, so that text keeps its size there."""
HEIGHT = 4.4

# Any: since 3.11, matplotlib types the keys one by one.
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: smaller, and it can be read aloud and searched
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that it measures alike everywhere
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
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_FONT = re.compile(r"font: (?:normal )?(?:[a-z]+ )?([\d.]+px) 'DejaVu Sans'(?:, [^;\"]*)?")
# Ink on paper, for where there is no page around the drawing.
_PAPER, _PRINTED = "#ffffff", "#1b1f23"


def draw(
    name: str, words: str, paint: Callable[["Figure"], None], *, height: float = HEIGHT
) -> str:
    """What `paint` draws, as an `<svg>` element with a text alternative.

    `name` is the drawing's own within its page; ids begin with it.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # not the reader's own style: equal bytes everywhere
        matplotlib.rcParams.update(_STYLE)
        matplotlib.rcParams["svg.hashsalt"] = name
        figure = Figure(figsize=(WIDTH, height))
        paint(figure)
        drawing = io.StringIO()
        figure.savefig(drawing, format="svg", metadata=_NO_METADATA)
    return _embed(drawing.getvalue(), name, words)


def printed(svg: str) -> str:
    """The drawing as a file of its own: dark ink on white paper."""
    start, rest = svg.replace("currentColor", _PRINTED).split(">", 1)
    return f'{start}><rect width="100%" height="100%" fill="{_PAPER}"/>{rest}'


def panels(figure: "Figure", count: int, *, left: float = 0.15) -> "Sequence[Axes]":
    """So many axes, one below the other, with margins that need no measuring."""
    axes = figure.subplots(count, squeeze=False)
    inches = figure.get_figheight()
    figure.subplots_adjust(
        left=left, right=0.97, top=1 - 0.32 / inches, bottom=0.52 / inches, hspace=0.62
    )
    return list(axes[:, 0])


def say_empty(axes: "Axes", words: str) -> None:
    """What stands in place of data that isn't there."""
    axes.text(0.5, 0.5, words, ha="center", va="center", transform=axes.transAxes)
    axes.set_xticks([])
    axes.set_yticks([])


def shortened(text: str, most: int) -> str:
    """In one line of at most so many characters, without what matplotlib takes for mathematics."""
    line = "".join(c if c.isprintable() else " " for c in text).replace("$", r"\$")
    return line if len(line) <= most else line[: most - 1] + "…"


def _embed(document: str, name: str, words: str) -> str:
    """The `<svg>` element alone, with ids of its own and colours and font of the page; words."""
    svg = document[document.index("<svg") :]
    named = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in named else "", svg)
    svg = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = _FONT.sub(r"font-size: \1", svg)
    svg = svg.replace(INK, "currentColor")
    label = f'role="img" aria-label="{escape(words)}" font-family="system-ui, sans-serif"'
    return svg.replace("<svg ", f"<svg {label} ", 1).strip() + "\n"
