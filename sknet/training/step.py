"""One training step: forward, backward, all-reduce, update."""

import mindspore as ms
import numpy as np
import numpy.typing as npt
from mindspore import Parameter, Tensor, communication, nn, ops
from mindspore import dtype as mstype

from sknet.data.order import generator
from sknet.models.sknet import SKNet
from sknet.recipe import Recipe
from sknet.training.loss import create_loss
from sknet.training.optimizer import create_optimizer, sum_of_squares


def clip(gradients: tuple[Tensor, ...], recipe: Recipe) -> tuple[Tensor, ...]:
    """The gradients, each element within ± clip_value, or all together of that norm at most."""
    if recipe.clip_mode == "value":
        return tuple(ops.clip_by_value(g, -recipe.clip_value, recipe.clip_value) for g in gradients)
    square = sum_of_squares(gradients[0])
    for gradient in gradients[1:]:
        square = square + sum_of_squares(gradient)
    factor = recipe.clip_value / ops.maximum(ops.sqrt(square), recipe.clip_value)
    return tuple(gradient * factor for gradient in gradients)


def freeze(network: nn.Cell, layers: tuple[str, ...]) -> None:
    """Take the layers' weights from the trainable ones."""
    for layer in layers:
        for parameter in getattr(network, layer).get_parameters():
            parameter.requires_grad = False


def keep_frozen(network: nn.Cell, layers: tuple[str, ...]) -> None:
    """Set frozen layers to evaluation: their BatchNorm then uses and keeps its statistics."""
    for layer in layers:
        getattr(network, layer).set_train(False)


_STREAM = int.from_bytes(b"droppath")


def drop_rates(num_blocks: int, rate: float) -> npt.NDArray[np.float64]:
    """Probability of each block: linear from 0 to `rate`, as in MindCV and timm."""
    return np.linspace(0, rate, num_blocks)


def branch_factors(
    num_blocks: int, rate: float, *, seed: int, step: int, global_batch: int
) -> npt.NDArray[np.float32]:
    """(num_blocks, global_batch): 0 where a sample skips a block, elsewhere the reciprocal of the
    probability of that, which keeps the branch's mean. `step` counts from the run's start."""
    kept = 1 - drop_rates(num_blocks, rate)[:, None]
    drawn = generator(_STREAM, seed, step).random((num_blocks, global_batch))
    return np.where(drawn < kept, 1 / kept, 0).astype(np.float32)


# The share of the old average after t updates is decay · (1 - exp(-t / this)), as in MindCV.
WARM_UP = 2000

PREFIX = "ema"


class Average(nn.Cell):
    """The average of all of a network's parameters, which are named `ema.*` here."""

    def __init__(self, network: nn.Cell, decay: float) -> None:
        super().__init__(auto_prefix=False)
        self.decay = decay
        self.followed = ms.ParameterTuple(list(network.get_parameters()))
        self.average = self.followed.clone(prefix=PREFIX, init="same")
        self.updates = Parameter(Tensor(0.0, mstype.float32), name=f"{PREFIX}.updates")

    def construct(self) -> bool:
        """Follow the network by one update."""
        ops.assign(self.updates, self.updates + 1)
        share = self.decay * (1 - ops.exp(-self.updates / WARM_UP))
        for index in range(len(self.average)):
            old, new = self.average[index], self.followed[index]
            ops.assign(old, old * share + new * (1 - share))
        return True


# As in MindCV: halved at an overflow, doubled after this many steps without one.
SCALE_FACTOR, SCALE_WINDOW = 2, 2000


def mixed(network: nn.Cell, recipe: Recipe) -> nn.Cell:
    """The network at the recipe's level, with float32 logits. Changes the network; its parameters
    stay float32, and its BatchNorm too unless the level is O3."""
    return ms.amp.auto_mixed_precision(network, recipe.amp_level)


