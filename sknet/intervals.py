"""Wilson's interval of a share that was counted."""

import math

Z_95 = 1.959963984540054
"""Quantile of the normal distribution for a two-sided 95 % interval."""


def wilson_interval(correct: int, seen: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share; it stays within 0 … 1, also for 0 or all correct."""
    share = correct / seen
    spread = Z_95**2 / seen
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)
