"""Types of a recipe's values: numbers with limits, and values that can be written in several ways.

A digest must not depend on how a value is written, so every value is converted to one form.
"""

import math
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

MAX_MAGNITUDE = 10
"""Largest magnitude of RandAugment."""

MAX_OPERATIONS = 14
"""Number of operations that RandAugment can choose from."""


def refuse_bool(value: Any) -> Any:
    """Return the value, unless it is `true` or `false`, which Python takes for 1 and 0.

    Raises:
        ValueError: The value is a bool.
    """
    if isinstance(value, bool):
        raise ValueError("a number was expected, not true or false")
    return value


# Text is accepted for numbers: YAML 1.1 reads `4e-5` as text.
Real = Annotated[float, BeforeValidator(refuse_bool)]
NonNegative = Annotated[Real, Field(ge=0)]
Fraction = Annotated[Real, Field(ge=0, le=1)]
Whole = Annotated[int, BeforeValidator(refuse_bool), Field(ge=0)]
"""An integer of at least 0."""
Count = Annotated[int, BeforeValidator(refuse_bool), Field(ge=1)]
"""An integer of at least 1."""
Range = tuple[NonNegative, NonNegative]


def _numbers(value: object) -> list[float]:
    """Return the finite numbers of a list, or of one number; empty if it holds anything else."""
    items = value if isinstance(value, list | tuple) else [value]
    try:
        numbers = [float(refuse_bool(item)) for item in items]
    except (TypeError, ValueError, OverflowError):
        return []
    return numbers if all(map(math.isfinite, numbers)) else []


def _expand_jitter(value: object) -> object:
    if value is None:
        return None
    numbers = _numbers(value) * (1 if isinstance(value, list | tuple) else 3)
    if len(numbers) == 3:
        numbers.append(0.0)
    if len(numbers) != 4 or min(numbers) < 0 or numbers[3] > 0.5:
        raise ValueError("expected a number from 0, three, or four with the last up to 0.5")
    return tuple(numbers)


def _three_numbers(value: object) -> object:
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise ValueError("expected three numbers, one for each of red, green and blue")
    return value


Channels = Annotated[tuple[Real, Real, Real], BeforeValidator(_three_numbers)]
"""One number for each of red, green and blue."""


def _expand_erase_value(value: object) -> object:
    if value == "random":
        return value
    numbers = _numbers(value) * (1 if isinstance(value, list | tuple) else 3)
    if len(numbers) != 3:
        raise ValueError("expected a number, three numbers or 'random'")
    return tuple(numbers)


def _expand_class_weights(value: object) -> object:
    if value in ("none", "balanced"):
        return value
    numbers = _numbers(value) if isinstance(value, list | tuple) else []
    if not numbers or min(numbers) <= 0:
        raise ValueError("expected none, balanced or a list of numbers above 0, one for each class")
    return tuple(numbers)


def _named_shuffle(value: object) -> object:
    if value is True:  # as MindCV writes it
        return "full"
    if value is False:
        raise ValueError("training always shuffles: expected full or blocks")
    return value


Shuffle = Annotated[Literal["full", "blocks"], BeforeValidator(_named_shuffle)]
"""`full` or `blocks`; `true` is `full`, as in MindCV."""

ColorJitter = Annotated[tuple[float, float, float, float], BeforeValidator(_expand_jitter)]
"""Brightness, contrast, saturation and hue; written as one, three or four numbers."""

EraseValue = Annotated[
    Literal["random"] | tuple[float, float, float], BeforeValidator(_expand_erase_value)
]
"""`random`, or one number for each channel; written as one or three numbers."""

ClassWeights = Annotated[
    Literal["none", "balanced"] | tuple[float, ...], BeforeValidator(_expand_class_weights)
]
"""`none`, `balanced`, or one number for each class."""


@dataclass(frozen=True)
class AutoAugment:
    """A policy of automatic augmentation."""

    policy: Literal["autoaug", "randaug", "trivialaugwide"]
    magnitude: int = MAX_MAGNITUDE
    """Strength of the operations; used by RandAugment only."""
    num_operations: int = 2
    """Operations for each image; used by RandAugment only."""


def parse_auto_augment(text: str) -> AutoAugment:
    """Return the policy that a text such as `randaug-m9-n2` describes, as MindCV reads it.

    Raises:
        ValueError: A part of the text is not supported; the message names it.
    """
    name, *parts = text.split("-")
    if name == "autoaug" and not parts:
        return AutoAugment("autoaug")
    if name == "trivialaugwide" and not parts:
        return AutoAugment("trivialaugwide")
    if name != "randaug":
        raise _unsupported(parts[0] if name in ("autoaug", "trivialaugwide") else name)
    numbers = {"m": MAX_MAGNITUDE, "n": 2}
    limits = {"m": range(MAX_MAGNITUDE + 1), "n": range(1, MAX_OPERATIONS + 1)}
    seen = set()
    for part in parts:
        match = re.fullmatch(r"([mn])(\d{1,2})", part, re.ASCII)
        if not match or match[1] in seen or int(match[2]) not in limits[match[1]]:
            raise _unsupported(part)
        seen.add(match[1])
        numbers[match[1]] = int(match[2])
    return AutoAugment("randaug", numbers["m"], numbers["n"])


def _unsupported(part: str) -> ValueError:
    return ValueError(
        f"{part!r} is not supported: expected autoaug, trivialaugwide or randaug-mM-nN with M in "
        f"0 … {MAX_MAGNITUDE} and N in 1 … {MAX_OPERATIONS}"
    )


def _check_auto_augment(text: str) -> str:
    parse_auto_augment(text)
    return text


AutoAugmentText = Annotated[str, AfterValidator(_check_auto_augment)]
"""A text that `parse_auto_augment` accepts."""
