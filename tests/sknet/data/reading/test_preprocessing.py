"""Every evaluation sees the same pixels, and they are those that the steps in words describe."""

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from sknet.data.images import decode
from sknet.data.reading.batch_operations import normalise
from sknet.data.reading.pipeline import eval_batches
from sknet.data.reading.preprocessing import eval_operations, network_input
from sknet.data.shards import ShardSet
from sknet.recipe import Recipe
from sknet.records.preprocessing import Preprocessing
from tests.sknet.recipes import recipe as make_recipe

PILLOW = {"eval_preprocessing": "pillow", "image_resize": 32, "num_parallel_workers": 1}
SIZES = ((90, 60), (60, 90), (33, 47), (3, 5), (1, 1), (2, 71), (71, 2), (500, 31), (40, 40))


def photograph(width: int, height: int, seed: int = 1) -> Image.Image:
    """Return a smooth image with fine detail, on which filters differ."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = 90 * np.sin(x / 3)[..., None] * np.cos(y / 5)[..., None] + 128
    noise = random.normal(0, 25, (height, width, 3))
    return Image.fromarray(np.clip(waves + noise, 0, 255).astype(np.uint8))


def crop_of(image: Image.Image, preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
    pixels: object = np.asarray(image)
    for operation in eval_operations(preprocessing):
        pixels = operation(pixels)
    return np.asarray(pixels)


def as_torchvision_does(image: Image.Image, crop: int, shorter: int) -> npt.NDArray[np.uint8]:
    """Resize and crop with the arithmetic of torchvision's Resize and CenterCrop, as timm does."""
    width, height = image.size
    if width <= height:
        size = (shorter, int(shorter * height / width))
    else:
        size = (int(shorter * width / height), shorter)
    resized = image.resize(size, Image.Resampling.BICUBIC)
    left, top = (round((side - crop) / 2.0) for side in resized.size)
    return np.asarray(resized.crop((left, top, left + crop, top + crop)))


@pytest.mark.parametrize("crop_pct", [1.0, 0.875, 0.95])
def test_pillow_crops_the_pixels_that_torchvision_and_timm_crop(crop_pct: float) -> None:
    recipe = make_recipe(**PILLOW, interpolation="bicubic", crop_pct=crop_pct)
    preprocessing = Preprocessing.of(recipe, 32)
    for size in SIZES:
        if max(size) <= 16 * min(size):
            image = photograph(*size)
            expected = as_torchvision_does(image, 32, preprocessing.resize)
            found = crop_of(image, preprocessing)
            assert np.array_equal(found, expected.transpose(2, 0, 1)), size


def test_shrinking_by_pillow_averages_where_mindcv_skips_pixels() -> None:
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    image = Image.fromarray(stripes)
    recipe = make_recipe(image_resize=32, crop_pct=1.0)
    mindcv = crop_of(image, Preprocessing.of(recipe, 32))
    pillow = crop_of(image, Preprocessing.of(recipe.model_copy(update=PILLOW), 32))
    assert np.abs(pillow[:, :, 1:-1].astype(int) - 127).max() <= 1
    assert mindcv.std() < 1  # one phase of the stripes, wherever it falls
    coarse = Image.fromarray(np.repeat(stripes[:, :36], 4, axis=1))
    differences = crop_of(coarse, Preprocessing.of(recipe, 32)).astype(int) - crop_of(
        coarse, Preprocessing.of(recipe.model_copy(update=PILLOW), 32)
    )
    assert np.abs(differences).mean() > 20


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("method", ["mindcv", "pillow"])
def test_predictions_see_the_same_bits_as_evaluations(
    converted: ShardSet, folders: Path, method: str, interpolation: str
) -> None:
    recipe = make_recipe(
        **{**PILLOW, "eval_preprocessing": method}, interpolation=interpolation, crop_pct=0.8
    )
    ((images, _),) = (
        (images, labels)
        for (images,), labels in eval_batches(recipe, converted, "val", np.arange(6), 6, [32])
    )
    preprocessing = Preprocessing.of(recipe, 32)
    expected = [
        network_input(decode(path.read_bytes()), preprocessing)
        for path in (folders / "val").rglob("*.*")
    ]
    # The shards have an order of their own.
    assert sorted(each.tobytes() for each in images) == sorted(each.tobytes() for each in expected)


