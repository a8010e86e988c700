"""Batch, epochs and the learning rate's course."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sknet.recipe_groups.base import Choices
from sknet.recipe.types import Count, NonNegative, Real, Share, Whole


class BatchChoices(Choices):
    """Samples of one update of the weights."""

    batch_size: Count | None = None
    """Samples per device and forward pass, as in MindCV. Either this or global_batch_size."""
    global_batch_size: Count | None = None
    """Samples per step over all devices and their accumulated passes; the product of the two must
    divide it."""
    reference_global_batch_size: Count | None = None
    """The global batch for which lr was tuned: lr scales linearly with the actual one."""
    gradient_accumulation_steps: Count = 1
    """Forward and backward passes of a step, whose gradients are summed before its one update. The
    global batch is batch_size x devices x this."""

    @model_validator(mode="after")
    def _consistent_batch(self) -> Self:
        if (self.batch_size is None) == (self.global_batch_size is None):
            raise ValueError("give either batch_size (per device) or global_batch_size, not both")
        if (self.global_batch_size or 0) % self.gradient_accumulation_steps:
            raise ValueError(
                f"global_batch_size {self.global_batch_size} can't be divided among "
                f"gradient_accumulation_steps {self.gradient_accumulation_steps}"
            )
        return self


class ScheduleChoices(Choices):
    """Epochs and the learning rate of each step; see sknet.training.schedule."""

    epoch_size: Count
    """Number of epochs."""
    scheduler: Literal[
        "cosine_decay", "constant", "step_decay", "multi_step_decay", "one_cycle"
    ] = "cosine_decay"
    """Shape of the learning rate after the warm-up, per step."""
    lr: Annotated[Real, Field(gt=0)]
    """Peak learning rate."""
    min_lr: NonNegative = 0.0
    """Learning rate at the end of cosine_decay and one_cycle."""
    warmup_epochs: Whole = 0
    """Epochs of linear growth to lr; of one_cycle, its rise (0: three tenths of the training)."""
    warmup_factor: Share | None = None
    """Share of lr at the first step of the warm-up, as in MindCV. null: the growth is from 0, which
    would be the step before the first."""
    decay_epochs: Count | None = None
    """Epochs after the warm-up in which cosine_decay comes to its end (null: all), or between two
    falls of step_decay, which needs it."""
    decay_rate: Annotated[Share, Field(gt=0)] = 0.9
    """Factor of each fall of step_decay and multi_step_decay."""
    multi_step_decay_milestones: tuple[Count, ...] = (30, 60, 90)
    """Epochs after the warm-up at which multi_step_decay falls."""

    @model_validator(mode="after")
    def _consistent_schedule(self) -> Self:
        if self.warmup_epochs >= self.epoch_size:
            raise ValueError(
                f"warmup_epochs is {self.warmup_epochs}, but epoch_size is {self.epoch_size}: "
                "the warm-up must be shorter than the training"
            )
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr is {self.min_lr}, above lr {self.lr}")
        if self.scheduler == "step_decay" and self.decay_epochs is None:
            raise ValueError("step_decay needs decay_epochs, the epochs between two falls")
        milestones = list(self.multi_step_decay_milestones)
        if not milestones or milestones != sorted(set(milestones)):
            raise ValueError(
                f"multi_step_decay_milestones is {milestones}, expected growing epochs"
            )
        return self
