"""The benchmark of the training loop runs and prints every figure."""

import re

import pytest

from tests.bench.test_bench_model import run
from tests.documented import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.alone]


def test_every_figure_is_printed() -> None:
    text = (ROOT / "docs/performance.md").read_text("utf-8")
    assert "$ python -m tests.bench.bench_training --rounds 5\n" in text
    small = ("--images", "8", "--batch", "4", "--resolution", "32", "--rounds", "1", "--steps", "2")
    printed = run("tests.bench.bench_training", *small, "--interval", "1")
    figures = re.findall(
        r"^(\w+): (?:ours|MindCV|2 ranks|the cached graph|[\d.]+%)", printed, re.MULTILINE
    )
    assert figures == ["loop", "checkpoint", "resume", "ranks", "peer"]
    assert all(float(ratio) > 0 for ratio in re.findall(r"takes ([\d.]+) times", printed))
