"""Strips in an evaluation: the same crop as of any image, without the memory of the whole strip."""

import io
import re
import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sknet.data.reading.pipeline import eval_batches
from sknet.data.reading.preprocessing import LimitAspect, eval_operations
from sknet.data.shards import read_shards
from sknet.recipe import Recipe
from sknet.records.preprocessing import MAX_ASPECT, Preprocessing
from tests.sknet.conversions import convert

rng = np.random.default_rng(3)


def centre_crop(preprocessing: Preprocessing, image: Any) -> Any:
    operations: Sequence[Any] = eval_operations(preprocessing)
    for operation in operations:
        image = operation(image)
    return image


@pytest.mark.parametrize("method", ["mindcv", "pillow"])
@pytest.mark.parametrize("size", [(4, 400), (400, 4), (5, 401), (1, 150)])
def test_middle_of_a_strip_gives_the_crop_of_the_whole(
    recipe: Recipe, size: tuple[int, int], method: str
) -> None:
    whole = rng.integers(0, 256, (*size, 3), np.uint8)
    middle = LimitAspect(MAX_ASPECT)(whole)
    assert max(middle.shape) <= MAX_ASPECT * min(size) + 1
    # To 40 pixels: a whole multiple.
    recipe = recipe.model_copy(update={"crop_pct": 0.8, "eval_preprocessing": method})
    limited = Preprocessing.of(recipe, 32)
    unlimited = limited.model_copy(update={"max_aspect": 1000})
    assert np.array_equal(centre_crop(limited, whole), centre_crop(unlimited, middle))
    assert np.array_equal(centre_crop(limited, whole), centre_crop(unlimited, whole))


def test_other_images_are_resized_as_they_are() -> None:
    image = rng.integers(0, 256, (5, 5 * MAX_ASPECT, 3), np.uint8)
    assert np.shares_memory(LimitAspect(MAX_ASPECT)(image), image)
    assert LimitAspect(MAX_ASPECT)(image).shape == image.shape


@contextmanager
def memory_left(num_bytes: int) -> Iterator[None]:
    """Refuse this process more than some bytes beyond what it has."""
    status = Path("/proc/self/status").read_text()
    size = re.search(r"VmSize:\s+(\d+) kB", status)
    assert size
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (int(size[1]) * 1024 + num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("method", ["mindcv", "pillow"])
def test_strip_of_40000_pixels_takes_little_memory(
    method: str, recipe: Recipe, folders: Path, images_copy: Path, tmp_path: Path
) -> None:
    """Of 256 x 10,240,000 pixels, which is what its shorter side needs, it would take 7.9 GB."""
    recipe = recipe.model_copy(update={"eval_preprocessing": method})
    for size in ((1, 40_000), (40_000, 1)):
        content = io.BytesIO()
        Image.new("RGB", size, (9, 99, 199)).save(content, "PNG")
        (images_copy / f"val/cat/00{size[0]}.png").write_bytes(content.getvalue())
    convert(images_copy, tmp_path / "shards", num_shards=1)
    shards = read_shards(tmp_path / "shards")
    indices = np.arange(shards.num_samples("val"))
    list(eval_batches(recipe, shards, "val", indices, 2, [224]))  # what the first reading takes
    with memory_left(500_000_000):
        batches = list(eval_batches(recipe, shards, "val", indices, 2, [224]))
    assert sum(len(labels) for _, labels in batches) == len(indices)
