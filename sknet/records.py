"""What moves between the stages, in their order; JSON in and out, never file handles."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from sknet.errors import UserError
from sknet.recipe import Recipe

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
NonNegativeInt = Annotated[int, Field(ge=0)]

# A record of ImageNet-21K with its classes stays far below this.
MAX_RECORD_BYTES = 1 << 26


class Record(BaseModel):
    """Frozen, typed, and refusing what it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @property
    def digest(self) -> str:
        """SHA-256 of the content."""
        content = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def write(self, path: Path) -> None:
        """Write as JSON with sorted keys: equal records give equal bytes."""
        content = json.dumps(self.model_dump(mode="json"), sort_keys=True, indent=1)
        path.write_text(content + "\n", "utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises UserError in one line if the file is missing or is no such record."""
        try:
            if path.stat().st_size > MAX_RECORD_BYTES:
                raise UserError(f"{path} is larger than {MAX_RECORD_BYTES} bytes")
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise UserError(f"{path} can't be read: {error.strerror}") from None
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(str(part) for part in fault["loc"])
            raise UserError(
                f"{path} is no valid {cls.__name__}: {where}: {fault['msg']}".replace("\n", " ")
            ) from None


class QuarantinedSample(Record):
    """Something that should have been a sample and was left out, and why."""

    split: str
    """Empty if it was found before its split was known."""
    key: str
    """As the source names it; what is not printable is written with backslashes."""
    reason: str


class Dataset(Record):
    """A source as it was found: what it holds, not where it lies."""

    source: str
    """Kind of source, as `class-folders`."""
    classes: tuple[str, ...]
    """Position is the label."""
    titles: tuple[str, ...]
    """Readable names by label; those of the classes where the source has no others."""
    splits: dict[str, NonNegativeInt]
    """Samples of each split."""
    samples_digest: Sha256
    """Over split, key, label, size and SHA-256 of every sample, in order."""
    index_sha256: Sha256
    """Of the file index that says where in the source each sample lies."""
    quarantined: tuple[QuarantinedSample, ...]
    """Left out when the source was read."""


class ShardFile(Record):
    """One MindRecord file and its index."""

    split: str
    name: FileName
    num_samples: NonNegativeInt
    size: NonNegativeInt
    sha256: Sha256
    index_size: NonNegativeInt
    index_sha256: Sha256

    @property
    def index_name(self) -> str:
        """MindRecord's SQLite index; it embeds the data file's name, so neither is ever renamed."""
        return f"{self.name}.db"


class Reencoding(Record):
    """Images whose shorter side exceeds a limit are stored smaller; others keep their bytes."""

    shorter_side: Annotated[int, Field(ge=1)]
    """Pixels."""
    quality: Annotated[int, Field(ge=1, le=100)]
    """Of the JPEG, on libjpeg's scale."""
    pillow: str
    """Version: others may compute other bytes."""


class Shards(Record):
    """A data set as MindRecord files."""

    dataset: Dataset
    files: tuple[ShardFile, ...]
    quarantined: tuple[QuarantinedSample, ...]
    """Left out because they don't decode; the data set lists its own."""
    reencoding: Reencoding | None = None
    """None: the bytes of the source."""
    plan: Sha256 | None = None
    """Over all that shapes the files' bytes, so that a conversion can tell them for its own."""

    def num_samples(self, split: str) -> int:
        """Samples of the split that can be read."""
        return sum(file.num_samples for file in self.files_of(split))

    def files_of(self, split: str) -> tuple[ShardFile, ...]:
        """In the order in which their samples are numbered."""
        return tuple(file for file in self.files if file.split == split)


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


class Evaluation(Record):
    """Counts over a split; shares are derived, never averaged."""

    split: str
    resolution: int
    seen: NonNegativeInt
    correct_top1: NonNegativeInt
    correct_top5: NonNegativeInt
    loss_sum: float
    class_seen: tuple[NonNegativeInt, ...]
    class_correct: tuple[NonNegativeInt, ...]

    @property
    def accuracy_top1(self) -> float:
        """As a share."""
        return self.correct_top1 / self.seen

    @property
    def accuracy_top5(self) -> float:
        """As a share; of fewer than five classes all count."""
        return self.correct_top5 / self.seen

    @property
    def loss(self) -> float:
        """Mean cross entropy without label smoothing."""
        return self.loss_sum / self.seen


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
