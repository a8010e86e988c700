"""The proof for rare classes runs in small form, on digits that are thinned as its page says."""

import re
from pathlib import Path

import pytest

from tests.bench.bench_rare_classes import write_digits
from tests.bench.test_bench_model import run


@pytest.mark.slow
def test_the_row_of_a_contestant_is_printed() -> None:
    printed = run(
        "tests.bench.bench_rare_classes",
        *("--model", "tiny", "--seeds", "2", "--epochs", "2"),
        *("--contestants", "sampler: balanced"),
    )
    (percent,) = re.findall(r"^\| sampler: balanced \| (\d+\.\d) \(", printed, re.MULTILINE)
    assert 5 < float(percent) < 100


def test_half_of_the_classes_have_fifty_times_fewer_digits(tmp_path: Path) -> None:
    is_rare = write_digits(tmp_path, 50, 0)
    counts = [len(list((tmp_path / "train" / str(label)).iterdir())) for label in range(10)]
    assert sum(is_rare) == 5
    assert all(
        count == 3 if rare else count > 140 for count, rare in zip(counts, is_rare, strict=True)
    )
    assert len(list(tmp_path.glob("val/*/*"))) == 360
