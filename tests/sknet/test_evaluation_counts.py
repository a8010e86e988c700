"""Evaluation counts: as sorting would have it, summed over any split, each sample once."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from mindspore import Tensor
from PIL import Image

from sknet.data.augmentation import eval_operations
from sknet.errors import NonFiniteLossError
from sknet.evaluation import batch_counts, evaluate
from sknet.recipe import load_recipe
from sknet.records import Evaluation, Shards

Logits = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]

CLASSES = 7
# Few values, so that ties are the rule.
logits_and_labels = st.integers(1, 20).flatmap(
    lambda n: st.tuples(
        arrays(np.float32, (n, CLASSES), elements=st.integers(-2, 2)),
        arrays(np.int32, (n,), elements=st.integers(0, CLASSES - 1)),
    )
)


def counts_by_sorting(logits: Logits, labels: Labels) -> list[float]:
    """Ties go to the lower index, as a stable descending sort has it."""
    places = np.argsort(-logits, axis=1, kind="stable")
    seen, correct, top5 = [0] * CLASSES, [0] * CLASSES, 0
    for order, label in zip(places, labels, strict=True):
        seen[label] += 1
        correct[label] += int(order[0] == label)
        top5 += int(label in order[:5])
    return [sum(correct), top5, *seen, *correct]


@given(logits_and_labels)
def test_counts_are_those_of_sorting_with_ties(batch: tuple[Logits, Labels]) -> None:
    counts = batch_counts(*batch).tolist()
    assert counts[:2] + counts[3:] == counts_by_sorting(*batch)


@given(logits_and_labels)
def test_loss_is_the_summed_cross_entropy(batch: tuple[Logits, Labels]) -> None:
    logits, labels = batch
    shares = np.exp(logits.astype(float))
    shares /= shares.sum(axis=1, keepdims=True)
    expected = -np.log(shares[np.arange(len(labels)), labels]).sum()
    assert batch_counts(logits, labels)[2] == pytest.approx(expected)


def test_large_logits_do_not_overflow() -> None:
    logits = np.array([[3e38, -3e38]], np.float32)
    assert batch_counts(logits, np.array([0], np.int32)).tolist() == [1, 1, 0, 1, 0, 1, 0]


@given(logits_and_labels, st.data())
def test_counts_of_parts_sum_to_those_of_the_whole(
    batch: tuple[Logits, Labels], data: st.DataObject
) -> None:
    logits, labels = batch
    cuts = sorted(data.draw(st.lists(st.integers(0, len(labels)), max_size=4)))
    bounds = [0, *cuts, len(labels)]
    parts = [batch_counts(logits[a:b], labels[a:b]) for a, b in itertools.pairwise(bounds) if a < b]
    whole = batch_counts(logits, labels)
    exact = [0, 1, *range(3, len(whole))]
    assert sum(parts)[exact].tolist() == whole[exact].tolist()
    assert sum(parts)[2] == pytest.approx(whole[2])


class ColourNetwork:
    """Takes the brightest channel's class, as the generated images would have it."""

    def __init__(self, offset: float = 0.0) -> None:
        self.offset = offset
        self.trained = True

    def set_train(self, mode: bool) -> None:
        self.trained = mode

    def __call__(self, images: Tensor) -> Tensor:
        assert not self.trained
        return Tensor(images.asnumpy().mean(axis=(2, 3)) + np.float32(self.offset))


@pytest.fixture
def evaluated(converted: tuple[Shards, Path], recipe_file: Path) -> Callable[..., Evaluation]:
    def run(network: ColourNetwork | None = None, **options: Any) -> Evaluation:
        recipe = load_recipe(str(recipe_file))
        return evaluate(network or ColourNetwork(), recipe, *converted, **options)

    return run


@pytest.mark.parametrize("batch_size", [1, 4, 6, 64])
def test_each_sample_is_seen_once_whatever_the_batch(
    evaluated: Callable[..., Evaluation], batch_size: int
) -> None:
    result = evaluated(batch_size=batch_size)
    assert (result.seen, result.class_seen) == (6, (2, 2, 2))
    assert (result.correct_top1, result.class_correct) == (6, (2, 2, 2))
    assert result.correct_top5 == 6
    assert result.loss_sum == pytest.approx(evaluated(batch_size=2).loss_sum)


@pytest.mark.parametrize("world_size", [2, 3, 4, 5, 6, 7])
def test_each_sample_is_seen_by_one_rank(
    evaluated: Callable[..., Evaluation], world_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Every rank keeps its own counts, which are summed here.
    monkeypatch.setattr("sknet.evaluation.ops.AllReduce", lambda: lambda counts: counts)
    parts = [
        evaluated(batch_size=4, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    assert np.sum([part.class_seen for part in parts], axis=0).tolist() == [2, 2, 2]
    assert sum(part.correct_top1 for part in parts) == 6
    assert {part.seen for part in parts} == {6}
    # Every sample has a loss of its own, so none stands in for another.
    whole = evaluated(batch_size=4).loss_sum
    assert sum(part.loss_sum for part in parts) == pytest.approx(whole, rel=1e-6)


def test_another_split_can_be_asked_for(evaluated: Callable[..., Evaluation]) -> None:
    result = evaluated(split="train", batch_size=4)
    assert (result.split, result.seen, result.class_seen) == ("train", 15, (5, 5, 5))


def test_diverged_weights_have_no_accuracy(evaluated: Callable[..., Evaluation]) -> None:
    with pytest.raises(NonFiniteLossError, match=r"^the loss on val is nan: "):
        evaluated(ColourNetwork(float("nan")), batch_size=4)


def test_the_shorter_side_is_resized_to_mindcvs_rounded_down_size(recipe_file: Path) -> None:
    for side, crop_pct, shorter in ((224, 0.875, 256), (224, 0.95, 235), (128, 0.875, 146)):
        recipe = load_recipe(str(recipe_file), [f"image_resize={side}", f"crop_pct={crop_pct}"])
        wide = Image.new("RGB", (600, 500))
        (_, resize, crop, *_) = eval_operations(recipe)
        assert min(resize(wide).size) == shorter
        assert crop(resize(wide)).size == (side, side)
