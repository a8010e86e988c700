"""Types of numeric command-line options, for argparse's `type=`."""

import argparse
import math
from collections.abc import Callable


def whole_number(least: int, most: float = math.inf) -> Callable[[str], int]:
    """Return a parser of whole numbers from `least` to `most`, both included."""

    def parse(text: str) -> int:
        if text.isascii() and text.isdecimal() and least <= int(text) <= most:
            return int(text)
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {_range(least, most)}")

    return parse


def number(least: float, most: float = math.inf) -> Callable[[str], float]:
    """Return a parser of finite numbers from `least` to `most`, both included."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if math.isfinite(value) and least <= value <= most:
            return value
        raise argparse.ArgumentTypeError(f"{text!r} is not a number {_range(least, most)}")

    return parse


def _range(least: float, most: float) -> str:
    first, last = (
        str(limit) if isinstance(limit, int) else f"{limit:g}" for limit in (least, most)
    )
    return f"of at least {first}" if most == math.inf else f"from {first} to {last}"


positive_int = whole_number(1)
non_negative_float = number(0)
fraction = number(0, 1)
