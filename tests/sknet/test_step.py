"""The loss of a training step is the published one, and rounds the same wherever it is computed."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from sknet.training.step import CrossEntropy


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_loss_and_its_gradient_are_those_of_cross_entropy(label_smoothing: float) -> None:
    numbers = np.random.default_rng(5)
    logits = Tensor((3 * numbers.standard_normal((8, 5))).astype(np.float32))
    labels = Tensor(numbers.integers(0, 5, 8).astype(np.int32))
    peer = nn.CrossEntropyLoss(label_smoothing=label_smoothing)
    results = [
        ms.value_and_grad(loss)(logits, labels) for loss in (CrossEntropy(label_smoothing), peer)
    ]
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours.asnumpy(), theirs.asnumpy(), rtol=1e-5, atol=1e-7)


def test_a_samples_loss_does_not_depend_on_its_place_in_the_batch() -> None:
    row = np.random.default_rng(6).standard_normal((1, 7)).astype(np.float32)
    loss = CrossEntropy(0.1)
    values = {
        loss(Tensor(row.repeat(n, 0)), Tensor(np.full(n, 3, np.int32))).asnumpy().tobytes()
        # powers of two: the mean of equal numbers is exact
        for n in (1, 2, 4, 8, 16, 32)
    }
    assert len(values) == 1
