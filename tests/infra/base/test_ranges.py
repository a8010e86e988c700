"""Numbers are shown as ranges, as taskset and the kernel's settings write them."""

import pytest

from infra.base.ranges import show_ranges


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([0], "0"), ([3, 1, 2, 0, 8], "0-3,8"), ([0, 2, 3, 6, 7, 8], "0,2-3,6-8"), ([], "")],
)
def test_neighbours_are_joined(numbers: list[int], text: str) -> None:
    assert show_ranges(numbers) == text
