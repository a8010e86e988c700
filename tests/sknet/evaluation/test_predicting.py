"""A network predicts every sample of a split once, on any number of ranks."""

import numpy as np
import numpy.typing as npt
import pytest
from mindspore import Tensor

from sknet.data.shards import ShardSet
from sknet.errors import NonFiniteLossError, UserError
from sknet.evaluation import predicting
from sknet.evaluation.predicting import evaluate, predict
from sknet.recipe import Recipe
from sknet.world import World
from tests.sknet.recipes import recipe as make_recipe

Rows = npt.NDArray[np.float32]


class ColourNetwork:
    """Predicts the class of the brightest channel, which is right for the generated images."""

    def __init__(self, offset: float = 0.0) -> None:
        self.offset = offset
        self.is_training = True

    def set_train(self, mode: bool) -> None:
        self.is_training = mode

    def __call__(self, images: Tensor) -> Tensor:
        assert not self.is_training
        return Tensor(images.asnumpy().mean(axis=(2, 3)) + np.float32(self.offset))


@pytest.fixture
def recipe() -> Recipe:
    return make_recipe(image_resize=32, num_parallel_workers=1)


@pytest.mark.parametrize("batch_size", [1, 4, 6, 64])
def test_each_sample_is_counted_once_whatever_the_batch_size(
    converted: ShardSet, recipe: Recipe, batch_size: int
) -> None:
    result = evaluate(ColourNetwork(), recipe, converted, batch_size=batch_size)
    assert (result.seen, result.class_seen) == (6, (2, 2, 2))
    assert (result.correct_top1, result.class_correct) == (6, (2, 2, 2))
    assert result.correct_top5 == 6
    assert result == evaluate(ColourNetwork(), recipe, converted, batch_size=2)
    assert (result.confused, result.calibration) == ((), ())


def test_another_split_can_be_evaluated(converted: ShardSet, recipe: Recipe) -> None:
    result = evaluate(ColourNetwork(), recipe, converted, split="train", batch_size=4)
    assert (result.split, result.seen, result.class_seen) == ("train", 15, (5, 5, 5))


def test_a_split_without_samples_is_refused(converted: ShardSet, recipe: Recipe) -> None:
    with pytest.raises(UserError, match=r"^the split test has no samples"):
        evaluate(ColourNetwork(), recipe, converted, split="test", batch_size=4)


def test_a_diverged_network_is_refused(converted: ShardSet, recipe: Recipe) -> None:
    with pytest.raises(NonFiniteLossError, match=r"^the loss on val is nan: "):
        evaluate(ColourNetwork(float("nan")), recipe, converted, batch_size=4)


def test_several_resolutions_in_one_pass_give_the_predictions_of_one_pass_each(
    converted: ShardSet, recipe: Recipe
) -> None:
    network = ColourNetwork()
    together = predict(network, recipe, converted, batch_size=4, resolutions=[32, 40, 64])
    for side, predictions in together.items():
        alone = predict(network, recipe, converted, batch_size=6, resolutions=[side])
        assert predictions.rows.tobytes() == alone[side].rows.tobytes()
    # The three resolutions show different pixels, so none was taken for another.
    assert len({predictions.loss.tobytes() for predictions in together.values()}) == 3


@pytest.mark.parametrize("size", [2, 4, 9])
def test_every_rank_returns_all_predictions_even_a_rank_without_samples(
    converted: ShardSet, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    sent: dict[int, Rows] = {}

    def predictions_of(rank: int) -> Rows:
        def all_gather(rows: Tensor) -> Tensor:
            sent[rank] = rows.asnumpy()
            none = np.zeros_like(sent[rank])
            return Tensor(np.concatenate([sent.get(other, none) for other in range(size)]))

        monkeypatch.setattr(predicting.ops, "AllGather", lambda: all_gather)
        world = World(rank, size)
        options = {"batch_size": 2, "resolutions": [32]}
        return predict(ColourNetwork(), recipe, converted, world=world, **options)[32].rows

    for rank in range(size):
        predictions_of(rank)
    alone = predict(ColourNetwork(), recipe, converted, batch_size=2, resolutions=[32])[32].rows
    assert predictions_of(0).tobytes() == alone.tobytes()
    assert predictions_of(size - 1).tobytes() == alone.tobytes()
