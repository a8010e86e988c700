"""The lowest results at which a checkpoint is promoted, and whether a split can tell.

The floor of accuracy@1 is the recipe's `min_accuracy`; the others are choices of the promotion, so
that another floor needs no other training.
"""

import difflib
import math
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from sknet.errors import UserError
from sknet.significance import Z_95, Interval, mover, wilson

Fraction = Annotated[float, Field(ge=0, le=1)]

MAX_SUGGESTED = 8
"""Most classes that a message lists."""


class Floors(BaseModel):
    """Floors besides that of accuracy@1."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    balanced_floor: Fraction | None = None
    """Lowest balanced accuracy, which is the mean recall of the classes: a fraction. Empty: any."""
    class_floor: dict[str, Fraction] = {}
    """Lowest recall of each class that is named: fractions by the class's name."""

    @field_validator("class_floor", mode="before")
    @classmethod
    def _of_texts(cls, given: Any) -> Any:
        """Accept texts of the form NAME=FRACTION too, as the option has them."""
        if not isinstance(given, list | tuple):
            return given
        floors: dict[str, float] = {}
        for text in given:
            name, _, floor = str(text).rpartition("=")
            try:
                value = float(floor)
            except ValueError:
                value = math.nan
            if not name or not 0 <= value <= 1:
                raise ValueError(
                    f"{text!r} is not of the form CLASS=FRACTION with a fraction from 0 to 1, "
                    "such as cat=0.9"
                )
            if name in floors:
                raise ValueError(f"class {name!r} has two floors: give one")
            floors[name] = value
        return floors

    @property
    def are_set(self) -> bool:
        """Whether any floor is above 0."""
        return any(floor for floor in (self.balanced_floor, *self.class_floor.values()))

    def check(self, classes: Sequence[str], titles: Sequence[str]) -> None:
        """Check, before anything is trained, that there are the classes that have floors.

        Raises:
            UserError: There is no such class, or several of this readable name.
        """
        self.by_label(classes, titles)

    def by_label(self, classes: Sequence[str], titles: Sequence[str]) -> dict[int, float]:
        """Return the floors of the named classes, in the order of the labels.

        Args:
            classes: Names of the classes by label.
            titles: Readable names of the classes by label, which may be given instead.

        Raises:
            UserError: There is no such class, or several of this readable name.
        """
        found: dict[int, float] = {}
        for name, floor in self.class_floor.items():
            label = _label(name, classes, titles)
            if label in found:
                raise UserError(
                    f"--class-floor names class {classes[label]!r} twice: give one floor"
                )
            found[label] = floor
        return dict(sorted(found.items()))


NO_FLOORS = Floors()


def _label(name: str, classes: Sequence[str], titles: Sequence[str]) -> int:
    if name in classes:
        return classes.index(name)
    labels = [label for label, title in enumerate(titles) if title == name]
    if len(labels) == 1:
        return labels[0]
    if labels:
        which = ", ".join(repr(classes[label]) for label in labels)
        raise UserError(f"--class-floor names {name!r}, which {which} are called: name one of them")
    near = difflib.get_close_matches(name, [*classes, *titles], n=1)
    hint = f"did you mean {near[0]!r}?" if near else _listed(classes)
    raise UserError(f"--class-floor names {name!r}, but the data has no such class: {hint}")


def _listed(classes: Sequence[str]) -> str:
    more = f" and {len(classes) - MAX_SUGGESTED} more" if len(classes) > MAX_SUGGESTED else ""
    return f"the classes are {', '.join(classes[:MAX_SUGGESTED])}{more}"


def too_small(what: str, floor: float, seen: Sequence[int]) -> str | None:
    """Tell why a split is too small for a floor to mean anything; None if it isn't.

    It is if even a perfect result has a 95 % interval that reaches below the floor: whoever passes
    it may well be worse.

    Args:
        what: The result that has the floor.
        floor: A fraction above 0.
        seen: Number of samples: all, or of each class if the result is a mean over classes.
    """
    counted = [num for num in seen if num]
    if not counted or not floor:
        return None
    perfect: Interval = mover([wilson(num, num) for num in counted])
    if perfect.low >= floor:
        return None
    samples = "sample" if sum(counted) == 1 else "samples"
    many = f"{sum(counted)} {samples}" + (f" of {len(counted)} classes" if len(seen) > 1 else "")
    return (
        f"validation is too small for the floor of {what}: of {many}, even a perfect result has a "
        f"95 % interval from {perfect.low:.2%}, below {floor:.2%}; {_enough(floor, len(counted))}"
    )


def _enough(floor: float, num_classes: int) -> str:
    """Return how many samples would do: 1 - spread/(1 + spread)/√classes is the lowest value."""
    if floor == 1:
        return "no number of samples would do"
    num = math.ceil(Z_95**2 * (1 / ((1 - floor) * math.sqrt(num_classes)) - 1))
    return f"{num} {'of each class ' if num_classes > 1 else ''}would do"
