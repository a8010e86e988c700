"""What a report shows: the runs of a store with their training logs, and its revalidations."""

import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_serializer,
    model_validator,
)

from infra.base.records import Record
from sknet.recipe import Recipe
from sknet.records import (
    Attention,
    Check,
    CopyGroup,
    Evaluation,
    Example,
    Promotion,
    QuarantinedSample,
    Revalidation,
)
from sknet.records.calibration import Calibration
from sknet.records.evaluation import TOP

SHORT_KEY_LENGTH = 10
"""Hex digits of a key or a digest that a report shows where there is little room."""

NonNegative = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Hex = Annotated[str, Field(pattern=r"^[0-9a-f]+$")]
LogLine = Mapping[str, Any]


class _Line(BaseModel):
    # A log may hold fields that the report doesn't read, and may lack values that weren't measured.
    model_config = ConfigDict(frozen=True, extra="ignore")


class StartLine(_Line):
    """The training started, or resumed, after `step` steps."""

    step: NonNegative


class StepLine(_Line):
    """Progress after `step` steps. Speeds are those of the steps since the previous such line."""

    step: NonNegative
    epoch: NonNegative
    loss: float | None = None
    lr: float | None = None
    ms_per_step: float | None = None
    ms_per_step_p50: float | None = None
    ms_per_step_p90: float | None = None
    ms_per_step_p99: float | None = None


class EpochLine(_Line):
    """The end of an epoch. The counts are missing if the epoch ended without an evaluation."""

    step: NonNegative
    epoch: NonNegative
    train_loss: float | None = None
    lr: float | None = None
    """Learning rate of the last step; logs of earlier versions lack it."""
    correct_top1: NonNegative | None = None
    correct_top5: NonNegative | None = None
    seen: Positive | None = None
    loss_sum: float | None = None
    seconds: float | None = None

    @property
    def validation_loss(self) -> float | None:
        """Mean loss per validation sample."""
        if self.loss_sum is None or self.seen is None:
            return None
        return self.loss_sum / self.seen


class EndLine(_Line):
    """The end of a training, with the speed of all of its steps."""

    compile_seconds: float | None = None
    ms_per_step_p50: float | None = None
    ms_per_step_p90: float | None = None
    ms_per_step_p99: float | None = None
    images_per_second: float | None = None
    data_wait_share: float | None = None
    restarts: NonNegative | None = None


_LINE_TYPES: Mapping[object, type[_Line]] = {
    "start": StartLine,
    "step": StepLine,
    "epoch": EpochLine,
    "end": EndLine,
}


class History(_Line):
    """The log lines of the steps that led to the final weights."""

    starts: tuple[StartLine, ...]
    steps: tuple[StepLine, ...]
    epochs: tuple[EpochLine, ...]
    end: EndLine
    """Has no values if the log has no end."""


def history_of(log: Iterable[LogLine]) -> History:
    """Return the history in a log, without the steps that were lost before a resume.

    A training resumes from a checkpoint, so the steps after that checkpoint appear twice in the
    log. Only their last run counts.
    """
    starts: list[StartLine] = []
    steps: list[StepLine] = []
    epochs: list[EpochLine] = []
    end = EndLine()
    for line in log:
        match line.get("type"):
            case "start":
                start = StartLine.model_validate(line)
                starts.append(start)
                steps = [each for each in steps if each.step <= start.step]
                epochs = [each for each in epochs if each.step <= start.step]
                end = EndLine()
            case "step":
                steps.append(StepLine.model_validate(line))
            case "epoch":
                epochs.append(EpochLine.model_validate(line))
            case "end":
                end = EndLine.model_validate(line)
    return History(starts=tuple(starts), steps=tuple(steps), epochs=tuple(epochs), end=end)


def read_log(content: bytes) -> tuple[tuple[dict[str, Any], ...], str | None]:
    """Return the readable lines of a metrics.jsonl, and what is wrong with the others, if any."""
    lines: list[dict[str, Any]] = []
    faults: list[str] = []
    for number, text in enumerate(content.splitlines(), 1):
        try:
            line = json.loads(text)
            if not isinstance(line, dict):
                raise ValueError(f"{type(line).__name__} instead of an object")
            if (line_type := _LINE_TYPES.get(line.get("type"))) is not None:
                line_type.model_validate(line)
        except ValidationError as error:
            fault = error.errors()[0]
            faults.append(f"line {number}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}")
        except (ValueError, RecursionError) as error:
            faults.append(f"line {number}: {error}")
        else:
            lines.append(line)
    if not faults:
        return tuple(lines), None
    return tuple(lines), f"{len(faults)} lines can't be read, first {faults[0]}"


