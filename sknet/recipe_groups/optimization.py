"""Loss, optimizer and precision."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sknet.recipe_groups.base import Choices
from sknet.recipe.types import NonNegative, Real, Share


class OptimizerChoices(Choices):
    """From logits to an update of the weights; see sknet.training.{loss,optimizer,average}."""

    loss: Literal["CE", "BCE"] = "CE"
    """Cross entropy over the classes, or binary cross entropy of each class."""
    label_smoothing: Share = 0.0
    """Share of the target spread over all classes."""
    opt: Literal["momentum", "sgd", "adamw", "lamb"] = "momentum"
    """momentum and sgd couple the weight decay with the gradient, adamw and lamb don't."""
    momentum: Share = 0.9
    """Of momentum and sgd."""
    use_nesterov: bool = False
    """Nesterov's form of the momentum."""
    weight_decay: NonNegative = 0.0
    """Decay of the weights."""
    weight_decay_filter: Literal["disable", "auto", "norm_and_bias"] = "norm_and_bias"
    """What has no weight decay: nothing, BatchNorm's scale and shift, or those and biases."""
    clip_grad: bool = False
    """Whether gradients are clipped, once they are the mean over all samples of the step."""
    clip_value: Annotated[Real, Field(gt=0)] = 15.0
    """Limit of the clipping."""
    clip_mode: Literal["norm", "value"] = "norm"
    """What is limited: the norm of all gradients together, as in MindCV, or each element."""
    ema: bool = False
    """Whether a moving average of weights and statistics is kept; it is what gets evaluated."""
    ema_decay: Annotated[Share, Field(lt=1)] = 0.9999
    """Share of the old average, times 1 - exp(-t / 2000) after t updates, as in MindCV."""

    @model_validator(mode="after")
    def _consistent_optimizer(self) -> Self:
        if self.use_nesterov and (self.opt not in ("momentum", "sgd") or not self.momentum):
            raise ValueError("use_nesterov needs opt momentum or sgd, and a momentum above 0")
        return self


class PrecisionChoices(Choices):
    """Mixed precision and its loss scale; see sknet.training.precision."""

    amp_level: Literal["O0", "O2", "O3"] = "O0"
    """O0: float32. O2: float16, but for BatchNorm. O3: float16. Weights, loss and gradients are
    float32 in any case, and so is an evaluation."""
    loss_scale_type: Literal["fixed", "dynamic"] = "fixed"
    """dynamic: halved at an overflow, doubled after 2000 steps without."""
    loss_scale: Annotated[Real, Field(ge=1, le=1 << 24)] = 1.0
    """Factor of the loss in the backward pass; at the start, if dynamic."""
    drop_overflow_update: bool = False
    """Whether a step whose gradients overflow leaves the weights as they are."""

    @model_validator(mode="after")
    def _consistent_precision(self) -> Self:
        if self.loss_scale_type == "dynamic" and not self.drop_overflow_update:
            raise ValueError(
                "loss_scale_type dynamic drops an overflow's update: set drop_overflow_update true"
            )
        return self
