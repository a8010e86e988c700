"""Losses of logits, through log_softmax alone.

MindSpore's own losses take ops.log, which on CPU rounds an element by its place in the vector
code, so that a resumed run would report another loss.
"""

from mindspore import Tensor, nn, ops

from sknet.recipe import Recipe


def create_loss(recipe: Recipe) -> nn.Cell:
    """The recipe's loss: logits (N, C), labels (N,) or shares of classes (N, C) → a mean."""
    kind = CrossEntropy if recipe.loss == "CE" else BinaryCrossEntropy
    return kind(recipe.label_smoothing)


def smoothed_target(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Shares of classes (N, C), of which `smoothing` is spread evenly over all."""
    num_classes = logits.shape[1]
    spread = smoothing / num_classes
    if labels.ndim == 1:
        on = ops.cast(1 - smoothing + spread, logits.dtype)
        off = ops.cast(spread, logits.dtype)
        return ops.one_hot(labels, num_classes, on, off)
    return labels * (1 - smoothing) + spread


class CrossEntropy(nn.Cell):
    """Mean cross entropy of logits (N, C) and labels (N,) or shares of classes (N, C)."""

    def __init__(self, label_smoothing: float) -> None:
        super().__init__()
        self.smoothing = label_smoothing

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See the class."""
        target = smoothed_target(logits, labels, self.smoothing)
        return -(ops.log_softmax(logits, 1) * target).sum(1).mean()


class BinaryCrossEntropy(nn.Cell):
    """Binary cross entropy, the mean over samples and classes, of logits (N, C) and labels (N,) or
    shares of classes (N, C), smoothed as cross entropy's target is (MindCV's form)."""

    def __init__(self, label_smoothing: float) -> None:
        super().__init__()
        self.smoothing = label_smoothing

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See the class."""
        target = smoothed_target(logits, labels, self.smoothing)
        # The logarithms of sigmoid(x) and of sigmoid(-x).
        pairs = ops.log_softmax(ops.stack((logits, ops.zeros_like(logits)), 2), 2)
        return -(pairs[:, :, 0] * target + pairs[:, :, 1] * (1 - target)).mean(1).mean()
