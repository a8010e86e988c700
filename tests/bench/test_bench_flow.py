"""The benchmark of the flow runs and prints every figure."""

import re
from pathlib import Path

import pytest

from tests.bench.test_bench_model import run
from tests.processes import ROOT
from tests.tiny_pipeline import Trained


@pytest.mark.slow
def test_every_figure_is_printed(trained: Trained, copied_store: Path) -> None:
    text = (ROOT / "docs/internals/performance.md").read_text("utf-8")
    assert "$ python -m tests.bench.bench_flow\n" in text
    done = map(str, (trained.recipe, trained.images, copied_store))
    printed = run("tests.bench.bench_flow", "--rounds", "1", "--finished", *done)
    imports = re.findall(r"^imports(.*): ([\d.]+) \(", printed, re.MULTILINE)
    assert [how for how, _ in imports] == ["", ", by CPU time"]
    assert all(float(times) > 0.5 for _, times in imports)
    rows = re.findall(r"^\| (\w+) \| ([\d.]+) \| ([\d.]+) \| -?[\d.]+ ", printed, re.MULTILINE)
    assert [server for server, _, _ in rows] == ["temporary", "running"]
    fractions = re.findall(r"^fraction, (\w+) server: ([\d.]+)%", printed, re.MULTILINE)
    assert [server for server, _ in fractions] == ["temporary", "running"]
    assert all(float(fraction) > 0 for _, fraction in fractions)
