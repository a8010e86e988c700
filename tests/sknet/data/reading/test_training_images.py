"""The pixels that training sees: those of MindSpore's operations, where the draws are the same."""

import io
from typing import Any

import numpy as np
import pytest
from mindspore.dataset import vision
from PIL import Image

from sknet.data.images import decode
from sknet.data.reading.batch_operations import normalise
from sknet.data.reading.crop_box import NUM_DRAWS, crop_box
from sknet.data.reading.training_images import Normalisation, SampleDraws, TrainingImages
from sknet.recipe import Recipe, parse_recipe

RNG = np.random.default_rng(8)
SMALL = Image.fromarray(RNG.integers(0, 256, (20, 30, 3), np.uint8))
PHOTO = SMALL.resize((600, 400), Image.Resampling.BICUBIC)
SIDE = 96


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


JPEG = encoded(PHOTO, "JPEG", quality=90)


def make_recipe(**changes: Any) -> Recipe:
    choices = {"model": "skresnet18", "global_batch_size": 4, "epoch_size": 2, "lr": 0.1}
    plain = {"image_resize": SIDE, "color_jitter": None, "hflip": 0.0}
    return parse_recipe({**choices, **plain, **changes}, where="recipe")


def seen(recipe: Recipe, numbers: SampleDraws | None = None, content: bytes = JPEG) -> Any:
    """Return the pixels of the image at position 0."""
    images = TrainingImages(recipe)
    return images.pixels(content, numbers or images.draws(0, 0, 1), 0)


@pytest.mark.parametrize("content", [JPEG, encoded(PHOTO, "PNG")], ids=["jpeg", "png"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_crops_are_mindspores_to_the_bit_or_to_a_level_if_bicubic(
    interpolation: str, content: bytes
) -> None:
    recipe = make_recipe(interpolation=interpolation)
    images = TrainingImages(recipe)
    numbers = images.draws(0, 0, 20)
    for row, drawn in enumerate(numbers.crop.tolist()):
        box = crop_box(400, 600, recipe.scale, recipe.ratio, drawn[:NUM_DRAWS])
        operations = (
            vision.Decode(),
            vision.Crop((box.top, box.left), (box.height, box.width)),
            vision.Resize((SIDE, SIDE), getattr(vision.Inter, interpolation.upper())),
        )
        expected: Any = np.frombuffer(content, np.uint8)
        for operation in operations:
            expected = operation(expected)
        apart = np.abs(images.pixels(content, numbers, row).astype(int) - expected)
        assert apart.max() <= (interpolation == "bicubic")
        assert np.mean(apart > 0) < 0.1


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_antialias_resizes_crops_as_pillow_does(interpolation: str) -> None:
    recipe = make_recipe(interpolation=interpolation, antialias=True, image_resize=32)
    images = TrainingImages(recipe)
    numbers = images.draws(0, 0, 1)
    box = crop_box(400, 600, recipe.scale, recipe.ratio, numbers.crop[0].tolist()[:NUM_DRAWS])
    crop = Image.fromarray(decode(JPEG)).crop(
        (box.left, box.top, box.left + box.width, box.top + box.height)
    )
    expected = np.asarray(crop.resize((32, 32), Image.Resampling[interpolation.upper()]))
    assert np.array_equal(images.pixels(JPEG, numbers, 0), expected)
    plain = TrainingImages(recipe.model_copy(update={"antialias": False}))
    assert np.abs(plain.pixels(JPEG, numbers, 0).astype(int) - expected).mean() > 1


@pytest.mark.parametrize(
    ("hflip", "vflip", "turned"),
    [
        (1.0, 0.0, np.s_[:, ::-1]),
        (0.0, 1.0, np.s_[::-1]),
        (1.0, 1.0, np.s_[::-1, ::-1]),
        (0.0, 0.0, np.s_[:]),
    ],
)
def test_flips_turn_the_crop(hflip: float, vflip: float, turned: Any) -> None:
    plain = seen(make_recipe())
    assert np.array_equal(seen(make_recipe(hflip=hflip, vflip=vflip)), plain[turned])


def test_images_are_flipped_with_their_probability() -> None:
    recipe = make_recipe(hflip=0.25, scale=[1, 1], ratio=[1, 1], image_resize=32)
    images = TrainingImages(recipe)
    numbers = images.draws(3, 0, 2000)
    plain = decode(encoded(SMALL.resize((32, 32)), "PNG"))
    small = encoded(Image.fromarray(plain), "PNG")
    flips = [not np.array_equal(images.pixels(small, numbers, row), plain) for row in range(2000)]
    assert np.mean(flips) == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize(
    "changes",
    [
        {"color_jitter": [0.4, 0.4, 0.4, 0.1]},
        {"auto_augment": "randaug-m9-n3"},
        {"auto_augment": "autoaug"},
        {"auto_augment": "trivialaugwide", "interpolation": "bicubic"},
    ],
    ids=lambda each: str(next(iter(each.values()))),
)
def test_colours_change_after_the_crop(changes: dict[str, Any]) -> None:
    recipe = make_recipe(**changes)
    images = TrainingImages(recipe)
    numbers = images.draws(0, 0, 12)
    plain = TrainingImages(recipe.model_copy(update={"color_jitter": None, "auto_augment": None}))
    differing = 0
    for row in range(12):
        pixels, crop = images.pixels(JPEG, numbers, row), plain.pixels(JPEG, numbers, row)
        assert (pixels.shape, pixels.dtype) == ((SIDE, SIDE, 3), np.uint8)
        differing += not np.array_equal(pixels, crop)
    assert differing >= 8


def test_a_damaged_image_is_refused_with_pillows_reason() -> None:
    for content, reason in ((JPEG[: len(JPEG) // 2], "truncated"), (b"text", "not a JPEG")):
        with pytest.raises(ValueError, match=reason):
            seen(make_recipe(), content=content)


def test_normalisation_by_looking_up_has_the_bits_of_the_arithmetic() -> None:
    recipe = make_recipe()
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = np.stack([pixels, pixels[::-1], pixels.T], axis=-1)
    result = np.empty((3, 16, 16), np.float32)
    Normalisation(recipe)(image, result)
    expected = normalise(image.transpose(2, 0, 1)[None], recipe.mean, recipe.std)[0]
    assert result.tobytes() == expected.tobytes()
