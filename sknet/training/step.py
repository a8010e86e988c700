"""One training step: forward, backward, all-reduce, update."""

from collections.abc import Callable

import mindspore as ms
import numpy as np
import numpy.typing as npt
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype

from sknet.data.order import Indices
from sknet.models.sknet import SKNet
from sknet.recipe import Recipe
from sknet.training.inputs import MicroBatch, Normalise
from sknet.training.loss import create_loss
from sknet.training.optimizer import create_optimizer
from sknet.world import ALONE, World

# Dynamic loss scale as in MindCV: halved at an overflow, doubled after 2000 steps without one.
SCALE_FACTOR, SCALE_WINDOW = 2, 2000
# Average as in MindCV: after t updates the old average has weight decay · (1 - exp(-t / 2000)).
WARM_UP_UPDATES = 2000
AVERAGE_PREFIX = "ema"


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
        self,
        network: SKNet,
        recipe: Recipe,
        rates: list[float],
        world: World = ALONE,
        counts: Indices | None = None,
    ) -> None:
        """Prepare the network, which becomes part of this cell.

        Args:
            network: The network to train. Its frozen layers stop being trainable, and its layers
                change to the recipe's precision.
            recipe: The recipe.
            rates: The learning rate of each step.
            world: The ranks that train together.
            counts: Number of training samples of each class, (C,), as `class_counts` returns it.
        """
        # Without prefixes a checkpoint has the same names of weights as the network alone.
        super().__init__(auto_prefix=False)
        self.recipe = recipe
        self.world_size = world.size
        self.num_passes = recipe.gradient_accumulation_steps
        freeze(network, recipe.freeze)
        self.network = network
        self.sum_of_squares = network.backend.sum_of_squares
        # In a tuple, it is not part of this cell.
        self.twin = (network.twin(),) if recipe.ema or recipe.amp_level != "O0" else ()
        self.average = Average(network, recipe.ema_decay) if recipe.ema else None
        self.loss_scale = LossScale(recipe)
        self.forward = ScaledLoss(network, recipe, self.loss_scale, counts)
        self.optimizer = create_optimizer(network, recipe, rates)
        self.weights = self.optimizer.parameters
        self.gradient = ms.value_and_grad(self.forward, None, self.weights, has_aux=True)
        self.earlier = (GradientSum(self.forward, self.weights) if self.num_passes > 1 else None,)
        self.map = ops.Map()
        self.all_reduce = sum_over_ranks(network) if self.world_size > 1 else ops.Identity()
        # Divisors are tensors: a division by a number is an operator that jit level O2 lacks.
        parts = self.world_size * self.num_passes
        self.divisors = Tensor(np.array([parts, 1], np.float32))
        self.is_dynamic = self.loss_scale.dynamic
        factor = parts if self.is_dynamic else parts * recipe.loss_scale
        self.divides = self.is_dynamic or factor != 1
        self.divisor = Tensor(factor, mstype.float32)
        self.asked = tuple(Tensor(np.array(value, np.float32)) for value in (0, 1))

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

    def __call__(self, inputs: tuple[MicroBatch, ...], *, stop: bool = False) -> Tensor:
        """Take one step.

        Args:
            inputs: This rank's part of the global batch, made by an `InputMaker`.
            stop: Whether this rank was asked to stop.

        Returns:
            (2,): the mean loss over all ranks before the update, and how many ranks were asked to
            stop. On a device that computes while the host goes on, reading it waits for the step.
        """
        *earlier, last = inputs
        asked = self.asked[stop]
        (gradient_sum,) = self.earlier
        if gradient_sum is None:
            return super().__call__(*last, asked)
        sums = gradient_sum.zeros
        for micro_batch in earlier:
            # Without `mutable` a tuple is a constant of the graph.
            sums = gradient_sum(*micro_batch, ms.mutable(sums))
        return super().__call__(*last, asked, ms.mutable(sums))

    def construct(
        self,
        images: Tensor,
        labels: Tensor,
        factors: Tensor | None,
        asked: Tensor,
        sums: tuple[Tensor, ...] | None = None,
    ) -> Tensor:
        """Make the last pass and the update; `sums` holds loss and gradients of earlier passes."""
        (_, loss), gradients = self.gradient(images, labels, factors)
        if sums is not None:
            loss = loss + sums[0]
            gradients = self.map(ops.add, gradients, sums[1:])
        result = self.all_reduce(ops.stack((loss, asked))) / self.divisors
        gradients = self._means(gradients)
        if not self.recipe.drop_overflow_update:
            self._update(gradients)
            return result
        finite = all_finite(gradients)
        self.loss_scale.adjust(finite)
        if finite:
            self._update(gradients)
        else:
            step = self.optimizer.global_step
            ops.assign(step, step + 1)
        return result

    def _means(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the means over ranks and passes of gradients, which have the loss scale."""
        sums = tuple(self.all_reduce(gradient) for gradient in gradients)
        if not self.divides:
            return sums
        divisor = self.divisor * self.loss_scale() if self.is_dynamic else self.divisor
        return tuple(total / divisor for total in sums)

    def _update(self, gradients: tuple[Tensor, ...]) -> None:
        if self.recipe.clip_grad:
            gradients = clip(gradients, self.recipe, self.sum_of_squares)
        self.optimizer(gradients)
        if self.average is not None:
            self.average()


class ScaledLoss(nn.Cell):
    """The mean loss of a batch in the recipe's precision, with and without its loss scale."""

    def __init__(
        self, network: SKNet, recipe: Recipe, loss_scale: "LossScale", counts: Indices | None
    ) -> None:
        super().__init__(auto_prefix=False)
        self.normalise = Normalise(recipe)
        self.network = mixed(network, recipe)
        self.loss = create_loss(recipe, counts)
        self.loss_scale = loss_scale

    def construct(
        self, images: Tensor, labels: Tensor, factors: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return (scaled loss, loss), in float32; `factors` are those of `SKNet.construct`."""
        loss = self.loss(self.network(self.normalise(images), factors), labels)
        return loss * self.loss_scale(), loss


def sum_over_ranks(network: SKNet) -> ops.AllReduce:
    """Return a sum over ranks, in the form for the network's device."""
    all_reduce = ops.AllReduce()
    if network.backend.fuses_collectives:
        # MindSpore makes one operation of all that have the same number.
        all_reduce.add_prim_attr("fusion", 1)
    return all_reduce


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
    """The factor of the loss in the backward pass; a dynamic one is state of the training.

    A dynamic scale is that of MindSpore's `amp.DynamicLossScaler`, whose operators between tensors
    and numbers lack kernels for whole graphs on Ascend.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(auto_prefix=False)
        self.fixed = recipe.loss_scale
        self.dynamic = recipe.loss_scale_type == "dynamic"
        if self.dynamic:
            self.value = Parameter(Tensor(recipe.loss_scale, mstype.float32), name="loss_scale")
            self.steps_without = Parameter(Tensor(0, mstype.int32), name="loss_scale_steps")
            self.factor, self.lowest = (Tensor(x, mstype.float32) for x in (SCALE_FACTOR, 1))
            self.none, self.one, self.last = (
                Tensor(x, mstype.int32) for x in (0, 1, SCALE_WINDOW - 1)
            )

    def construct(self) -> Tensor | float:
        """Return the factor."""
        return self.value if self.dynamic else self.fixed

    def adjust(self, finite: Tensor) -> None:
        """Adjust a dynamic factor after a step, given whether all its gradients were finite."""
        if not self.dynamic:
            return
        full = ops.equal(self.steps_without, self.last)
        larger, smaller = self.value * self.factor, self.value / self.factor
        grown = ops.select(ops.logical_and(full, ops.isfinite(larger)), larger, self.value)
        ops.assign(self.value, ops.select(finite, grown, ops.maximum(smaller, self.lowest)))
        counted = ops.select(full, self.none, self.steps_without + self.one)
        ops.assign(self.steps_without, ops.select(finite, counted, self.none))


class Average(nn.Cell):
    """The exponential moving average of all parameters of a network, under the names `ema.*`."""

    def __init__(self, network: nn.Cell, decay: float) -> None:
        super().__init__(auto_prefix=False)
        # Tensors: products with numbers are operators that jit level O2 on Ascend lacks.
        self.decay, self.one, self.warm_up = (
            Tensor(value, mstype.float32) for value in (decay, 1, WARM_UP_UPDATES)
        )
        self.followed = ms.ParameterTuple(list(network.get_parameters()))
        self.average = self.followed.clone(prefix=AVERAGE_PREFIX, init="same")
        self.updates = Parameter(Tensor(0.0, mstype.float32), name=f"{AVERAGE_PREFIX}.updates")

    def construct(self) -> bool:
        """Follow one update of the network."""
        ops.assign(self.updates, self.updates + self.one)
        weight = self.decay * (self.one - ops.exp(-self.updates / self.warm_up))
        for index in range(len(self.average)):
            old, new = self.average[index], self.followed[index]
            ops.assign(old, old * weight + new * (self.one - weight))
        return True


def all_finite(gradients: tuple[Tensor, ...]) -> Tensor:
    """Return whether all values are finite, a scalar.

    MindSpore's `amp.all_finite` counts in int64, which Ascend computes slowly.
    """
    finite = ops.ReduceAll()(ops.isfinite(gradients[0]))
    for gradient in gradients[1:]:
        finite = ops.logical_and(finite, ops.ReduceAll()(ops.isfinite(gradient)))
    return finite


def clip(
    gradients: tuple[Tensor, ...], recipe: Recipe, sum_of_squares: Callable[[Tensor], Tensor]
) -> tuple[Tensor, ...]:
    """Limit each element to ±clip_value, or the norm of all gradients together to clip_value."""
    if recipe.clip_mode == "value":
        return tuple(ops.clip_by_value(g, -recipe.clip_value, recipe.clip_value) for g in gradients)
    square = sum_of_squares(gradients[0])
    for gradient in gradients[1:]:
        square = square + sum_of_squares(gradient)
    # A tensor: jit level O2 on Ascend lacks divisions of numbers by tensors.
    limit = ops.cast(recipe.clip_value, square.dtype)
    factor = limit / ops.maximum(ops.sqrt(square), limit)
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


class SynchroniseStatistics(nn.Cell):
    """Sets BatchNorm's moving statistics, and their averages, to their means over ranks.

    This is done at every planned checkpoint, so that one file holds the state of all ranks.
    """

    def __init__(self, step_cell: TrainStep) -> None:
        super().__init__(auto_prefix=False)
        self.statistics = ms.ParameterTuple(moving_statistics(step_cell))
        self.world_size = Tensor(step_cell.world_size, mstype.float32)
        self.all_reduce = step_cell.all_reduce

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
