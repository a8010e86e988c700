"""Programs of sknet as supervised jobs on one host or several, their lines in the flow's log."""

import json
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from prefect import get_run_logger

import sknet
from infra.launch import Job, JobResult, JobStatus, run
from infra.launch.cluster import ClusterError, LostHostError
from infra.launch.gang import Gang, run_on_hosts
from infra.launch.timeouts import seconds
from sknet.errors import DiskFullError, NonFiniteLossError, UserError
from tasks.results import JobFailedError, JobStoppedError, LostWorkerError, OutOfMemoryError

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
        case JobStatus.DONE:
            return
        case JobStatus.USER_ERROR:
            raise UserError(result.message)
        case JobStatus.NON_FINITE:
            raise NonFiniteLossError(result.message)
        case JobStatus.LOST_WORKER:
            raise LostWorkerError(result.message)
        case JobStatus.OUT_OF_MEMORY:
            figures, _, details = result.message.partition("\n")
            raise OutOfMemoryError(
                f"{figures}; it takes less with {LESS_MEMORY[module]}\n{details}"
            )
        case JobStatus.DISK_FULL:
            raise DiskFullError(result.message)
        case JobStatus.STOPPED:
            raise JobStoppedError(result.message)
        case JobStatus.FAILED:
            raise JobFailedError(result.message)


def write_recipe(values: Mapping[str, object], workspace: Path) -> Path:
    """The resolved recipe as a file for a program; JSON is YAML."""
    path = workspace / "recipe.yaml"
    path.write_text(json.dumps(values, indent=1), "utf-8")
    return path
