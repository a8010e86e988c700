"""Number parsers of command-line options."""

import argparse
from collections.abc import Callable

import pytest

from infra.base.options import fraction, non_negative_float, number, positive_int, whole_number


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (positive_int, "1", 1),
        (whole_number(1, 1024), "1024", 1024),
        (non_negative_float, "0", 0.0),
        (non_negative_float, "1e300", 1e300),
        (fraction, "1", 1.0),
    ],
)
def test_number_in_range_is_returned(
    parse: Callable[[str], float], text: str, value: float
) -> None:
    assert parse(text) == value


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "two", "", "٣", "1_0"])
def test_positive_int_refuses_everything_else(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as refusal:
        positive_int(text)
    assert str(refusal.value) == f"{text!r} is not a whole number of at least 1"


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        (whole_number(1, 1024), "1025", "'1025' is not a whole number from 1 to 1024"),
        (non_negative_float, "-0.5", "'-0.5' is not a number of at least 0"),
        (non_negative_float, "inf", "'inf' is not a number of at least 0"),
        (non_negative_float, "much", "'much' is not a number of at least 0"),
        (fraction, "1.5", "'1.5' is not a number from 0 to 1"),
        (fraction, "nan", "'nan' is not a number from 0 to 1"),
        (number(0, 36500), "1e9", "'1e9' is not a number from 0 to 36500"),
    ],
)
def test_refusal_names_value_and_range(
    parse: Callable[[str], float], text: str, message: str
) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as refusal:
        parse(text)
    assert str(refusal.value) == message
