"""The `auto_augment` of a recipe: MindCV's strings, as far as MindSpore's C++ operations go.

The C++ operations run in the reading threads and draw from their segment's seed; MindCV's own
policies are Python and draw from the process's generators, which can't be resumed.

- `randaug-m9-n2`: RandAugment with `n` operations (2) of magnitude `m` (10) in 0 … 10. MindCV
  scales a magnitude by m / 10, so the C++ operation is given eleven bins and m is the bin: rotation
  by ±3m degrees, shear by ±0.03m, translation by ±0.0453m of the side, brightness, colour, contrast
  and sharpness by 1 ± 0.09m, posterising to 8 - 0.4m bits, solarising above 255 - 25.5m. Unlike
  MindCV's, a magnitude has no noise, every operation is applied (the identity is one of fourteen;
  MindCV applies each with probability 0.5 and has an inversion instead), and strength always grows
  with m, which MindCV does with `inc1` only.
- `autoaug`: AutoAugment's policy for ImageNet, without noise of the magnitudes.
- `trivialaugwide`: one operation of one of 31 magnitudes.
"""

import re
from dataclasses import dataclass
from typing import Literal

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