class ReportRecord(Record):
    """A record of a report. Unlike other records it may hold NaN and infinities, as losses can."""

    model_config = ConfigDict(allow_inf_nan=True, ser_json_inf_nan="constants")


class TaskOutput(ReportRecord):
    """What one task of the flow made for a run, and what that took."""

    task: str
    seconds: float | None
    artifact: str = ""
    """The artifact's kind and key, such as `checkpoint/KEY`."""
    digest: str = ""
    """Digest of the artifact."""
    num_bytes: NonNegative | None = None
    """Total size of the artifact's files, in bytes."""
    inputs: tuple[str, ...] = ()
    """Names of the tasks whose artifacts this one was made from."""
    reused: bool = False
    """Whether an earlier run had built the artifact."""


class DataFacts(ReportRecord):
    """The data that a run was trained on."""

    source: str
    digest: str
    """Digest of the samples, in their order."""
    shards: str
    """Digest of the shards."""
    splits: dict[str, NonNegative]
    """Number of samples by split."""
    quarantined: tuple[QuarantinedSample, ...] = ()
    """Samples left out while the source was staged or converted."""


class MeasuredSample(ReportRecord):
    """What was measured of one image of a data set."""

    split: str
    key: str
    label: NonNegative
    size: NonNegative
    """Size of the encoded image, in bytes."""
    width: Positive
    height: Positive
    brightness: float
    """Mean of the grey values, 0 to 255."""
    contrast: float
    """Standard deviation of the grey values."""


class DataSetFacts(ReportRecord):
    """What a report shows of a data set, whichever runs were trained on it."""

    digest: str
    """Digest of the samples, in their order."""
    source: str
    splits: dict[str, NonNegative]
    """Number of samples by split."""
    titles: tuple[str, ...]
    """Readable names of the classes, by label."""
    num_left_out: NonNegative
    class_counts: dict[str, tuple[NonNegative, ...]] = Field(default={})
    """Number of samples by split and label; empty if the index of the samples can't be read."""
    leaked: dict[str, NonNegative] = Field(default={})
    """Number of samples by split of which a copy is in another split."""
    num_copies: dict[str, NonNegative] = Field(default={})
    """Number of groups of copies by kind, as `copy_kinds` names them."""
    copies: tuple[CopyGroup, ...] = ()
    """The first groups of each suspect kind."""
    measured: tuple[MeasuredSample, ...] = ()
    """The images that were measured, at random."""
    pictures: dict[str, Hex] = Field(default={})
    """SHA-256 of the small picture by the key of the sample."""
    pictured_in: str = ""
    """Kind and key of the artifact with the pictures."""

    @property
    def ordered_splits(self) -> list[str]:
        """The splits in the order train, val, test."""
        order = {"train": 0, "val": 1}
        return sorted(self.splits, key=lambda split: (order.get(split, 2), split))


class ShownExample(ReportRecord):
    """A wrong prediction, and the SHA-256 of its thumbnail."""

    example: Example
    sha256: Hex


