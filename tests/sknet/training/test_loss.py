"""Losses are the published ones, and round the same wherever a sample is in its batch."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from sknet.training.loss import BinaryCrossEntropy, CrossEntropy


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
