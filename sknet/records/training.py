"""What training is and what it leaves: the run, and its checkpoints."""

from typing import Annotated, Literal

from pydantic import Field

from infra.base.records import Record, Sha256
from sknet.recipe import Recipe
from sknet.records.base import FileName, NonNegativeInt
from sknet.records.evaluation import Evaluation


class Run(Record):
    """A training as decided before it starts: its digest names it."""

    recipe: Recipe
    classes: tuple[str, ...]
    shards_digest: Sha256
    world_size: Annotated[int, Field(ge=1)]
    """Ranks for which it was planned: global batch and learning rate follow from it."""
    global_batch_size: Annotated[int, Field(ge=1)]
    steps_per_epoch: Annotated[int, Field(ge=1)]
    device_target: str
    mindspore: str
    """Version: other versions compute other bits."""

    @property
    def total_steps(self) -> int:
        """Of the whole training."""
        return self.recipe.epoch_size * self.steps_per_epoch


class CheckpointFile(Record):
    """A file of a checkpoint directory."""

    name: FileName
    size: NonNegativeInt
    sha256: Sha256


class Layout(Record):
    """From which step on how many ranks have trained."""

    first_step: NonNegativeInt
    """Steps done before."""
    world_size: Annotated[int, Field(ge=1)]


class Checkpoint(Record):
    """`state.json` of a checkpoint directory: the loop's state beside the weights."""

    format_version: Literal[2] = 2
    run: Run
    layouts: tuple[Layout, ...]
    """In order; more than one if the training went on with another number of ranks."""
    step: NonNegativeInt
    """Steps done."""
    epoch: NonNegativeInt
    """Epochs done in full."""
    samples_seen: NonNegativeInt
    num_params: NonNegativeInt
    """Trainable ones of the model."""
    best_top1: NonNegativeInt | None
    """Most correct predictions of an evaluation while training."""
    best_step: NonNegativeInt | None
    """The first step with that many: `step-<best_step>` is kept beside the newest checkpoints."""
    evaluations: tuple[tuple[NonNegativeInt, Evaluation], ...]
    """(epochs done, evaluation) while training, in order."""
    files: tuple[CheckpointFile, ...]