def test_one_pass_gives_each_resolution_the_pixels_of_a_pass_of_its_own(
    converted: ShardSet,
) -> None:
    recipe = make_recipe(**PILLOW)
    indices = np.arange(6)
    ((together, _),) = eval_batches(recipe, converted, "val", indices, 6, [32, 40], (1.0, 1.5))
    for number, (side, scale) in enumerate([(32, 1.0), (32, 1.5), (40, 1.0), (40, 1.5)]):
        (((alone,), _),) = eval_batches(recipe, converted, "val", indices, 6, [side], (scale,))
        assert alone.shape == (6, 3, side, side)
        assert np.array_equal(together[number], alone)


def by_the_steps(image: Image.Image, said: Preprocessing) -> npt.NDArray[np.float32]:
    """Follow `in_words` of Pillow's preprocessing, sentence by sentence."""
    width, height = image.size
    shorter = min(width, height)
    ends = [max(0, side - said.max_aspect * shorter) // 2 for side in image.size]
    image = image.crop((ends[0], ends[1], width - ends[0], height - ends[1]))
    size = (said.resize * image.width // shorter, said.resize * image.height // shorter)
    image = image.resize(size, Image.Resampling[said.interpolation.upper()])
    left, top = round((image.width - said.crop) / 2), round((image.height - said.crop) / 2)
    image = image.crop((left, top, left + said.crop, top + said.crop))
    values = (np.asarray(image, np.float32) - np.float32(said.mean)) / np.float32(said.std)
    return values.transpose(2, 0, 1)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "RGBA", "P"])
def test_the_steps_in_words_give_the_input_from_the_file(mode: str) -> None:
    said = Preprocessing.of(make_recipe(**PILLOW, crop_pct=0.875), 32)
    for size in SIZES:
        content = io.BytesIO()
        photograph(*size).convert(mode).save(content, "JPEG" if mode in ("L", "CMYK") else "PNG")
        with Image.open(content) as file:
            expected = by_the_steps(file.convert("RGB"), said)
        found = network_input(decode(content.getvalue()), said)
        np.testing.assert_array_equal(found, expected)


def test_the_steps_in_words_name_every_number_and_the_filter() -> None:
    recipe: Recipe = make_recipe(**PILLOW, interpolation="bicubic", crop_pct=0.9)
    words = " ".join(Preprocessing.of(recipe, 32).in_words())
    for number in ("16 times", "35 pixels", "BICUBIC", "32 x 32", "123.675", "57.375"):
        assert number in words
    assert "INTER_LINEAR" in " ".join(Preprocessing.of(make_recipe(), 32).in_words())


def test_the_resized_side_is_rounded_down() -> None:
    for side, crop_pct, shorter in ((224, 0.875, 256), (224, 0.95, 235), (128, 0.875, 146)):
        assert Preprocessing.of(make_recipe(crop_pct=crop_pct), side).resize == shorter


def test_pillows_affine_transform_gives_mindcvs_bilinear_pixels_to_one_level() -> None:
    said = Preprocessing.of(make_recipe(crop_pct=0.875), 32)
    assert "Image.Transform.AFFINE" in " ".join(said.in_words())
    for size in SIZES[:5]:
        image = photograph(*size)
        w, h = (said.resize * side // min(size) for side in size)
        matrix = (image.width / w, 0, 0, 0, image.height / h, 0)
        resized = image.transform((w, h), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
        left, top = (w - 32) // 2, (h - 32) // 2
        expected = np.asarray(resized.crop((left, top, left + 32, top + 32))).transpose(2, 0, 1)
        assert np.abs(crop_of(image, said).astype(int) - expected).max() <= 1, size


def test_the_input_is_normalised_by_the_mean_and_std_of_the_preprocessing() -> None:
    said = Preprocessing.of(make_recipe(**PILLOW, mean=[1, 2, 3], std=[4, 5, 6]), 32)
    image = np.asarray(photograph(40, 40))
    pixels = crop_of(Image.fromarray(image), said)[None]
    assert np.array_equal(network_input(image, said), normalise(pixels, (1, 2, 3), (4, 5, 6))[0])
