"""The optimizers of recipes: MindSpore's where they are correct, otherwise the published formulas.

- momentum, sgd: `nn.Momentum` and `nn.SGD`. The weight decay is added to the gradient. Without
  dampening both compute the same. Nesterov's form uses `nn.SGD`, as `nn.Momentum` ignores it on
  CPU.
- adamw: Loshchilov & Hutter 2019, with Adam's bias correction, as in MindCV and PyTorch.
  `nn.AdamWeightDecay` lacks the correction.
- lamb: You et al. 2020, with bias correction. The update of each tensor is scaled to the norm of
  the tensor, as in `nn.Lamb`, which runs on Ascend only.
"""

from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype

from sknet.models.backend import Backend
from sknet.models.sknet import SKNet
from sknet.recipe import Recipe

BETA_1, BETA_2 = 0.9, 0.999
ADAMW_EPSILON, LAMB_EPSILON = 1e-8, 1e-6


def create_optimizer(network: SKNet, recipe: Recipe, rates: list[float]) -> nn.Optimizer:
    """Return the recipe's optimizer for the trainable weights of a network.

    Args:
        network: The network.
        recipe: The recipe.
        rates: The learning rate of each step.
    """
    groups = _groups(network.trainable_params(), recipe)
    if recipe.opt == "momentum" and not recipe.use_nesterov:
        return nn.Momentum(groups, learning_rate=rates, momentum=recipe.momentum)
    if recipe.opt in ("momentum", "sgd"):
        return nn.SGD(
            groups, learning_rate=rates, momentum=recipe.momentum, nesterov=recipe.use_nesterov
        )
    if recipe.opt == "adamw":
        return AdamW(groups, rates)
    return Lamb(groups, rates, network.backend)


def _groups(weights: list[Parameter], recipe: Recipe) -> list[dict[str, object]]:
    without = [weight for weight in weights if not _decays(weight, recipe)]
    if not without:
        return [{"params": weights, "weight_decay": recipe.weight_decay}]
    decayed = [weight for weight in weights if _decays(weight, recipe)]
    return [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": without, "weight_decay": 0.0},
        {"order_params": weights},
    ]


def _decays(weight: Parameter, recipe: Recipe) -> bool:
    match recipe.weight_decay_filter:
        case "disable":
            return True
        case "auto":
            return not str(weight.name).endswith((".gamma", ".beta"))
        case _:
            # Biases, and the scale and shift of BatchNorm, have a single axis.
            return bool(weight.ndim > 1)


class _Adaptive(nn.Optimizer):
    """Adam, which counts its updates in the powers of β. A dropped update counts only as a step."""

    def __init__(self, groups: list[dict[str, object]], rates: list[float], epsilon: float) -> None:
        super().__init__(rates, groups)
        self.first = self.parameters.clone(prefix="moments.first", init="zeros")
        self.second = self.parameters.clone(prefix="moments.second", init="zeros")
        self.beta_1_power = Parameter(Tensor(1.0, mstype.float32), name="moments.beta_1_power")
        self.beta_2_power = Parameter(Tensor(1.0, mstype.float32), name="moments.beta_2_power")
        # Tensors: products with numbers are operators that jit level O2 on Ascend lacks.
        self.beta_1, self.rest_1, self.beta_2, self.rest_2, self.one, self.tiny = (
            Tensor(value, mstype.float32)
            for value in (BETA_1, 1 - BETA_1, BETA_2, 1 - BETA_2, 1, epsilon)
        )

    def construct(self, gradients: tuple[Tensor, ...]) -> bool:
        """Update the weights by one step."""
        rate = self.get_lr()
        self.assignadd(self.global_step, self.global_step_increase_tensor)
        ops.assign(self.beta_1_power, self.beta_1_power * self.beta_1)
        ops.assign(self.beta_2_power, self.beta_2_power * self.beta_2)
        correction_1, correction_2 = self.one - self.beta_1_power, self.one - self.beta_2_power
        for index in range(len(gradients)):
            weight, gradient = self.parameters[index], gradients[index]
            first = self.beta_1 * self.first[index] + self.rest_1 * gradient
            second = self.beta_2 * self.second[index] + self.rest_2 * ops.square(gradient)
            ops.assign(self.first[index], first)
            ops.assign(self.second[index], second)
            update = first / correction_1 / (ops.sqrt(second / correction_2) + self.tiny)
            if self.decay_flags[index]:
                update = update + self.weight_decay[index] * weight
            ops.assign(weight, weight - rate * self.trust(weight, update) * update)
        return True


class AdamW(_Adaptive):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    def __init__(self, groups: list[dict[str, object]], rates: list[float]) -> None:
        super().__init__(groups, rates, ADAMW_EPSILON)

    def trust(self, weight: Tensor, update: Tensor) -> Tensor:  # noqa: ARG002 (Lamb uses them)
        """Return the factor of the learning rate, 1."""
        return self.one


class Lamb(_Adaptive):
    """Adam with a trust ratio for each tensor (You et al. 2020)."""

    def __init__(
        self, groups: list[dict[str, object]], rates: list[float], backend: Backend
    ) -> None:
        super().__init__(groups, rates, LAMB_EPSILON)
        self.sum_of_squares = backend.sum_of_squares

    def trust(self, weight: Tensor, update: Tensor) -> Tensor:
        """Return the factor of the learning rate: the ratio of the norms, or 1 if either is 0."""
        own = ops.sqrt(self.sum_of_squares(weight))
        other = ops.sqrt(self.sum_of_squares(update))
        some = ops.logical_and(own > 0, other > 0)
        return ops.select(
            some, own / ops.select(some, other, ops.ones_like(other)), ops.ones_like(own)
        )
