"""One training step as one graph: forward, backward, all-reduce, update."""

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from sknet.recipe import Recipe


class TrainStep(nn.Cell):
    """(images (N, 3, R, R), labels as in CrossEntropy) → the mean loss over all ranks, after the
    update.

    Gradients and loss are summed over ranks in float32 and divided once; every rank then takes
    the same update, so that ranks stay equal bit for bit.
    """

    def __init__(
        self, network: nn.Cell, recipe: Recipe, rates: list[float], world_size: int
    ) -> None:
        # Without prefixes the checkpoint names weights as the network alone does.
        super().__init__(auto_prefix=False)
        self.network = network
        self.loss = CrossEntropy(recipe.label_smoothing)
        self.optimizer = nn.Momentum(
            _parameter_groups(network, recipe),
            learning_rate=rates,
            momentum=recipe.momentum,
            use_nesterov=recipe.use_nesterov,
        )
        self.weights = self.optimizer.parameters
        self.gradient = ms.value_and_grad(self._forward, None, self.weights)
        self.world_size = world_size
        self.map = ops.Map()
        self.all_reduce = ops.AllReduce() if world_size > 1 else ops.Identity()

    def _forward(self, images: Tensor, labels: Tensor) -> Tensor:
        return self.loss(self.network(images), labels)

    def _mean_over_ranks(self, value: Tensor) -> Tensor:
        return self.all_reduce(value) / self.world_size

    def construct(self, images: Tensor, labels: Tensor) -> Tensor:
        """See the class."""
        loss, gradients = self.gradient(images, labels)
        if self.world_size > 1:
            gradients = self.map(self._mean_over_ranks, gradients)
            loss = self._mean_over_ranks(loss)
        return ops.depend(loss, self.optimizer(gradients))


class CrossEntropy(nn.Cell):
    """Mean cross-entropy of logits (N, C) and labels (N,) or shares of classes (N, C), of which
    `label_smoothing` is spread evenly over all classes.

    Through log_softmax: MindSpore's own loss takes ops.log, which on CPU rounds an element by its
    place in the vector code, so that a resumed run would report another loss.
    """

    def __init__(self, label_smoothing: float) -> None:
        super().__init__()
        self.smoothing = label_smoothing

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See the class."""
        num_classes = logits.shape[1]
        spread = self.smoothing / num_classes
        if labels.ndim == 1:
            on = ops.cast(1 - self.smoothing + spread, logits.dtype)
            off = ops.cast(spread, logits.dtype)
            target = ops.one_hot(labels, num_classes, on, off)
        else:
            target = labels * (1 - self.smoothing) + spread
        return -(ops.log_softmax(logits, 1) * target).sum(1).mean()


class SynchroniseStatistics(nn.Cell):
    """Sets BatchNorm's moving statistics to their mean over ranks.

    Done at every checkpoint, interrupted or not, so that one file holds the state of all ranks.
    """

    def __init__(self, network: nn.Cell, world_size: int) -> None:
        super().__init__()
        self.statistics = ms.ParameterTuple(moving_statistics(network))
        self.world_size = world_size
        self.all_reduce = ops.AllReduce()

    def construct(self) -> Tensor:
        """Returns nothing of use."""
        for parameter in self.statistics:
            ops.assign(parameter, self.all_reduce(parameter) / self.world_size)
        return self.statistics[0]


def moving_statistics(network: nn.Cell) -> list[Parameter]:
    """BatchNorm's moving means and variances, which the optimizer leaves alone."""
    return [
        parameter
        for parameter in network.get_parameters()
        if parameter.name.endswith((".moving_mean", ".moving_variance"))
    ]


def _parameter_groups(network: nn.Cell, recipe: Recipe) -> list[dict[str, object]]:
    weights = network.trainable_params()
    if recipe.weight_decay_filter == "disable":
        return [{"params": weights, "weight_decay": recipe.weight_decay}]
    # Biases and BatchNorm's scale and shift are the ones with one axis.
    decayed = [weight for weight in weights if weight.ndim > 1]
    others = [weight for weight in weights if weight.ndim <= 1]
    return [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
        {"order_params": weights},
    ]
