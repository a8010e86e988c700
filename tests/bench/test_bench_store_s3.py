"""The benchmark of the artifact store on S3 runs and prints every figure."""

import re

import pytest

from tests.bench.test_bench_model import run


@pytest.mark.slow
def test_every_figure_is_printed() -> None:
    small = ("--mib", "8", "--artifacts", "100", "--files", "30", "--rounds", "1")
    small += ("--collected", "30")
    printed = run("tests.bench.bench_store_s3", *small)
    large = ["boto3 upload + sha256", "put", "boto3 download + sha256", "get"]
    assert re.findall(r"^\| (\D[^|]*) \| \d+\.\d+ \|", printed, re.MULTILINE) == large
    few, many = re.findall(r"^\| (\d+) \| (\d+ \| \d+) \|$", printed, re.MULTILINE)
    assert (few[0], many[0]) == ("10", "100")
    assert few[1] == many[1]
    surveys = re.findall(r"^\| (\w+ is new) \| \d+\.\d+ \| \d+\.\d+ \|", printed, re.MULTILINE)
    assert surveys == ["everything is new", "nothing is new"]
    many_files = re.findall(r"^\| ([a-z]+) \| \d+ \| (\d+) \|$", printed, re.MULTILINE)
    assert [name for name, _ in many_files] == ["commit", "lookup", "get"]
    assert all(int(beyond) < 30 for _, beyond in many_files)
