"""Programs of sknet as supervised jobs on one host or several, their lines in the flow's log."""

import json
import re
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Self, cast
from uuid import UUID

import httpx
from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from pydantic import BaseModel, ConfigDict, Field, model_validator

import sknet
from infra.launch import Job, JobResult, Outcome, run
from infra.launch.cluster import ClusterError, LostHostError
from infra.launch.environment import seconds
from infra.launch.gang import Gang, run_on_hosts
from sknet.errors import DiskFullError, NonFiniteLossError, UserError
from sknet.recipe import Recipe
from tasks.results import JobFailedError, JobStoppedError, LostWorkerError, OutOfMemoryError


class LaunchSettings(BaseModel):
    """What a user may choose about the hosts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    launcher: Annotated[str, Field(pattern=r"^(local|ray:auto|ray://.+)$")] = "local"
    """`local`, or a running Ray cluster: `ray:auto`, `ray://HOST:PORT`."""
    hosts: Annotated[int, Field(ge=1)] = 1
    """Of the training, each with an equal share of its workers."""
    wait_for_hosts: Annotated[float, Field(ge=0)] = 60.0
    """Seconds until training starts, or goes on, with fewer hosts than that."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.launcher == "local" and self.hosts > 1:
            raise ValueError("several hosts need a launcher: ray:auto or ray://HOST:PORT")
        return self

    @property
    def is_local(self) -> bool:
        """Whether this host does it all."""
        return self.launcher == "local"

    @property
    def ray_address(self) -> str:
        """As Ray takes it."""
        return "auto" if self.launcher == "ray:auto" else self.launcher


def gang_of(
    settings: LaunchSettings, recipe: Recipe, num_workers: int, device_target: str
) -> Gang | None:
    """The hosts for a training that is planned for `num_workers` ranks; None: this one.

    Raises UserError if the ranks can't be shared equally among the hosts.
    """
    if settings.is_local:
        return None
    if num_workers % settings.hosts:
        raise UserError(
            f"{num_workers} workers can't be shared equally among {settings.hosts} hosts: "
            "choose a multiple"
        )
    global_batch = recipe.global_batch(num_workers)
    return Gang(
        address=settings.ray_address,
        hosts=settings.hosts,
        slots=num_workers // settings.hosts,
        resource="NPU" if device_target == "Ascend" else "CPU",
        usable=partial(recipe.can_share, global_batch),
        wait=settings.wait_for_hosts,
    )


# Longer than start-up, graph compilation and an evaluation on a loaded machine take together.
SILENCE_SECONDS = 1800

# What a program's user can lower when its memory is too small.
LESS_MEMORY = {
    "convert": "fewer workers",
    "train": "a smaller batch_size, fewer num_parallel_workers, or more hosts",
    "validate": "a smaller batch_size, fewer num_parallel_workers",
}

# Of MindSpore itself, for its developers; errors and warnings pass, and the rank logs keep all.
FRAMEWORK_LINE = re.compile(r"(?:\[[^]]*\] )?\[rank \d+\] \[INFO\] ")


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """How many processes run a program, and where."""

    workers: int = 1
    bind_core: bool = False
    """To each its own cores, as Ascend wants it."""
    gang: Gang | None = None
    """The hosts; None: this one."""


ALONE = Ranks()


