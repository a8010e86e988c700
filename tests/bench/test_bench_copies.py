"""The benchmark of copies finds what it planted, and prints what that costs."""

import re

import pytest

from tests.bench.bench_copies import KINDS
from tests.bench.test_bench_model import run

pytestmark = pytest.mark.slow


def test_resized_and_reencoded_copies_are_found_with_next_to_no_false_pairs() -> None:
    printed = run(
        "tests.bench.bench_copies", "--sides", "64", "150", "--images", "24", "--synthetic", "5000"
    )
    rows = re.findall(r"^\| (\D.+) \| ([\d.]+)% \| (\d+) \| (\d+) \|$", printed, re.MULTILINE)
    assert [kind for kind, *_ in rows] == list(KINDS)
    for kind, recall, false, pairs in rows:
        assert int(false) <= int(pairs) / 1000
        if kind.startswith(("resized", "re-encoded")):
            assert float(recall) >= 99
    assert "5000 random fingerprints: 50 of 50 planted copies, 0 other groups" in printed
    assert re.findall(
        r"^staging and converting, (.+): [\d.]+ ms; copies", printed, re.MULTILINE
    ) == [
        "original bytes",
        "--shorter-side 256",
    ]