class LossScale(nn.Cell):
    """The loss's factor in the backward pass, and the state of its changes."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(auto_prefix=False)
        self.fixed = recipe.loss_scale
        self.dynamic = recipe.loss_scale_type == "dynamic"
        if self.dynamic:
            self.scaler = ms.amp.DynamicLossScaler(recipe.loss_scale, SCALE_FACTOR, SCALE_WINDOW)
            # The cell's own, so that they are saved with it.
            self.value, self.steps_without = self.scaler.scale_value, self.scaler.counter
            self.value.name, self.steps_without.name = "loss_scale", "loss_scale_steps"

    def construct(self) -> Tensor | float:
        """The factor."""
        return self.value if self.dynamic else self.fixed

    def adjust(self, finite: Tensor) -> None:
        """Follow a step whose gradients were all finite, or not."""
        if self.dynamic:
            self.scaler.adjust(finite)


class TrainStep(nn.Cell):
    """(images (N, 3, R, R), labels as in the loss) → the mean loss over all ranks, after an update.

    The images are this rank's part of the global batch. With accumulation they are cut into as
    many micro-batches, whose gradients are summed first. Gradients and loss are summed over ranks
    in float32 and divided once; every rank then takes the same update, so that ranks stay equal
    bit for bit. Whether gradients overflow shows in their sum, so all ranks drop an update or none.
    A dropped update is a step of the schedule, but none of the momentum, of Adam's moments and of
    the average.

    All that a later step depends on is a parameter of this cell: one that gets the parameters of
    another goes on with the same bits.
    """

    def __init__(self, network: SKNet, recipe: Recipe, rates: list[float], world_size: int) -> None:
        # Without prefixes the checkpoint names weights as the network alone does.
        super().__init__(auto_prefix=False)
        self.recipe = recipe
        self.num_blocks = sum(network.architecture.depths)
        self.world_size = world_size
        self.rank = communication.get_rank() if world_size > 1 else 0
        self.num_passes = recipe.gradient_accumulation_steps
        freeze(network, recipe.freeze)
        self.network = network
        # What is in a tuple is no part of this cell.
        self.twin = (network.twin(),) if recipe.ema or recipe.amp_level != "O0" else ()
        self.average = Average(network, recipe.ema_decay) if recipe.ema else None
        self.loss_scale = LossScale(recipe)
        self.forward = ScaledLoss(network, recipe, self.loss_scale)
        self.optimizer = create_optimizer(network, recipe, rates)
        self.weights = self.optimizer.parameters
        self.gradient = ms.value_and_grad(self.forward, None, self.weights, has_aux=True)
        self.earlier = (GradientSum(self.forward, self.weights) if self.num_passes > 1 else None,)
        self.map = ops.Map()
        self.all_reduce = ops.AllReduce() if world_size > 1 else ops.Identity()

    def set_train(self, mode: bool = True) -> "TrainStep":
        """As of any cell, but frozen layers stay in evaluation mode."""
        super().set_train(mode)
        keep_frozen(self.network, self.recipe.freeze)
        return self

    def evaluated(self) -> nn.Cell:
        """The network to evaluate now: in float32, with the averaged weights if there are any.

        It may be a copy, of this moment; the training goes on as if nobody had asked.
        """
        if not self.twin:
            return self.network
        source = self.average.average if self.average else self.network.get_parameters()
        for target, value in zip(self.twin[0].get_parameters(), source, strict=True):
            target.set_data(Tensor(value.asnumpy()))
        return self.twin[0]

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """See the class."""
        *earlier, last = self._micro_batches(images, labels)
        (gradient_sum,) = self.earlier
        if gradient_sum is None:
            return super().__call__(*last)
        sums = gradient_sum.zeros
        for micro_batch in earlier:
            # Without `mutable` a tuple is a constant of the graph.
            sums = gradient_sum(*micro_batch, ms.mutable(sums))
        return super().__call__(*last, ms.mutable(sums))

    def construct(
        self,
        images: Tensor,
        labels: Tensor,
        factors: Tensor | None,
        sums: tuple[Tensor, ...] | None = None,
    ) -> Tensor:
        """The last pass, and the update; `sums` are of the passes before it."""
        (_, loss), gradients = self.gradient(images, labels, factors)
        if sums is not None:
            loss = loss + sums[0]
            gradients = self.map(ops.add, gradients, sums[1:])
        loss = self._mean(loss, 1.0)
        scale = self.loss_scale()
        gradients = tuple(self._mean(gradient, scale) for gradient in gradients)
        if not self.recipe.drop_overflow_update:
            self._update(gradients)
            return loss
        finite = ms.amp.all_finite(gradients)
        self.loss_scale.adjust(finite)
        if finite:
            self._update(gradients)
        else:
            step = self.optimizer.global_step
            ops.assign(step, step + 1)
        return loss

    def _mean(self, value: Tensor, scale: Tensor | float) -> Tensor:
        """Over ranks and passes, of a value that was scaled."""
        divisor = self.world_size * self.num_passes * scale
        return self.all_reduce(value) if divisor == 1 else self.all_reduce(value) / divisor

    def _update(self, gradients: tuple[Tensor, ...]) -> None:
        if self.recipe.clip_grad:
            gradients = clip(gradients, self.recipe)
        self.optimizer(gradients)
        if self.average is not None:
            self.average()

    def _micro_batches(
        self, images: Tensor, labels: Tensor
    ) -> list[tuple[Tensor, Tensor, Tensor | None]]:
        if self.num_passes == 1 and not self.recipe.drop_path_rate:
            return [(images, labels, None)]
        size = images.shape[0] // self.num_passes
        factors = self._branch_factors(images.shape[0])
        return [
            (images[part], labels[part], None if factors is None else Tensor(factors[:, part]))
            for part in (slice(i * size, (i + 1) * size) for i in range(self.num_passes))
        ]

    def _branch_factors(self, batch_size: int) -> npt.NDArray[np.float32] | None:
        """This rank's part of those of the global batch."""
        if not self.recipe.drop_path_rate:
            return None
        drawn = branch_factors(
            self.num_blocks,
            self.recipe.drop_path_rate,
            seed=self.recipe.seed,
            step=int(self.optimizer.global_step.asnumpy()[0]),
            global_batch=batch_size * self.world_size,
        )
        return drawn[:, self.rank * batch_size : (self.rank + 1) * batch_size]


