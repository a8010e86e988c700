"""The benchmark of the report runs and prints every figure."""

import re

import pytest

from tests.bench.test_bench_model import run


@pytest.mark.slow
def test_every_figure_is_printed() -> None:
    printed = run("tests.bench.bench_report", "--runs", "12", "--revalidations", "4")
    assert printed.startswith("12 runs, 4 revalidations, ")
    rows = re.findall(r"^\| (\w+) \| [\d.]+ \| [\d.]+ \|", printed, re.MULTILINE)
    assert rows == ["read", "write", "all"]
    (size,) = re.findall(r"^report\.html: ([\d.]+) MiB", printed, re.MULTILINE)
    assert float(size) < 5
