"""What the checks of the acceptance share: where they work, and the trainings that they measure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flows.acceptance.figures import Line, Setting
from flows.acceptance.lines import UNDISTURBED
from flows.acceptance.trainings import Start, Training, TrainingReport, Trainings, logs_of
from infra.base.files import file_sha256
from infra.base.outcomes import Outcome
from infra.doctor.ascend_tools import Ascend
from sknet.records.data import SHARDS_FILE

UNDISTURBED_LEVEL = "O2"
"""The published jit level, at which all lines train but the one that compares levels."""


@dataclass(frozen=True)
class Scale:
    """How long the trainings are, and what they train."""

    recipe: str
    overrides: tuple[str, ...]
    interval: int
    """Steps between two lines of metrics.jsonl; every second one ends with a checkpoint."""
    num_shards: int
    first_overrides: tuple[str, ...] = ()
    """Changes of the trainings whose first losses are compared."""


FULL = Scale("skresnet18_ascend", (), 200, 64)
MINIATURE = Scale(
    "skresnet18_digits",
    ("global_batch_size=null", "batch_size=8", f"jit_level={UNDISTURBED_LEVEL}"),
    2,
    2,
    # BatchNorm over eight values magnifies the rounding of float16 a hundred times.
    ("batch_size=32",),
)


@dataclass(frozen=True)
class Measured:
    """What a check found."""

    figures: Mapping[str, float | None]
    """By the names that `lines` has; None: can't be known."""
    log: Path
    """The file or directory to look at."""
    notes: str = ""
    """What helps to understand the figures."""


@dataclass
class Bench:
    """What the checks share."""

    setting: Setting
    data: str
    """The source of the data, as the user gave it."""
    directory: Path
    """Directory with one for each line; beside it are the shards, if they are converted."""
    ascend: Ascend | None
    """What was found of Ascend on this host; None on CPU."""
    inputs: Mapping[str, str]
    """What every line depends on."""
    trainings: Trainings
    failed: set[str] = field(default_factory=set)
    """Lines that failed."""

    @property
    def scale(self) -> Scale:
        """How long the trainings are."""
        return MINIATURE if self.setting.miniature else FULL

    @property
    def shards(self) -> Path:
        """Directory of the shards: what the user gave, or what was converted from it."""
        given = Path(self.data).absolute()
        return given if (given / SHARDS_FILE).is_file() else self.directory.parent / "shards"

    @property
    def training_inputs(self) -> dict[str, str]:
        """What trainings depend on: the list of shards has the SHA-256 of every file."""
        path = self.shards / SHARDS_FILE
        return {**self.inputs, "shards": file_sha256(path)[:16] if path.is_file() else ""}

    def inputs_of(self, line: Line) -> dict[str, str]:
        """Return what the result of a line depends on."""
        reads_data = line.needs or line.name == "data"
        inputs = self.training_inputs if reads_data else dict(self.inputs)
        return {**inputs, "hosts": str(self.setting.hosts)} if line.name == "hosts" else inputs

    def train(
        self,
        name: str,
        *starts: Start,
        overrides: tuple[str, ...] = (),
        device_target: str | None = None,
        cards: int | None = None,
        hosts: int = 1,
        bind_core: bool | None = None,
        compiles: bool = False,
    ) -> TrainingReport:
        """Return what happened in a training of the recipe.

        Args:
            name: The line and the training's own name, `line/name`.
            starts: What happens to each start.
            overrides: Changes of the recipe, as for `--set`.
            device_target: CPU or Ascend; None: what the acceptance runs on.
            cards: Ranks on each host; None: all.
            hosts: Number of hosts.
            bind_core: Whether ranks get cores of their own; None: on Ascend.
            compiles: Whether the first start has to compile.

        Raises:
            LineError: A start ended otherwise than planned.
        """
        scale, setting = self.scale, self.setting
        on_ascend = setting.device_target == "Ascend"
        plan = Training(
            name=name,
            recipe=scale.recipe,
            overrides=(
                *scale.overrides,
                f"log_interval={scale.interval}",
                f"checkpoint_every_steps={2 * scale.interval}",
                "keep_checkpoint_max=100",
                *overrides,
            ),
            device_target=device_target or setting.device_target,
            cards=cards or setting.cards,
            hosts=hosts,
            bind_core=on_ascend if bind_core is None else bind_core,
            starts=starts,
            compiles=compiles,
        )
        return self.trainings.report(plan, self.shards, self.training_inputs)

    def stop(self, intervals: int) -> Start:
        """Return a start that is stopped after so many lines of metrics.jsonl."""
        return Start(action="stop", at_step=intervals * self.scale.interval, ends=Outcome.STOPPED)

    def kill(self, intervals: int) -> Start:
        """Return a start whose last rank is killed."""
        return Start(
            action="kill", at_step=intervals * self.scale.interval, ends=Outcome.LOST_WORKER
        )

    def undisturbed(self) -> TrainingReport:
        """Return the training with which others are compared.

        It stops after its second checkpoint, and its second start trains a little further.
        """
        return self.train(UNDISTURBED, self.stop(4), self.stop(5), compiles=True)

    def log(self, training: str, start: int = 1) -> Path:
        """Return the log of rank 0 of a start."""
        return logs_of(self.directory / training, start) / "worker_0.log"
