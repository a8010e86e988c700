"""Mixed precision, and the scale that keeps small float16 gradients from vanishing."""

import mindspore as ms
from mindspore import Tensor, nn

from sknet.recipe import Recipe

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
