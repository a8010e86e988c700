"""A batch becomes tensors without a copy, in as few bytes as its recipe allows."""

import numpy as np
import pytest

from sknet.data.reading.training_batches import TrainingBatches
from sknet.data.shards import ShardSet
from sknet.planning import plan_run
from sknet.recipe import load_recipe
from sknet.training.inputs import InputMaker, branch_factors
from sknet.world import ALONE, World
from tests.sknet.recipes import recipe
from tests.sknet.tiny_networks import ThreeLayers

MEGABYTE = 1e6


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_tensors_share_the_memory_of_the_batch(kind: type) -> None:
    images, labels = np.ones((4, 3, 8, 8), kind), np.arange(4, dtype=np.int32)
    make = InputMaker(ThreeLayers(3), recipe(gradient_accumulation_steps=2), ALONE)
    micro_batches = make((images, labels), 0)
    assert len(micro_batches) == 2
    for start, (some_images, some_labels, factors) in zip((0, 2), micro_batches, strict=True):
        assert np.shares_memory(some_images.asnumpy(), images[start : start + 2])
        assert np.shares_memory(some_labels.asnumpy(), labels[start : start + 2])
        assert factors is None


def test_micro_batches_have_the_factors_of_their_step_and_rank() -> None:
    images, labels = np.ones((4, 3, 8, 8), np.uint8), np.arange(4, dtype=np.int32)
    choices = recipe(drop_path_rate=0.5, gradient_accumulation_steps=2)
    make = InputMaker(ThreeLayers(3), choices, World(1, 3))
    parts = [factors.asnumpy() for _, _, factors in make((images, labels), 5)]
    expected = branch_factors(2, 0.5, seed=choices.seed, step=5, global_batch=12)
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), expected[:, 4:8])


def test_a_published_step_takes_a_quarter_of_the_bytes_of_float32_to_a_card(
    converted: ShardSet,
) -> None:
    published = load_recipe("skresnet18_ascend", ["num_classes=null", "num_parallel_workers=1"])
    small = published.model_copy(update={"batch_size": 8})
    run = plan_run(small, converted.record, 1, "Ascend")
    batch = next(TrainingBatches(run, converted, ALONE, 1).after(0))
    ((images, labels, _),) = InputMaker(ThreeLayers(3), run.recipe, ALONE)(batch, 0)
    of_a_sample = (images.nbytes + labels.nbytes) / 8
    flag = 4
    assert images.shape == (8, 3, 224, 224)
    assert 64 * of_a_sample + flag <= 9.7 * MEGABYTE
