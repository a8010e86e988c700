"""Programs of sknet as supervised jobs on this host, their lines in the flow's log."""

import json
import re
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from prefect import get_run_logger

import sknet
from infra.launch import Job, JobStatus, run
from sknet.errors import NonFiniteLossError, UserError
from tasks.stages import JobFailedError, LostWorkerError

# Longer than start-up, graph compilation and an evaluation on a loaded machine take together.
SILENCE_SECONDS = 1800
# Of MindSpore itself, for its developers; errors and warnings pass, and the rank logs keep all.
FRAMEWORK_LINE = re.compile(r"\[rank \d+\] \[INFO\] ")


def run_program(
    module: str,
    options: Mapping[str, object],
    *,
    workers: int,
    workspace: Path,
    log_name: str,
    after_line: Callable[[], None] = lambda: None,
) -> None:
    """Run `sknet/<module>.py` with `--key value` options under the supervisor.

    `after_line` is called for each line that the program prints, in this thread.
    Raises UserError, NonFiniteLossError, LostWorkerError or JobFailedError by the way it ended.
    """
    logger = get_run_logger()
    scratch = workspace / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    outcome = workspace / f"{log_name}-outcome.json"
    arguments = [f"--{key}={value}" for key, value in options.items()]

    def relay(line: str) -> None:
        if not FRAMEWORK_LINE.match(line):
            logger.info("%s", line)
            after_line()

    result = run(
        Job(
            program=Path(sknet.__file__).with_name(f"{module}.py"),
            args=(*arguments, f"--outcome_file={outcome}"),
            workers=workers,
            log_dir=workspace / "logs" / f"{log_name}-{uuid.uuid4().hex[:8]}",
            outcome_file=outcome,
            cwd=scratch,
            env={
                "PREFECT_PLUGINS_ENABLED": "false",
            },
            deadline=None,
            silence=SILENCE_SECONDS,
        ),
        on_line=relay,
    )
    match result.status:
        case JobStatus.DONE:
            return
        case JobStatus.USER_ERROR:
            raise UserError(result.message)
        case JobStatus.NON_FINITE:
            raise NonFiniteLossError(result.message)
        case JobStatus.LOST_WORKER:
            raise LostWorkerError(result.message)
        case _:
            raise JobFailedError(result.message)


def write_recipe(values: Mapping[str, object], workspace: Path) -> Path:
    """The resolved recipe as a file for a program; JSON is YAML."""
    path = workspace / "recipe.yaml"
    path.write_text(json.dumps(values, indent=1), "utf-8")
    return path
