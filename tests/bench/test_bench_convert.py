"""The benchmark of the conversion runs and prints its ratios."""

import re

import pytest

from tests.bench.test_bench_model import run

pytestmark = pytest.mark.slow


def test_every_ratio_is_printed() -> None:
    small = ("--images", "24", "--rounds", "1", "--memory", "100")
    printed = run("tests.bench.bench_convert", *small)
    ratios = re.findall(r"^(.+): [\d.]+x (.+) \([\d.]+-[\d.]+.*\), by CPU", printed, re.MULTILINE)
    assert ratios == [
        ("1 worker", "bare loop"),
        ("1 worker", "bare loop, read back and hashed"),
        ("1 worker, unchecked", "bare loop"),
        ("2 workers", "1 worker"),
        ("re-encoding, 1 worker", "re-encoding, plain loop"),
    ]
    assert re.search(r"^100 images, parent side: peak \d+ MiB", printed, re.MULTILINE)
    assert re.search(r"^100 images, worker side: peak \d+ MiB", printed, re.MULTILINE)
