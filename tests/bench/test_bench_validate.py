"""The benchmark of validation runs, counts the same as MindCV, and prints both ratios."""

import re

import pytest

from tests.bench.test_bench_model import run
from tests.processes import ROOT

pytestmark = pytest.mark.slow


def test_both_count_the_same_and_both_ratios_are_printed() -> None:
    text = (ROOT / "docs/internals/performance.md").read_text("utf-8")
    assert "$ python -m tests.bench.bench_validate" in text
    printed = run("tests.bench.bench_validate", "--images", "8", "--batch", "4", "--rounds", "1")
    counted = dict(re.findall(r"^(ours|MindCV) counted (.+)$", printed, re.MULTILINE))
    assert counted["ours"] == counted["MindCV"]
    ratios = re.findall(r"^(validation|forward): [\d.]+x MindCV \(", printed, re.MULTILINE)
    assert ratios == ["validation", "forward"]
    rows = re.findall(r"^\| (\w+) \| (\w+) \| [\d.]+ \|", printed, re.MULTILINE)
    assert rows == [(mode, name) for mode in ratios for name in ("ours", "MindCV")]
