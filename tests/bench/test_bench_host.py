"""The benchmark of the host's part of a step runs and prints its figures."""

import re

import pytest

from tests.bench.test_bench_model import run

pytestmark = pytest.mark.slow


def test_every_figure_is_printed() -> None:
    small = ("--images", "16", "--batch", "4", "--resolution", "32", "--steps", "3")
    printed = run("tests.bench.bench_host", *small, "--rounds", "1")
    serial = re.findall(r"^(\w+): the host takes -?[\d.]+ ms a step .* ([\d.]+) MB", printed, re.M)
    # 4 images of 3x32x32 values, 4 labels and the request to stop.
    assert serial == [("pixels", "0.01"), ("float32", "0.05")]
    rows = re.findall(r"^\| (\w.*?) \| \d+\.\d+ \|", printed, re.MULTILINE)
    parts = ("our loop", "bare step", "batch copied")
    steps = [f"{kind}: {part}" for kind in ("pixels", "float32") for part in parts]
    cpu = ["read", "decode, crop", "normalise on the host", "tensors"]
    assert rows == [*steps, "float32: MindCV's loop", *cpu]
    cores = re.findall(r"^(\w+): a card .* needs [\d.]+ cores", printed, re.MULTILINE)
    assert cores == ["pixels", "float32"]
