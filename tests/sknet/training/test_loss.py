"""Losses are the published ones, and round the same wherever a sample is in its batch."""

from typing import Any

import mindspore as ms
import numpy as np
import numpy.typing as npt
import pytest
from mindspore import Tensor, nn, ops

from sknet.training.loss import BinaryCrossEntropy, CrossEntropy, create_loss
from tests.sknet.recipes import recipe

WEIGHTS = np.array([0.5, 2, 1, 0.1, 3], np.float32)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_cross_entropy_and_its_gradient_are_mindspores(label_smoothing: float) -> None:
    numbers = np.random.default_rng(5)
    logits = Tensor((3 * numbers.standard_normal((8, 5))).astype(np.float32))
    labels = Tensor(numbers.integers(0, 5, 8).astype(np.int32))
    peer = nn.CrossEntropyLoss(label_smoothing=label_smoothing)
    results = [
        ms.value_and_grad(loss)(logits, labels) for loss in (CrossEntropy(label_smoothing), peer)
    ]
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours.asnumpy(), theirs.asnumpy(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_labels_that_are_probabilities_are_smoothed_once(label_smoothing: float) -> None:
    numbers = np.random.default_rng(7)
    logits = (3 * numbers.standard_normal((8, 5))).astype(np.float32)
    probabilities = numbers.dirichlet(np.ones(5), 8).astype(np.float32)
    own = logits.astype(float)
    log_softmax = own - np.log(np.exp(own).sum(axis=1, keepdims=True))
    smoothed = (1 - label_smoothing) * probabilities + label_smoothing / 5
    loss, gradient = ms.value_and_grad(CrossEntropy(label_smoothing))(
        Tensor(logits), Tensor(probabilities)
    )
    assert loss.asnumpy() == pytest.approx(-(log_softmax * smoothed).sum(axis=1).mean(), rel=1e-5)
    np.testing.assert_allclose(
        gradient.asnumpy(), (np.exp(log_softmax) - smoothed) / 8, rtol=1e-4, atol=1e-7
    )


def test_probabilities_of_0_and_1_equal_class_numbers() -> None:
    numbers = np.random.default_rng(8)
    logits = Tensor(numbers.standard_normal((8, 5)).astype(np.float32))
    labels = numbers.integers(0, 5, 8).astype(np.int32)
    loss = CrossEntropy(0.1)
    whole = loss(logits, Tensor(np.eye(5, dtype=np.float32)[labels])).asnumpy()
    assert whole == pytest.approx(loss(logits, Tensor(labels)).asnumpy(), rel=1e-6)


def test_a_samples_loss_does_not_depend_on_its_position_in_the_batch() -> None:
    row = np.random.default_rng(6).standard_normal((1, 7)).astype(np.float32)
    loss = CrossEntropy(0.1)
    values = {
        loss(Tensor(row.repeat(n, 0)), Tensor(np.full(n, 3, np.int32))).asnumpy().tobytes()
        # For powers of two the mean of equal numbers is exact.
        for n in (1, 2, 4, 8, 16, 32)
    }
    assert len(values) == 1


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_binary_cross_entropy_is_mindspores(smoothing: float) -> None:
    numbers = np.random.default_rng(4)
    logits = Tensor((20 * numbers.standard_normal((8, 5))).astype(np.float32))
    labels = numbers.integers(0, 5, 8).astype(np.int32)
    target = np.eye(5, dtype=np.float32)[labels] * (1 - smoothing) + smoothing / 5
    ones = ops.ones_like(logits)
    expected = ops.binary_cross_entropy_with_logits(
        logits, Tensor(target.astype(np.float32)), ones, ones
    ).asnumpy()
    assert BinaryCrossEntropy(smoothing)(logits, Tensor(labels)).asnumpy() == pytest.approx(
        expected, rel=1e-5
    )


def losses_of_labels(
    loss: nn.Cell, logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int32]
) -> npt.NDArray[np.float64]:
    """Return the loss of each sample (N,) alone."""
    return np.array(
        [
            loss(Tensor(logits[row : row + 1]), Tensor(labels[row : row + 1])).asnumpy()
            for row in range(len(labels))
        ],
        float,
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", [CrossEntropy, BinaryCrossEntropy])
def test_a_samples_loss_is_multiplied_by_the_weight_of_its_class(
    kind: type[nn.Cell], smoothing: float
) -> None:
    numbers = np.random.default_rng(9)
    logits = (3 * numbers.standard_normal((4, 5))).astype(np.float32)
    labels = numbers.integers(0, 5, 4).astype(np.int32)
    each = losses_of_labels(kind(smoothing), logits, labels)
    weighted = kind(smoothing, WEIGHTS)(Tensor(logits), Tensor(labels)).asnumpy()
    assert weighted == pytest.approx((WEIGHTS[labels] * each).mean(), rel=1e-5)


def test_weighted_cross_entropy_is_mindspores_over_the_mean_weight() -> None:
    numbers = np.random.default_rng(10)
    logits = Tensor((3 * numbers.standard_normal((8, 5))).astype(np.float32))
    labels = numbers.integers(0, 5, 8).astype(np.int32)
    # MindSpore divides by the sum of the batch's weights, which would differ between ranks.
    theirs = nn.CrossEntropyLoss(Tensor(WEIGHTS))(logits, Tensor(labels)).asnumpy()
    ours = CrossEntropy(0.0, WEIGHTS)(logits, Tensor(labels)).asnumpy()
    assert ours == pytest.approx(theirs * WEIGHTS[labels].mean(), rel=1e-5)


@pytest.mark.parametrize("kind", [CrossEntropy, BinaryCrossEntropy])
def test_a_mixed_sample_counts_for_each_class_by_its_fraction(kind: type[nn.Cell]) -> None:
    numbers = np.random.default_rng(11)
    logits = (3 * numbers.standard_normal((4, 5))).astype(np.float32)
    first, second = numbers.integers(0, 5, (2, 4)).astype(np.int32)
    own = np.float32(0.3)
    classes, loss = np.eye(5, dtype=np.float32), kind(0.1, WEIGHTS)
    mixed = own * classes[first] + (1 - own) * classes[second]
    ofs = [losses_of_labels(loss, logits, labels) for labels in (first, second)]
    expected = own * ofs[0] + (1 - own) * ofs[1]
    found = loss(Tensor(logits), Tensor(mixed)).asnumpy()
    assert found == pytest.approx(expected.mean(), rel=1e-5)


def test_offsets_are_added_to_the_logits() -> None:
    numbers = np.random.default_rng(12)
    logits = numbers.standard_normal((8, 5)).astype(np.float32)
    labels = Tensor(numbers.integers(0, 5, 8).astype(np.int32))
    offsets = np.log(np.array([0.5, 0.3, 0.1, 0.07, 0.03], np.float32))
    adjusted = CrossEntropy(0.1, None, offsets)(Tensor(logits), labels).asnumpy()
    assert adjusted == CrossEntropy(0.1)(Tensor(logits + offsets), labels).asnumpy()


def test_the_recipe_chooses_weights_and_offsets() -> None:
    counts = np.array([60, 30, 10])
    logits = Tensor(np.random.default_rng(13).standard_normal((4, 3)).astype(np.float32))
    labels = Tensor(np.array([0, 1, 2, 2], np.int32))
    plain = CrossEntropy(0.1)(logits, labels).asnumpy()
    weights = np.array([100 / 180, 100 / 90, 100 / 30], np.float32)
    offsets = (2 * np.log(counts / 100)).astype(np.float32)
    cases: list[tuple[dict[str, Any], nn.Cell]] = [
        ({"class_weights": "balanced"}, CrossEntropy(0.1, weights)),
        ({"class_weights": "balanced", "loss": "BCE"}, BinaryCrossEntropy(0.1, weights)),
        ({"logit_adjustment": 2.0}, CrossEntropy(0.1, None, offsets)),
    ]
    for choices, expected in cases:
        chosen = create_loss(recipe(label_smoothing=0.1, **choices), counts)
        found = chosen(logits, labels).asnumpy()
        assert found == pytest.approx(expected(logits, labels).asnumpy(), rel=1e-6)
        assert abs(found - plain) > 0.01
    assert create_loss(recipe(label_smoothing=0.1), None)(logits, labels).asnumpy() == plain
