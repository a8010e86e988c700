"""Numbers of ports or processor cores, shown as ranges."""

from collections.abc import Iterable


def show_ranges(numbers: Iterable[int]) -> str:
    """Return numbers as ranges, such as `0-3,8`; empty if there are none."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)
