"""Attention is measured at several sizes of the central object."""

from dataclasses import replace
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from mindspore.dataset import vision
from PIL import Image

from sknet.data.reading.batch_operations import normalise
from sknet.data.reading.preprocessing import eval_operations
from sknet.data.shards import ShardSet
from sknet.evaluation.attention import measure_attention
from sknet.models import attention_probe
from sknet.models.sknet import SKNet
from sknet.recipe import Recipe, load_recipe
from sknet.records.preprocessing import Preprocessing
from tests.sknet.tiny_networks import TINY, tiny_network


@pytest.fixture(scope="module")
def network() -> SKNet:
    ms.set_seed(5)
    return tiny_network()


@pytest.fixture
def recipe(recipe_file: Path) -> Recipe:
    return load_recipe(str(recipe_file), ["eval_preprocessing=mindcv"])


def centre(file: Path, recipe: Recipe, scale: float) -> np.ndarray:
    """Return the crop of an image, computed one operation after the other."""
    image = vision.Decode()(np.fromfile(file, np.uint8))
    shorter = int(recipe.image_resize * scale / recipe.crop_pct)
    image = vision.Resize(shorter, vision.Inter.BILINEAR)(image)
    return np.transpose(vision.CenterCrop(recipe.image_resize)(image), (2, 0, 1))


def test_it_is_the_mean_weight_of_the_largest_kernel_minus_that_of_the_smallest(
    network: SKNet, recipe: Recipe, folders: Path, converted: ShardSet
) -> None:
    # Batches of four and two images: each counts as many times as it has images.
    result = measure_attention(network, recipe, converted, batch_size=4)
    assert (result.split, result.num_images, result.scales) == ("val", 6, (1.0, 1.5))
    probe = attention_probe(network)
    for number, scale in enumerate(result.scales):
        crops = [centre(file, recipe, scale) for file in (folders / "val").rglob("*.*")]
        weights = probe(Tensor(normalise(np.stack(crops), recipe.mean, recipe.std)))
        assert [unit.unit for unit in result.units] == list(weights)
        for unit in result.units:
            expected = weights[unit.unit][1] - weights[unit.unit][0]
            assert unit.differences[number] == pytest.approx(expected, abs=1e-6)
    assert any(len({*unit.differences}) == 2 for unit in result.units)


def test_a_scaled_crop_enlarges_the_centre(recipe: Recipe) -> None:
    # A red square of 60 pixels in the centre of 120: at scale 1.5 it fills 45 of 60 pixels, not 30.
    picture = Image.new("RGB", (120, 120))
    picture.paste((255, 0, 0), (30, 30, 90, 90))
    recipe = recipe.model_copy(update={"crop_pct": 1.0, "interpolation": "nearest"})
    for scale, width in ((1.0, 30), (1.5, 45)):
        image: object = np.asarray(picture)
        for operation in eval_operations(Preprocessing.of(recipe, 60, scale)):
            image = operation(image)
        (row,) = np.asarray(image)[:1, 30]
        assert abs(int((row == 255).sum()) - width) <= 1


def test_units_with_one_kernel_have_no_attention(recipe: Recipe, converted: ShardSet) -> None:
    plain = SKNet(replace(TINY, kernels=(3,)), num_classes=3, in_channels=3)
    assert measure_attention(plain, recipe, converted, batch_size=4).units == ()
