"""The types of a recipe's values: numbers and their limits, and what has several spellings."""

import math
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

MAX_MAGNITUDE = 10

MAX_OPERATIONS = 14

POSSIBLE = (
    f"expected autoaug, trivialaugwide or randaug-mM-nN with M in 0 … {MAX_MAGNITUDE} and "
    f"N in 1 … {MAX_OPERATIONS}"
)


@dataclass(frozen=True)
class AutoAugment:
    """A policy, and RandAugment's two numbers."""

    policy: Literal["autoaug", "randaug", "trivialaugwide"]
    magnitude: int = MAX_MAGNITUDE
    num_operations: int = 2


def parse_auto_augment(text: str) -> AutoAugment:
    """What the string asks for. Raises ValueError naming the part that is not possible."""
    name, *parts = text.split("-")
    if name == "autoaug" and not parts:
        return AutoAugment("autoaug")
    if name == "trivialaugwide" and not parts:
        return AutoAugment("trivialaugwide")
    if name != "randaug":
        unsupported = repr(parts[0]) if name in ("autoaug", "trivialaugwide") else repr(name)
        raise ValueError(f"{unsupported} is not supported: {POSSIBLE}")
    numbers = {"m": MAX_MAGNITUDE, "n": 2}
    limits = {"m": range(MAX_MAGNITUDE + 1), "n": range(1, MAX_OPERATIONS + 1)}
    seen = set()
    for part in parts:
        match = re.fullmatch(r"([mn])(\d{1,2})", part, re.ASCII)
        if not match or match[1] in seen or int(match[2]) not in limits[match[1]]:
            raise ValueError(f"{part!r} is not supported: {POSSIBLE}")
        seen.add(match[1])
        numbers[match[1]] = int(match[2])
    return AutoAugment("randaug", numbers["m"], numbers["n"])


def refuse_bool(value: Any) -> Any:
    """`true` is not 1. Raises ValueError."""
    if isinstance(value, bool):
        raise ValueError("a number was expected, not true or false")
    return value


# YAML 1.1 reads `4e-5` as text, so numbers in text are welcome; `true` is not 1.
Count = Annotated[int, BeforeValidator(refuse_bool), Field(ge=1)]

Whole = Annotated[int, BeforeValidator(refuse_bool), Field(ge=0)]

Real = Annotated[float, BeforeValidator(refuse_bool)]

NonNegative = Annotated[Real, Field(ge=0)]

Share = Annotated[Real, Field(ge=0, le=1)]

Channels = tuple[Real, Real, Real]

Range = tuple[NonNegative, NonNegative]


def _numbers(value: object) -> list[float]:
    """Finite numbers of a list, or of one number; none if there is something else."""
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


def _expand_erase_value(value: object) -> object:
    if value == "random":
        return value
    numbers = _numbers(value) * (1 if isinstance(value, list | tuple) else 3)
    if len(numbers) != 3:
        raise ValueError("expected a number, three numbers or 'random'")
    return tuple(numbers)


# Written in full, so that a digest is of values and not of their spelling.
ColorJitter = Annotated[tuple[float, float, float, float], BeforeValidator(_expand_jitter)]

EraseValue = Annotated[
    Literal["random"] | tuple[float, float, float], BeforeValidator(_expand_erase_value)
]


def _check_auto_augment(text: str) -> str:
    parse_auto_augment(text)
    return text


AutoAugmentText = Annotated[str, AfterValidator(_check_auto_augment)]
