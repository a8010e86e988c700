"""The benchmark of the input pipelines runs and prints every ratio."""

import re

import pytest

from tests.bench.test_bench_model import run

pytestmark = pytest.mark.slow


def test_every_ratio_is_printed() -> None:
    small = ("--images", "16", "--batch", "4", "--rounds", "1", "--workers", "1")
    printed = run("tests.bench.bench_input", *small)
    ratios = re.findall(r"^(\w+), 1 workers: (.+) [\d.]+x MindCV \(", printed, re.MULTILINE)
    kinds = ("ours", "ours, side 256")
    assert ratios == [(mode, kind) for mode in ("training", "evaluation") for kind in kinds]
    rows = re.findall(r"^\| (\D.*?) \| \d+ \|", printed, re.MULTILINE)
    others = ("MindCV", "Pillow", "decoding only")
    by_pillow = [f"{kind}, by Pillow" for kind in kinds]
    assert rows == [*kinds, *others, *kinds, *by_pillow, *others]