class TrainedRun(ReportRecord):
    """All that a report needs of one run."""

    key: Hex
    """Key of the run's checkpoint."""
    recipe: Recipe
    model: str
    params: NonNegative
    """Number of trainable parameters."""
    world_size: Positive
    global_batch_size: Positive
    device_target: str
    mindspore: str
    """MindSpore's version."""
    machine: str = ""
    """Stands for the machine that ended the training, without its name; empty if it isn't known."""
    processor: str = ""
    """Kind of the machine's processor; empty if it isn't recorded."""
    load: Annotated[float, Field(ge=0)] | None = None
    """Fraction of the processors' time that other programs took there during the training; None if
    it isn't recorded."""
    steps: NonNegative
    evaluation: Evaluation | None
    """The evaluation at the recipe's resolution."""
    log: tuple[dict[str, Any], ...]
    """Parsed lines of metrics.jsonl. Lines of unknown types are ignored."""
    tasks: tuple[TaskOutput, ...] = ()
    checkpoint_digest: str
    created: str = ""
    """ISO time at which the training ended."""
    classes: tuple[str, ...] = ()
    """Readable names of the classes, by label."""
    data: DataFacts | None = None
    software: dict[str, str] = Field(default={})
    """Versions of the software that the training and the evaluation used, by name."""
    other_resolutions: tuple[Evaluation, ...] = ()
    calibration: Calibration | None = None
    """What a temperature changes in the evaluation at the recipe's resolution."""
    checks: tuple[Check, ...] = ()
    """What was checked of the checkpoint before its evaluation."""
    promotion: Promotion | None = None
    is_production: bool = False
    suspect: str = ""
    """Why a revalidation marked production as suspect. Empty if none did, or for other runs."""
    attention: Attention | None = None
    examples: tuple[ShownExample, ...] = ()

    @model_validator(mode="after")
    def _readable_log(self) -> Self:
        _ = self.history  # refuses an unreadable line now, not while a figure is drawn
        return self

    @field_serializer("recipe")
    def _with_name(self, recipe: Recipe) -> dict[str, Any]:
        # A recipe leaves its name out of its own JSON, but the report shows it.
        return {"name": recipe.name, **recipe.model_dump(mode="json")}

    @property
    def short_key(self) -> str:
        """First digits of the key, which name the run in a report."""
        return self.key[:SHORT_KEY_LENGTH]

    @property
    def title(self) -> str:
        """The run's name in headings."""
        return f"{self.recipe.name}, run {self.short_key}"

    @cached_property
    def history(self) -> History:
        """The parsed log, without the steps that were lost before a resume."""
        return history_of(self.log)

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """The evaluations at all resolutions, the recipe's resolution first."""
        first = () if self.evaluation is None else (self.evaluation,)
        return (*first, *self.other_resolutions)

    @property
    def accuracy_top1(self) -> float | None:
        """Accuracy@1 at the recipe's resolution, as a fraction."""
        return None if self.evaluation is None else self.evaluation.accuracy_top1

    @property
    def data_digest(self) -> str:
        """Digest of the samples that the run was trained on; empty if it isn't known."""
        return "" if self.data is None else self.data.digest

    @property
    def sample_set(self) -> tuple[str, str] | None:
        """What names the samples that the run was evaluated on; None if it wasn't."""
        return None if self.evaluation is None else (self.data_digest, self.evaluation.split)

    @property
    def is_top5_telling(self) -> bool:
        """Whether accuracy@5 says anything of as many classes."""
        return len(self.classes) > TOP or not self.classes

    @property
    def train_seconds(self) -> float | None:
        """Seconds that the training task took."""
        return next((each.seconds for each in self.tasks if each.task == "train"), None)

    @property
    def device_hours(self) -> float | None:
        """Hours of training times the number of ranks."""
        seconds = self.train_seconds
        return None if seconds is None else seconds * self.world_size / 3600

    def class_name(self, label: int) -> str:
        """Return the readable name of a class, or its label if it has no name."""
        return self.classes[label] if label < len(self.classes) else str(label)


class Unreadable(ReportRecord):
    """Something in the store that the report can't show, and why."""

    artifact: str
    reason: str


class ReportContents(ReportRecord):
    """Everything that a report shows of a store."""

    runs: tuple[TrainedRun, ...] = ()
    """All runs, the newest first."""
    data_sets: tuple[DataSetFacts, ...] = ()
    """The data sets of the runs, the newest run's first."""
    revalidations: tuple[Revalidation, ...] = ()
    """All revalidations, the oldest first."""
    unreadable: tuple[Unreadable, ...] = ()
    price: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Price of a device-hour, in whatever currency."""

    @property
    def comparable(self) -> tuple[TrainedRun, ...]:
        """The evaluated runs on the same samples as the newest of them, the newest first."""
        evaluated = [run for run in self.runs if run.evaluation is not None]
        return tuple(run for run in evaluated if run.sample_set == evaluated[0].sample_set)

    @property
    def best(self) -> TrainedRun | None:
        """The `comparable` run with the highest accuracy@1. Of several, the newest."""
        return max(self.comparable, key=lambda run: run.accuracy_top1 or 0.0, default=None)

    def previous(self, run: TrainedRun) -> TrainedRun | None:
        """Return the run that ended before another one, on the same data if there is one."""
        earlier = self.runs[self.runs.index(run) + 1 :]
        alike = (each for each in earlier if each.data_digest == run.data_digest)
        return next(alike, earlier[0] if earlier else None)

    def detailed(self, max_runs: int) -> tuple[TrainedRun, ...]:
        """Return the runs that a page shows in full: the best, production, then the newest."""
        first = [run for run in (self.best,) if run is not None]
        order = [*first, *(run for run in self.runs if run.is_production), *self.runs]
        return tuple({run.key: run for run in order}.values())[:max_runs]