class ScaledLoss(nn.Cell):
    """(images, labels, factors of the blocks or None) → (scaled loss, loss), means, in float32."""

    def __init__(self, network: SKNet, recipe: Recipe, loss_scale: LossScale) -> None:
        super().__init__(auto_prefix=False)
        self.network = mixed(network, recipe)
        self.loss = create_loss(recipe)
        self.loss_scale = loss_scale

    def construct(
        self, images: Tensor, labels: Tensor, factors: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """See the class."""
        loss = self.loss(self.network(images, factors), labels)
        return loss * self.loss_scale(), loss


class GradientSum(nn.Cell):
    """A pass over a micro-batch: adds its loss and its gradients to the sums given."""

    def __init__(self, forward: ScaledLoss, weights: ms.ParameterTuple) -> None:
        super().__init__(auto_prefix=False)
        self.forward = forward
        self.gradient = ms.value_and_grad(forward, None, weights, has_aux=True)
        self.map = ops.Map()
        shapes = [(), *(weight.shape for weight in weights)]
        self.zeros = tuple(Tensor(np.zeros(shape, np.float32)) for shape in shapes)

    def construct(
        self,
        images: Tensor,
        labels: Tensor,
        factors: Tensor | None,
        sums: tuple[Tensor, ...],
    ) -> tuple[Tensor, ...]:
        """See the class."""
        (_, loss), gradients = self.gradient(images, labels, factors)
        return (loss + sums[0], *self.map(ops.add, gradients, sums[1:]))


class SynchroniseStatistics(nn.Cell):
    """Sets BatchNorm's moving statistics, and their averages, to their means over ranks.

    Done at every planned checkpoint, interrupted or not: one file then holds all ranks' state.
    """

    def __init__(self, cell: nn.Cell, world_size: int) -> None:
        super().__init__(auto_prefix=False)
        self.statistics = ms.ParameterTuple(moving_statistics(cell))
        self.world_size = world_size
        self.all_reduce = ops.AllReduce()

    def construct(self) -> Tensor:
        """Returns nothing of use."""
        for parameter in self.statistics:
            ops.assign(parameter, self.all_reduce(parameter) / self.world_size)
        return self.statistics[0]


def moving_statistics(cell: nn.Cell) -> list[Parameter]:
    """BatchNorm's moving means and variances, which the optimizer leaves alone."""
    return [
        parameter
        for parameter in cell.get_parameters()
        if parameter.name.endswith((".moving_mean", ".moving_variance"))
    ]
