"""One training step: forward, backward, all-reduce, update."""

from collections.abc import Callable

import mindspore as ms
import numpy as np
import numpy.typing as npt
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype

from sknet.data.order import generator
from sknet.models.sknet import SKNet
from sknet.recipe import Recipe
from sknet.training.loss import create_loss
from sknet.training.optimizer import create_optimizer
from sknet.world import ALONE, World

# Dynamic loss scale as in MindCV: halved at an overflow, doubled after 2000 steps without one.
SCALE_FACTOR, SCALE_WINDOW = 2, 2000
# Average as in MindCV: after t updates the old average has weight decay · (1 - exp(-t / 2000)).
WARM_UP_UPDATES = 2000
AVERAGE_PREFIX = "ema"
_DROP_PATH_STREAM = int.from_bytes(b"droppath")


class TrainStep(nn.Cell):
    """Takes one step of a recipe on this rank's part of the global batch.

    With gradient accumulation the images are cut into micro-batches, whose gradients are summed.
    Gradients and loss are summed over ranks in float32 and divided once. Every rank then makes the
    same update, so that all ranks keep the same bits. Overflow is detected in the summed gradients,
    so all ranks drop an update or none does. A dropped update counts as a step of the schedule, but
    not for momentum, Adam's moments and the average.

    Everything that later steps depend on is a parameter of this cell: another cell with the same
    parameters takes the same steps, bit for bit.
    """

    def __init__(
        self, network: SKNet, recipe: Recipe, rates: list[float], world: World = ALONE
    ) -> None:
        """Prepare the network, which becomes part of this cell.

        Args:
            network: The network to train. Its frozen layers stop being trainable, and its layers
                change to the recipe's precision.
            recipe: The recipe.
            rates: The learning rate of each step.
            world: The ranks that train together.
        """
        # Without prefixes a checkpoint has the same names of weights as the network alone.
        super().__init__(auto_prefix=False)
        self.recipe = recipe
        self.num_blocks = sum(network.architecture.depths)
        self.world_size, self.rank = world.size, world.rank
        self.num_passes = recipe.gradient_accumulation_steps
        freeze(network, recipe.freeze)
        self.network = network
        self.sum_of_squares = network.backend.sum_of_squares
        # In a tuple, it is not part of this cell.
        self.twin = (network.twin(),) if recipe.ema or recipe.amp_level != "O0" else ()
        self.average = Average(network, recipe.ema_decay) if recipe.ema else None
        self.loss_scale = LossScale(recipe)
        self.forward = ScaledLoss(network, recipe, self.loss_scale)
        self.optimizer = create_optimizer(network, recipe, rates)
        self.weights = self.optimizer.parameters
        self.gradient = ms.value_and_grad(self.forward, None, self.weights, has_aux=True)
        self.earlier = (GradientSum(self.forward, self.weights) if self.num_passes > 1 else None,)
        self.map = ops.Map()
        self.all_reduce = ops.AllReduce() if self.world_size > 1 else ops.Identity()

    def set_train(self, mode: bool = True) -> "TrainStep":
        """Set the mode as for any cell, except that frozen layers stay in evaluation mode."""
        super().set_train(mode)
        keep_frozen(self.network, self.recipe.freeze)
        return self

    def evaluated(self) -> nn.Cell:
        """Return the network to evaluate now: in float32, with averaged weights if there are any.

        The result may be a copy. Evaluating it doesn't affect the training.
        """
        if not self.twin:
            return self.network
        source = self.average.average if self.average else self.network.get_parameters()
        for target, value in zip(self.twin[0].get_parameters(), source, strict=True):
            target.set_data(Tensor(value.asnumpy()))
        return self.twin[0]

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Take one step.

        Args:
            images: (N, 3, R, R), this rank's part of the global batch.
            labels: (N,) or (N, C), see `sknet.training.loss`.

        Returns:
            The mean loss over all ranks before the update, a scalar.
        """
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
        """Make the last pass and the update; `sums` holds loss and gradients of earlier passes."""
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
        """Return the mean over ranks and passes of a value that was multiplied by `scale`."""
        divisor = self.world_size * self.num_passes * scale
        return self.all_reduce(value) if divisor == 1 else self.all_reduce(value) / divisor

    def _update(self, gradients: tuple[Tensor, ...]) -> None:
        if self.recipe.clip_grad:
            gradients = clip(gradients, self.recipe, self.sum_of_squares)
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
        """Return this rank's part of the factors of the global batch."""
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
    """The mean loss of a batch in the recipe's precision, with and without its loss scale."""

    def __init__(self, network: SKNet, recipe: Recipe, loss_scale: "LossScale") -> None:
        super().__init__(auto_prefix=False)
        self.network = mixed(network, recipe)
        self.loss = create_loss(recipe)
        self.loss_scale = loss_scale

    def construct(
        self, images: Tensor, labels: Tensor, factors: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return (scaled loss, loss), in float32; `factors` are those of `SKNet.construct`."""
        loss = self.loss(self.network(images, factors), labels)
        return loss * self.loss_scale(), loss


def mixed(network: nn.Cell, recipe: Recipe) -> nn.Cell:
    """Convert the network to the recipe's mixed precision, with float32 logits.

    Its parameters stay float32. BatchNorm stays float32 too, unless the level is O3.
    """
    return ms.amp.auto_mixed_precision(network, recipe.amp_level)


class GradientSum(nn.Cell):
    """A pass over a micro-batch that adds its loss and gradients to those of earlier passes."""

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
        """Return the new sums: the loss, then the gradients."""
        (_, loss), gradients = self.gradient(images, labels, factors)
        return (loss + sums[0], *self.map(ops.add, gradients, sums[1:]))


class LossScale(nn.Cell):
    """The factor of the loss in the backward pass; a dynamic one is state of the training."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(auto_prefix=False)
        self.fixed = recipe.loss_scale
        self.dynamic = recipe.loss_scale_type == "dynamic"
        if self.dynamic:
            self.scaler = ms.amp.DynamicLossScaler(recipe.loss_scale, SCALE_FACTOR, SCALE_WINDOW)
            # As parameters of this cell they are saved with it.
            self.value, self.steps_without = self.scaler.scale_value, self.scaler.counter
            self.value.name, self.steps_without.name = "loss_scale", "loss_scale_steps"

    def construct(self) -> Tensor | float:
        """Return the factor."""
        return self.value if self.dynamic else self.fixed

    def adjust(self, finite: Tensor) -> None:
        """Adjust a dynamic factor after a step, given whether all its gradients were finite."""
        if self.dynamic:
            self.scaler.adjust(finite)


class Average(nn.Cell):
    """The exponential moving average of all parameters of a network, under the names `ema.*`."""

    def __init__(self, network: nn.Cell, decay: float) -> None:
        super().__init__(auto_prefix=False)
        self.decay = decay
        self.followed = ms.ParameterTuple(list(network.get_parameters()))
        self.average = self.followed.clone(prefix=AVERAGE_PREFIX, init="same")
        self.updates = Parameter(Tensor(0.0, mstype.float32), name=f"{AVERAGE_PREFIX}.updates")

    def construct(self) -> bool:
        """Follow one update of the network."""
        ops.assign(self.updates, self.updates + 1)
        weight = self.decay * (1 - ops.exp(-self.updates / WARM_UP_UPDATES))
        for index in range(len(self.average)):
            old, new = self.average[index], self.followed[index]
            ops.assign(old, old * weight + new * (1 - weight))
        return True


def clip(
    gradients: tuple[Tensor, ...], recipe: Recipe, sum_of_squares: Callable[[Tensor], Tensor]
) -> tuple[Tensor, ...]:
    """Limit each element to ±clip_value, or the norm of all gradients together to clip_value."""
    if recipe.clip_mode == "value":
        return tuple(ops.clip_by_value(g, -recipe.clip_value, recipe.clip_value) for g in gradients)
    square = sum_of_squares(gradients[0])
    for gradient in gradients[1:]:
        square = square + sum_of_squares(gradient)
    factor = recipe.clip_value / ops.maximum(ops.sqrt(square), recipe.clip_value)
    return tuple(gradient * factor for gradient in gradients)


def freeze(network: nn.Cell, layers: tuple[str, ...]) -> None:
    """Make the weights of the layers not trainable."""
    for layer in layers:
        for parameter in getattr(network, layer).get_parameters():
            parameter.requires_grad = False


def keep_frozen(network: nn.Cell, layers: tuple[str, ...]) -> None:
    """Set the layers to evaluation mode, so that BatchNorm uses its statistics unchanged."""
    for layer in layers:
        getattr(network, layer).set_train(False)


def branch_factors(
    num_blocks: int, rate: float, *, seed: int, step: int, global_batch: int
) -> npt.NDArray[np.float32]:
    """Draw the factors of all residual branches for one step of stochastic depth.

    They depend on seed and step, not on the ranks or the device, so that a resumed run repeats
    them. (The random numbers of nn.Dropout on CPU depend on the order of its threads.)

    Returns:
        (num_blocks, global_batch): 0 where a sample skips a block, otherwise the reciprocal of the
        probability not to skip it, so that the mean of the branch stays.
    """
    kept = 1 - drop_rates(num_blocks, rate)[:, None]
    drawn = generator(_DROP_PATH_STREAM, seed, step).random((num_blocks, global_batch))
    return np.where(drawn < kept, 1 / kept, 0).astype(np.float32)


def drop_rates(num_blocks: int, rate: float) -> npt.NDArray[np.float64]:
    """Return each block's probability of being skipped: linear from 0 to `rate`, as in MindCV."""
    return np.linspace(0, rate, num_blocks)


class SynchroniseStatistics(nn.Cell):
    """Sets BatchNorm's moving statistics, and their averages, to their means over ranks.

    This is done at every planned checkpoint, so that one file holds the state of all ranks.
    """

    def __init__(self, cell: nn.Cell, world_size: int) -> None:
        super().__init__(auto_prefix=False)
        self.statistics = ms.ParameterTuple(moving_statistics(cell))
        self.world_size = world_size
        self.all_reduce = ops.AllReduce()

    def construct(self) -> Tensor:
        """Set the statistics; the result has no meaning."""
        for parameter in self.statistics:
            ops.assign(parameter, self.all_reduce(parameter) / self.world_size)
        return self.statistics[0]


def gather_statistics(step_cell: nn.Cell) -> npt.NDArray[np.float32]:
    """Return the statistics of all ranks, (ranks, values). All ranks have to call this.

    A training that stops between planned checkpoints saves them like this: to average them there
    would change the bits of the rest of the training.
    """
    own = np.concatenate([p.asnumpy().reshape(-1) for p in moving_statistics(step_cell)])
    return np.array(ops.AllGather()(Tensor(own[None])).asnumpy())


def set_statistics(step_cell: nn.Cell, gathered: npt.NDArray[np.float32], world: World) -> None:
    """Set what `gather_statistics` returned.

    Each rank gets its own statistics, or the mean of all if the number of ranks has changed.
    """
    values = gathered[world.rank] if len(gathered) == world.size else gathered.mean(axis=0)
    start = 0
    for parameter in moving_statistics(step_cell):
        part = values[start : start + parameter.size]
        parameter.set_data(Tensor(part.reshape(parameter.shape)))
        start += parameter.size


def moving_statistics(cell: nn.Cell) -> list[Parameter]:
    """Return BatchNorm's moving means and variances, which the optimizer doesn't change."""
    return [
        parameter
        for parameter in cell.get_parameters()
        if parameter.name.endswith((".moving_mean", ".moving_variance"))
    ]
