"""Findings: everything that a report tells, and of each run everything that it needs to know."""

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

from sknet.recipe import Recipe
from sknet.records import (
    Attention,
    Check,
    Evaluation,
    Example,
    Promotion,
    QuarantinedSample,
    Revalidation,
)

Whole = Annotated[int, Field(ge=0)]

Positive = Annotated[int, Field(ge=1)]

LogLine = Mapping[str, Any]


class _Line(BaseModel):
    # The log may say more than the report reads; a value that wasn't measured may be missing.
    model_config = ConfigDict(frozen=True, extra="ignore")


class StartLine(_Line):
    """The training starts, or goes on after `step` steps."""

    step: Whole
    jit_level: str | None = None


class StepLine(_Line):
    """Progress after `step` steps; speeds are of the steps since the last such line."""

    step: Whole
    epoch: Whole
    loss: float | None = None
    lr: float | None = None
    ms_per_step: float | None = None
    ms_per_step_p50: float | None = None
    ms_per_step_p90: float | None = None
    ms_per_step_p99: float | None = None


class EpochLine(_Line):
    """The end of an epoch, with an evaluation or without."""

    step: Whole
    epoch: Whole
    train_loss: float | None = None
    correct_top1: Whole | None = None
    correct_top5: Whole | None = None
    seen: Positive | None = None
    loss_sum: float | None = None
    seconds: float | None = None

    @property
    def validation_loss(self) -> float | None:
        """Mean per sample."""
        if self.loss_sum is None or self.seen is None:
            return None
        return self.loss_sum / self.seen


class EndLine(_Line):
    """The speed of the whole training."""

    compile_seconds: float | None = None
    ms_per_step_p50: float | None = None
    ms_per_step_p90: float | None = None
    ms_per_step_p99: float | None = None
    images_per_second: float | None = None
    data_wait_share: float | None = None
    restarts: Whole | None = None


class History(_Line):
    """The lines of a log that led to the final weights."""

    starts: tuple[StartLine, ...]
    steps: tuple[StepLine, ...]
    epochs: tuple[EpochLine, ...]
    end: EndLine
    """Without values if the log has no end."""


_KNOWN: Mapping[object, type[_Line]] = {
    "start": StartLine,
    "step": StepLine,
    "epoch": EpochLine,
    "end": EndLine,
}


def history_of(log: Iterable[LogLine]) -> History:
    """The log without what a restart took back: steps after the checkpoint it began from."""
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
    """The lines of a metrics.jsonl that can be read, and what is wrong with the others, if any."""
    lines: list[dict[str, Any]] = []
    faults: list[str] = []
    for number, text in enumerate(content.splitlines(), 1):
        try:
            line = json.loads(text)
            if not isinstance(line, dict):
                raise ValueError(f"{type(line).__name__} instead of an object")
            if (known := _KNOWN.get(line.get("type"))) is not None:
                known.model_validate(line)
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


SHOWN_DIGITS = 10
"""Hex digits of a key that people see."""

Hex = Annotated[str, Field(pattern=r"^[0-9a-f]+$")]


class Finding(BaseModel):
    """Frozen and typed; unlike the records of stages it may hold what is not finite."""

    # A loss can be NaN, and JSON has to bring it back as that.
    model_config = ConfigDict(
        frozen=True, extra="forbid", ser_json_inf_nan="constants", use_attribute_docstrings=True
    )


class StageTime(Finding):
    """One stage of the pipeline: what it made, from what, and what that took."""

    stage: str
    seconds: float | None
    artifact: str = ""
    """As `checkpoint/KEY`."""
    digest: str = ""
    num_bytes: Whole | None = None
    """Of its files."""
    inputs: tuple[str, ...] = ()
    """Stages whose artifacts it was made from."""
    reused: bool = False
    """An earlier run had made it."""


class DataFacts(Finding):
    """The data that a run has learned from."""

    source: str
    digest: str
    """Of the samples, in order."""
    shards: str
    """Digest of the shards."""
    splits: dict[str, Whole]
    quarantined: tuple[QuarantinedSample, ...] = ()
    """Left out when the source was read, or when it was converted."""


