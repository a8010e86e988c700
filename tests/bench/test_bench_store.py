"""The benchmark of the artifact store runs and prints every figure."""

import re

from tests.bench.test_bench_model import run


def test_every_figure_is_printed() -> None:
    small = ("--mib", "8", "--artifacts", "30", "--files", "50", "--rounds", "1")
    printed = run("tests.bench.bench_store", *small)
    rows = re.findall(r"^\| (\D[^|]*) \| [\d.]+ \|", printed, re.MULTILINE)
    large = ["copy + sha256", "put", "get, every byte", "fetch"]
    assert rows == [*large, "commit", "verify changed", "verify full"]
    few, many = re.findall(r"^\| (\d+) \| [\d.]+ \| [\d.]+ \| (\d+) \|$", printed, re.MULTILINE)
    assert (few[0], many[0]) == ("10", "30")
    assert few[1] == many[1]