def run_program(
    module: str,
    options: Mapping[str, object],
    *,
    workspace: Path,
    log_name: str,
    ranks: Ranks = ALONE,
    after_line: Callable[[str], None] = lambda _line: None,
) -> None:
    """Run `sknet/<module>.py` with `--key value` options under the supervisor.

    `after_line` is called with each line that the program prints, in this thread. Raises
    UserError, NonFiniteLossError, LostWorkerError, OutOfMemoryError, DiskFullError,
    JobStoppedError or JobFailedError by the way it ended.
    """
    logger = get_run_logger()
    scratch = workspace / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    outcome = workspace / f"{log_name}-outcome.json"
    arguments = [f"--{key}={value}" for key, value in options.items()]

    def relay(line: str) -> None:
        if not FRAMEWORK_LINE.match(line):
            logger.info("%s", line)
            after_line(line)

    job = Job(
        program=Path(sknet.__file__).with_name(f"{module}.py"),
        args=(*arguments, f"--outcome_file={outcome}"),
        workers=ranks.workers,
        log_dir=workspace / "logs" / f"{log_name}-{uuid.uuid4().hex[:8]}",
        outcome_file=outcome,
        cwd=scratch,
        env={"PREFECT_PLUGINS_ENABLED": "false"},
        deadline=None,
        silence=SILENCE_SECONDS,
        grace=seconds("stop_grace"),
        bind_core=ranks.bind_core,
    )
    raise_unless_done(_run(job, ranks.gang, relay), module)


def _run(job: Job, gang: Gang | None, relay: Callable[[str], None]) -> JobResult:
    if gang is None:
        return run(job, on_line=relay)
    try:
        return run_on_hosts(job, gang, on_line=relay)
    except ClusterError as error:
        raise UserError(str(error)) from None
    except LostHostError as error:
        raise LostWorkerError(str(error)) from None


def raise_unless_done(result: JobResult, module: str) -> None:
    """Raise what `run_program` promises for a job that ended otherwise than well."""
    match result.status:
        case Outcome.DONE:
            return
        case Outcome.USER_ERROR:
            raise UserError(result.message)
        case Outcome.NON_FINITE:
            raise NonFiniteLossError(result.message)
        case Outcome.LOST_WORKER:
            raise LostWorkerError(result.message)
        case Outcome.OUT_OF_MEMORY:
            figures, _, details = result.message.partition("\n")
            raise OutOfMemoryError(
                f"{figures}; it takes less with {LESS_MEMORY[module]}\n{details}"
            )
        case Outcome.DISK_FULL:
            raise DiskFullError(result.message)
        case Outcome.STOPPED:
            raise JobStoppedError(result.message)
        case Outcome.FAILED:
            raise JobFailedError(result.message)


def write_recipe(values: Mapping[str, object], workspace: Path) -> Path:
    """The resolved recipe as a file for a program; JSON is YAML."""
    path = workspace / "recipe.yaml"
    path.write_text(json.dumps(values, indent=1), "utf-8")
    return path


# Prefect's client tries for minutes to reach a server that is gone, and the work waits meanwhile.
SECONDS_WITHOUT = 600.0

SECONDS_BETWEEN = 5.0
"""Prefect's pages look less often; a step costs 8 ms of the flow's process."""


class ProgressArtifact:
    """Of the task that runs; made with its first update. Needs no server to go on working."""

    def __init__(self, key: str, description: str) -> None:
        self._key = key
        self._description = description
        self._artifact: UUID | None = None
        self._percent = -1.0
        self._not_before = 0.0
        self._without = False

    def update(self, share: float) -> None:
        """0 … 1."""
        percent = round(100 * share, 1)
        now = time.monotonic()
        if percent == self._percent or (now < self._not_before and not self._is_last(percent)):
            return
        try:
            if self._artifact is None:
                self._artifact = cast(
                    "UUID",  # and no coroutine, in a task that is none
                    create_progress_artifact(percent, key=self._key, description=self._description),
                )
            else:
                update_progress_artifact(self._artifact, percent)
        except httpx.HTTPError as error:
            get_run_logger().warning("progress is not shown for a while: %s", error)
            self._without, self._not_before = True, now + SECONDS_WITHOUT
            return
        self._percent, self._without = percent, False
        self._not_before = now + SECONDS_BETWEEN

    def _is_last(self, percent: float) -> bool:
        """Whether it says that all is done, which is shown at once unless the server is gone."""
        return percent == 100 and not self._without