class ShownExample(Finding):
    """A wrong prediction, and the digest of its picture."""

    example: Example
    sha256: Hex


class TrainedRun(Finding):
    """All that a report needs of one run."""

    run: Hex
    """Key of the run."""
    recipe: Recipe
    model: str
    params: Whole
    """Trainable parameters."""
    world_size: Positive
    global_batch_size: Positive
    device_target: str
    mindspore: str
    """Version."""
    steps: Whole
    evaluation: Evaluation | None
    """At the recipe's resolution."""
    log: tuple[dict[str, Any], ...]
    """Lines of metrics.jsonl, parsed; lines of unknown types are ignored."""
    stages: tuple[StageTime, ...] = ()
    checkpoint_digest: str
    created: str = ""
    """When the training ended, as ISO time."""
    classes: tuple[str, ...] = ()
    """Readable names by label."""
    data: DataFacts | None = None
    software: dict[str, str] = {}
    """Versions that the training and the evaluation ran on."""
    other_resolutions: tuple[Evaluation, ...] = ()
    checks: tuple[Check, ...] = ()
    """Whether the checkpoint is sound."""
    promotion: Promotion | None = None
    is_production: bool = False
    suspect: str = ""
    """Why a night has marked it, if it is production's and one has."""
    attention: Attention | None = None
    examples: tuple[ShownExample, ...] = ()

    @model_validator(mode="after")
    def _readable_log(self) -> Self:
        _ = self.history  # a line that can't be read is refused here, not while drawing
        return self

    @field_serializer("recipe")
    def _named(self, recipe: Recipe) -> dict[str, Any]:
        # A recipe leaves its name out, but a report read from JSON is for people too.
        return {"name": recipe.name, **recipe.model_dump(mode="json")}

    @property
    def short(self) -> str:
        """The key as people see it."""
        return self.run[:SHOWN_DIGITS]

    @property
    def title(self) -> str:
        """The run as a heading names it."""
        return f"{self.recipe.name}, run {self.short}"

    @cached_property
    def history(self) -> History:
        """The log without what a restart took back: steps after the checkpoint it began from."""
        return history_of(self.log)

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """At all resolutions, the recipe's first."""
        first = () if self.evaluation is None else (self.evaluation,)
        return (*first, *self.other_resolutions)

    @property
    def accuracy_top1(self) -> float | None:
        """As a share."""
        return (
            None
            if self.evaluation is None
            else (self.evaluation.correct_top1 / self.evaluation.seen)
        )

    @property
    def train_seconds(self) -> float | None:
        """Of the stage that trained it."""
        return next((each.seconds for each in self.stages if each.stage == "train"), None)

    @property
    def device_hours(self) -> float | None:
        """Of the training: seconds times ranks."""
        seconds = self.train_seconds
        return None if seconds is None else seconds * self.world_size / 3600

    def class_name(self, label: int) -> str:
        """The readable name, or the label itself if there is none."""
        return self.classes[label] if label < len(self.classes) else str(label)


class Unreadable(Finding):
    """Something in the store that the report can't tell about, and why."""

    artifact: str
    reason: str


class Findings(Finding):
    """What a store holds, for a report."""

    runs: tuple[TrainedRun, ...] = ()
    """The newest first."""
    nights: tuple[Revalidation, ...] = ()
    """In their order."""
    unreadable: tuple[Unreadable, ...] = ()
    price: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Of a device-hour."""

    @property
    def best(self) -> TrainedRun | None:
        """The run of the highest accuracy@1, the first of equals."""
        evaluated = [run for run in self.runs if run.accuracy_top1 is not None]
        return max(evaluated, key=lambda run: run.accuracy_top1 or 0.0, default=None)

    def detailed(self, most: int) -> tuple[TrainedRun, ...]:
        """The runs that a page shows in full: the best, production's, then the newest."""
        first = [run for run in (self.best,) if run is not None]
        order = [*first, *(run for run in self.runs if run.is_production), *self.runs]
        return tuple({run.run: run for run in order}.values())[:most]
