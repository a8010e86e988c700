"""A line of the acceptance, its figures, and how measured numbers are judged. Nothing runs here."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

Limit = Literal["at most", "at least", "exactly"]

PUBLISHED_CARDS = 8


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What the acceptance runs on."""

    device_target: Literal["CPU", "Ascend"]
    cards: int
    """Ranks on each host, each with a card of its own on Ascend."""
    hosts: int
    miniature: bool
    """Whether small trainings on digits replace the published recipe."""
    binding_obstacle: str = ""
    """Why msrun can't bind ranks to cores on this host; empty if it can."""

    @property
    def is_published(self) -> bool:
        """Whether published figures are for this setting."""
        on_cards = self.device_target == "Ascend" and self.cards == PUBLISHED_CARDS
        return on_cards and not self.miniature

    @property
    def is_full(self) -> bool:
        """Whether speeds mean anything: cards, and the real recipe."""
        return self.device_target == "Ascend" and not self.miniature


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A number that a line measures."""

    name: str
    unit: str = ""
    compare: float | None = None
    """The figure to compare with; None: there is none."""
    source: str = ""
    """Where `compare` comes from."""
    limit: Limit | None = None
    """How the measured number is judged by `compare`; None: not at all."""
    tolerance: float = 0.0
    """By which fraction of `compare` the measured number may be worse."""
    may_be_unknown: bool = False
    """Whether the line can pass without it, as its sentence says."""

    @property
    def bound(self) -> float | None:
        """The worst number that passes; None if the figure is not judged."""
        if self.compare is None or self.limit is None:
            return None
        sign = {"at most": 1, "at least": -1, "exactly": 0}[self.limit]
        return self.compare * (1 + sign * self.tolerance)

    def holds(self, measured: float | None) -> bool | None:
        """Tell whether a measured number passes; None if it can't be judged."""
        if self.bound is None or measured is None:
            return None
        match self.limit:
            case "at most":
                return measured <= self.bound
            case "at least":
                return measured >= self.bound
        return measured == self.bound

    def without_bound(self) -> "Figure":
        """Return the figure as one that is only reported."""
        return replace(self, compare=None, limit=None, tolerance=0.0, source="")


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the acceptance."""

    name: str
    proves: str
    """A sentence about what holds if the line passes."""
    figures: tuple[Figure, ...]
    needs: tuple[str, ...] = ()
    """Lines without which this one would fail too."""
    trainings: tuple[str, ...] = ()
    """Trainings that its check reads, `line/name`."""
    not_run: str = ""
    """Why this setting has nothing to prove here; empty if the line is run."""


def failures(line: Line, measured: Mapping[str, float | None]) -> list[str]:
    """Return what is wrong with the figures of a line that was run; nothing if it passes.

    A line of which no figure is judged has proven nothing, and fails.

    Args:
        line: The line.
        measured: The figures by name; those that could not be measured are None, or missing.
    """
    judged = {figure.name: figure.holds(measured.get(figure.name)) for figure in line.figures}
    wrong = []
    for figure in line.figures:
        value = measured.get(figure.name)
        unknown = figure.bound is not None and value is None and not figure.may_be_unknown
        if unknown or judged[figure.name] is False:
            found = number(value) or "not known"
            wrong.append(f"{figure.name}: {found}, expected {bound_text(figure)}")
    if not wrong and all(holds is None for holds in judged.values()):
        return ["no figure is judged"]
    return wrong


def bound_text(figure: Figure) -> str:
    """Return what a figure is judged by, such as `at most 49.17 ms`; empty if it is not judged."""
    if figure.bound is None:
        return ""
    return f"{figure.limit} {number(figure.bound)} {figure.unit}".strip()


def number(value: float | None) -> str:
    """Return a number for people, with two digits after the point, or three in all below 1."""
    if value is None:
        return ""
    if value == int(value):
        return f"{value:,.0f}"
    return f"{value:,.2f}" if abs(value) >= 1 else f"{value:.3g}"
