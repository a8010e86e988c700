"""Losses of logits, computed from log_softmax alone.

MindSpore's own losses use ops.log. On CPU it rounds an element differently depending on its
position in the vector code, so that a resumed run would report another loss.
"""

from mindspore import Tensor, nn, ops

from sknet.data.order import Indices
from sknet.recipe import Recipe
from sknet.training.rarity import Factors, class_weights, logit_offsets


def create_loss(recipe: Recipe, counts: Indices | None = None) -> nn.Cell:
    """Return the recipe's loss.

    It maps logits (N, C) and labels to the mean loss. Labels are class numbers (N,), or a
    probability for each class (N, C).

    Args:
        recipe: The recipe.
        counts: What `class_counts` returned.
    """
    weights = class_weights(recipe, counts)
    if recipe.loss == "BCE":
        return BinaryCrossEntropy(recipe.label_smoothing, weights)
    return CrossEntropy(recipe.label_smoothing, weights, logit_offsets(recipe, counts))


class CrossEntropy(nn.Cell):
    """Cross entropy, averaged over samples."""

    def __init__(
        self,
        label_smoothing: float,
        weights: Factors | None = None,
        offsets: Factors | None = None,
    ) -> None:
        """Prepare the loss.

        Args:
            label_smoothing: Fraction of the target that is spread evenly over all classes.
            weights: Factor of the loss of each class's samples; a sample that is mixed of several
                classes counts for each by its fraction.
            offsets: What is added to the logits of each class.
        """
        super().__init__()
        self.target = SmoothedTarget(label_smoothing, weights)
        self.offsets = None if offsets is None else Tensor(offsets)
        self.sum = ops.ReduceSum()  # Tensor.sum is an operator that jit level O2 on Ascend lacks

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Map logits (N, C) and labels (N,) or (N, C) to the mean loss."""
        if self.offsets is not None:
            logits = logits + self.offsets
        target, _ = self.target(logits, labels)
        return -self.sum(ops.log_softmax(logits, 1) * target, 1).mean()


class BinaryCrossEntropy(nn.Cell):
    """Binary cross entropy, averaged over samples and classes.

    The target is smoothed like that of cross entropy, as in MindCV.
    """

    def __init__(self, label_smoothing: float, weights: Factors | None = None) -> None:
        """Prepare the loss; arguments are those of `CrossEntropy`."""
        super().__init__()
        self.target = SmoothedTarget(label_smoothing, weights)

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Map logits (N, C) and labels (N,) or (N, C) to the mean loss."""
        target, total = self.target(logits, labels)
        # The logarithms of sigmoid(x) and of sigmoid(-x).
        pairs = ops.log_softmax(ops.stack((logits, ops.zeros_like(logits)), 2), 2)
        return -(pairs[:, :, 0] * target + pairs[:, :, 1] * (total - target)).mean(1).mean()


class SmoothedTarget(nn.Cell):
    """Target probabilities, with a fraction spread evenly over all classes, times weights."""

    def __init__(self, label_smoothing: float, weights: Factors | None = None) -> None:
        super().__init__()
        self.smoothing = label_smoothing
        self.weights = None if weights is None else Tensor(weights)
        self.sum = ops.ReduceSum(keep_dims=True)

    def construct(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | int]:
        """Return targets (N, C), and the sums of their rows: 1, or (N, 1) with weights."""
        num_classes = logits.shape[1]
        spread = self.smoothing / num_classes
        if self.weights is None and labels.ndim == 1:
            on = ops.cast(1 - self.smoothing + spread, logits.dtype)
            off = ops.cast(spread, logits.dtype)
            return ops.one_hot(labels, num_classes, on, off), 1
        # Without the casts these are operators that jit level O2 on Ascend lacks.
        kept, spread = ops.cast(1 - self.smoothing, logits.dtype), ops.cast(spread, logits.dtype)
        if self.weights is None:
            return labels * kept + spread, 1
        if labels.ndim == 1:
            on, off = ops.cast(1, logits.dtype), ops.cast(0, logits.dtype)
            labels = ops.one_hot(labels, num_classes, on, off)
        weighted = labels * self.weights
        total = self.sum(weighted, 1)
        return weighted * kept + total * spread, total
