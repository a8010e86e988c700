"""The benchmark of the training loop runs and prints its figures."""

import re

import pytest

from tests.bench.test_bench_model import run
from tests.processes import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.alone]


def test_figures_are_printed_for_each_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """All but `peer` and `ranks`, which would double the minute of computing.

    MindCV's network has to be compiled too, and `ranks` starts jobs as `resume` does.
    """
    text = (ROOT / "docs/internals/performance.md").read_text("utf-8")
    assert "$ python -m tests.bench.bench_training\n" in text
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    small = ("--images", "16", "--batch", "4", "--resolution", "32", "--job_resolution", "32")
    turns = ("--rounds", "1", "--steps", "3", "--interval", "2", "--ranks", "1")
    parts = ("loop", "checkpoint", "resume")
    printed = run("tests.bench.bench_training", *small, *turns, "--parts", *parts)
    figures = re.findall(r"^(\w+): .*?(\d[\d.]*)(?: times| s;|%)", printed, re.MULTILINE)
    assert [part for part, _ in figures] == ["loop", *["checkpoint"] * 3, "resume"]
    assert all(float(figure) > 0 for part, figure in figures if part != "checkpoint")
