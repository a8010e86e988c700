"""TrainedRun: everything that a report needs to know of one run, and the reading of its log."""

from functools import cached_property
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_serializer, model_validator

from sknet.intervals import wilson_interval
from sknet.recipe import Recipe

SHOWN_DIGITS = 10
"""Hex digits of a key that people see."""

Whole = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Hex = Annotated[str, Field(pattern=r"^[0-9a-f]+$")]


class _Record(BaseModel):
    # A loss can be NaN, and JSON has to bring it back as that.
    model_config = ConfigDict(
        frozen=True, extra="forbid", ser_json_inf_nan="constants", use_attribute_docstrings=True
    )


class EvaluationCounts(_Record):
    """What an evaluation counted; shares and means are derived, never stored."""

    split: str
    resolution: Positive
    """Side of the square input, in pixels."""
    seen: Positive
    correct_top1: Whole
    correct_top5: Whole
    loss_sum: float
    """Sum over the samples seen."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.correct_top1 <= self.correct_top5 <= self.seen:
            raise ValueError(
                f"correct_top1 {self.correct_top1}, correct_top5 {self.correct_top5} and "
                f"seen {self.seen}: expected them in rising order"
            )
        return self

    @property
    def loss(self) -> float:
        """Mean per sample."""
        return self.loss_sum / self.seen

    @property
    def interval_top1(self) -> tuple[float, float]:
        """Wilson's 95 % interval of accuracy@1, as shares."""
        return wilson_interval(self.correct_top1, self.seen)


class StageTime(_Record):
    """How long one stage of the pipeline took."""

    stage: str
    seconds: float


class _Line(BaseModel):
    # The log may say more than the report reads; a value that wasn't measured may be missing.
    model_config = ConfigDict(frozen=True, extra="ignore")


class StartLine(_Line):
    """The training starts, or goes on after `step` steps."""

    step: Whole
    jit_level: str | None = None


class StepLine(_Line):
    """Progress after `step` steps."""

    step: Whole
    epoch: Whole
    loss: float | None = None
    lr: float | None = None


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


class TrainedRun(_Record):
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
    evaluation: EvaluationCounts
    log: tuple[dict[str, Any], ...]
    """Lines of metrics.jsonl, parsed; lines of unknown types are ignored."""
    stages: tuple[StageTime, ...] = ()
    checkpoint_digest: str

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

    @cached_property
    def history(self) -> History:
        """The log without what a restart took back: steps after the checkpoint it began from."""
        starts: list[StartLine] = []
        steps: list[StepLine] = []
        epochs: list[EpochLine] = []
        end = EndLine()
        for line in self.log:
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
