"""The comparison of evaluations by MindCV's and Pillow's resizing runs in small form."""

import re
from pathlib import Path

import pytest
from PIL import Image

from tests.bench.bench_preprocessing import SIDES, TILES, write_tiles
from tests.bench.test_bench_model import run
from tests.processes import ROOT


@pytest.mark.slow
def test_the_row_of_a_data_set_is_printed() -> None:
    text = (ROOT / "docs/internals/performance.md").read_text("utf-8")
    assert "$ python -m tests.bench.bench_preprocessing" in text
    printed = run(
        "tests.bench.bench_preprocessing",
        *("--model", "tiny", "--seeds", "2", "--epochs", "2", "--data", "digits"),
    )
    pattern = r"^\| digits \| (\d+\.\d) \(.*?\) \| (\d+\.\d) \(.*?\) \| (-?\d+\.\d) \("
    ((mindcv, pillow, difference),) = re.findall(pattern, printed, re.MULTILINE)
    assert abs(float(pillow) - float(mindcv) - float(difference)) < 0.11


def test_tiles_have_the_sizes_and_numbers_that_the_page_says(tmp_path: Path) -> None:
    write_tiles(tmp_path, 0)
    for split, number in TILES.items():
        folders = sorted((tmp_path / split).iterdir())
        assert len(folders) == 6
        for folder in folders:
            files = list(folder.iterdir())
            assert len(files) == number
            with Image.open(files[0]) as image:
                assert SIDES[0] <= image.width == image.height <= SIDES[1]
