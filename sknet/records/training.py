"""A training run, and the checkpoints that it saves."""

from importlib.metadata import version
from pathlib import Path
from typing import Literal

from infra.base.files import is_directory, is_file
from infra.base.records import Record, Sha256
from sknet.errors import UserError
from sknet.recipe import Recipe
from sknet.records.evaluation import Evaluation
from sknet.records.fields import FileName, NonNegativeInt, PositiveInt

MODEL_FILE = "model.ckpt"
"""Name of the weights in a checkpoint's directory."""

STATE_FILE = "state.json"
"""Name of the `Checkpoint` record in a checkpoint's directory."""

METRICS_FILE = "metrics.jsonl"
"""Name of a training's log in the directory of its checkpoints."""

DECODING_THREADS = 8
"""Threads that decode where no recipe says how many, if the machine has as many processors."""


class Run(Record):
    """A training as it is planned before it starts; its digest identifies it."""

    recipe: Recipe
    classes: tuple[str, ...]
    shards_digest: Sha256
    world_size: PositiveInt
    """Number of ranks that determined the global batch and the learning rates."""
    global_batch_size: PositiveInt
    steps_per_epoch: PositiveInt
    device_target: str
    mindspore: str
    """Version of MindSpore; other versions may compute other bits."""
    image_libraries: str = ""
    """Versions of the libraries that make images of files; others may make other pixels. Empty in
    trainings that are older than this field, whose images MindSpore made."""

    @property
    def evaluated_recipe(self) -> Recipe:
        """The recipe, with `DECODING_THREADS`.

        A run doesn't record the number of threads, which changes nothing in what is trained.
        """
        return self.recipe.model_copy(update={"num_parallel_workers": DECODING_THREADS})

    @property
    def total_steps(self) -> int:
        """Number of steps of the whole training."""
        return self.recipe.epoch_size * self.steps_per_epoch


class CheckpointFile(Record):
    """A file of a checkpoint's directory."""

    name: FileName
    size: NonNegativeInt
    """In bytes."""
    sha256: Sha256


class Layout(Record):
    """The number of ranks that trained from a step on."""

    first_step: NonNegativeInt
    """Number of steps that were done before."""
    world_size: PositiveInt


class Checkpoint(Record):
    """`state.json` of a checkpoint's directory: the state of the training loop."""

    format_version: Literal[2, 3] = 3
    """2: augmentations depended on the numbers of ranks and threads. Such a checkpoint can be
    evaluated, but not trained on: its samples would be augmented otherwise than before."""
    run: Run
    layouts: tuple[Layout, ...]
    """In order; more than one if the training was resumed with another number of ranks."""
    step: NonNegativeInt
    """Number of steps done."""
    epoch: NonNegativeInt
    """Number of complete epochs."""
    samples_seen: NonNegativeInt
    num_params: NonNegativeInt
    """Number of trainable parameters of the model."""
    best_top1: NonNegativeInt | None
    """Largest number of correct samples of an evaluation while training."""
    best_step: NonNegativeInt | None
    """First step with that many. Its checkpoint is kept beside the newest ones."""
    evaluations: tuple[tuple[NonNegativeInt, Evaluation], ...]
    """Number of complete epochs, and the evaluation made then; in order."""
    files: tuple[CheckpointFile, ...]


def weights_file(checkpoint: Path) -> Path:
    """Return the file of weights in a checkpoint's directory, or the file that is given itself.

    Raises:
        UserError: There is none, or this user may not read it.
    """
    file = checkpoint / MODEL_FILE if is_directory(checkpoint) else checkpoint
    if not is_file(file):
        raise UserError(f"checkpoint {file} does not exist")
    try:
        file.open("rb").close()
    except OSError as error:
        raise UserError(f"checkpoint {file} can't be read: {error.strerror}") from None
    return file


def state_file(weights: Path) -> Path | None:
    """Return the state.json beside a checkpoint's weights, if there is one.

    None for any other file of weights that lies in the directory: state.json doesn't describe it.
    """
    state = weights.with_name(STATE_FILE)
    return state if weights.name == MODEL_FILE and is_file(state) else None


def run_of(weights: Path) -> Run | None:
    """Return the training that a file of weights is from, if a state.json describes it.

    Raises:
        UserError: The state.json can't be read.
    """
    state = state_file(weights)
    return Checkpoint.read(state).run if state else None


def image_libraries(recipe: Recipe) -> str:
    """Return the versions of the libraries that make the images of a recipe's training."""
    names = ["opencv-python-headless", "simplejpeg", *(["pillow"] if recipe.antialias else [])]
    return ", ".join(f"{name} {version(name)}" for name in names)
