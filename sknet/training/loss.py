"""Losses of logits, computed from log_softmax alone.

MindSpore's own losses use ops.log. On CPU it rounds an element differently depending on its
position in the vector code, so that a resumed run would report another loss.
"""

from mindspore import Tensor, nn, ops

from sknet.recipe import Recipe


def create_loss(recipe: Recipe) -> nn.Cell:
    """Return the recipe's loss.

    It maps logits (N, C) and labels to the mean loss. Labels are class numbers (N,), or a
    probability for each class (N, C).
    """
    kind = CrossEntropy if recipe.loss == "CE" else BinaryCrossEntropy
    return kind(recipe.label_smoothing)


class CrossEntropy(nn.Cell):
    """Cross entropy, averaged over samples."""

    def __init__(self, label_smoothing: float) -> None:
        super().__init__()
        self.smoothing = label_smoothing
        self.sum = ops.ReduceSum()  # Tensor.sum is an operator that jit level O2 on Ascend lacks

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Map logits (N, C) and labels (N,) or (N, C) to the mean loss."""
        target = smoothed_target(logits, labels, self.smoothing)
        return -self.sum(ops.log_softmax(logits, 1) * target, 1).mean()


class BinaryCrossEntropy(nn.Cell):
    """Binary cross entropy, averaged over samples and classes.

    The target is smoothed like that of cross entropy, as in MindCV.
    """

    def __init__(self, label_smoothing: float) -> None:
        super().__init__()
        self.smoothing = label_smoothing

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Map logits (N, C) and labels (N,) or (N, C) to the mean loss."""
        target = smoothed_target(logits, labels, self.smoothing)
        # The logarithms of sigmoid(x) and of sigmoid(-x).
        pairs = ops.log_softmax(ops.stack((logits, ops.zeros_like(logits)), 2), 2)
        return -(pairs[:, :, 0] * target + pairs[:, :, 1] * (1 - target)).mean(1).mean()


def smoothed_target(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Return target probabilities (N, C), with `smoothing` spread evenly over all classes."""
    num_classes = logits.shape[1]
    spread = smoothing / num_classes
    if labels.ndim == 1:
        on = ops.cast(1 - smoothing + spread, logits.dtype)
        off = ops.cast(spread, logits.dtype)
        return ops.one_hot(labels, num_classes, on, off)
    # Without the casts these are operators that jit level O2 on Ascend lacks.
    return labels * ops.cast(1 - smoothing, labels.dtype) + ops.cast(spread, labels.dtype)
