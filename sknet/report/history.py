"""A run's metrics.jsonl: the lines that led to its final weights."""

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

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
