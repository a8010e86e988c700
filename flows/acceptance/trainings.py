"""Trainings that the acceptance measures: started, killed or stopped at a step, started again.

A training that went as planned is kept in its directory, and not run again as long as nothing that
it depends on changes. An interrupted one starts from the beginning.
"""

import json
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import psutil

import sknet
from infra.base.files import cache_directory, file_sha256, replace_file
from infra.base.outcomes import UserError
from infra.base.records import Record, Sha256
from infra.launch import Job, JobResult, Outcome, run
from infra.launch.cluster import ClusterError, LostHostError
from infra.launch.gang import Gang, run_on_hosts
from sknet.recipe import load_recipe
from sknet.records.training import METRICS_FILE, MODEL_FILE
from tasks.programs import SILENCE_SECONDS, LaunchSettings, gang_of

RAY = "ray:auto"
"""The cluster that runs trainings on several hosts."""

RECORD = "training.json"

MARK = "ACCEPTANCE_OUTCOME"
"""Variable that all processes of a program's run inherit: the file of its outcome."""

LOOK_SECONDS = 0.1
"""Pause between two looks at the metrics of a training that is to be interrupted."""

LEAVE_SECONDS = 2.0
"""How long processes may take to leave after a job has ended."""

_CHECKPOINT = re.compile(r"step-(\d+)")
# The last line of a traceback, in the tail of a rank's log.
_ERROR = re.compile(r"^(?:\[rank \d+\] )?([A-Za-z_.]+(?:Error|Exception): .+)$", re.MULTILINE)
# What a rank prints when it was asked to stop.
_STOPPED = re.compile(r"^stopped: after step (\d+) ", re.MULTILINE)


class LineError(Exception):
    """A line can't be measured, so it fails; `log` is the file or directory to look at."""

    def __init__(self, reason: str, log: Path | None = None) -> None:
        super().__init__(reason)
        self.log = log


class Start(Record):
    """One start of a training, and what happens to it."""

    action: Literal["stop", "kill"] | None
    """SIGUSR1 to the launcher, or SIGKILL to the last rank; None: it is left alone."""
    at_step: int
    """Number of steps done and logged after which that happens."""
    ends: Outcome
    """How the start is expected to end."""


class Training(Record):
    """A training as it is planned."""

    name: str
    """Name of its directory: the line that it belongs to, and its own."""
    recipe: str
    overrides: tuple[str, ...]
    """Changes of the recipe, as for `--set`."""
    device_target: str
    cards: int
    """Ranks on each host."""
    hosts: int = 1
    bind_core: bool
    starts: tuple[Start, ...]
    compiles: bool = False
    """Whether the first start has to compile, because its time is measured."""


class StepFigures(Record):
    """A `step` line of metrics.jsonl; the times are over the steps since the line before."""

    step: int
    loss: float
    ms_per_step: float | None = None
    ms_per_step_p50: float | None = None
    images_per_second: float | None = None
    data_wait_share: float | None = None


class StartReport(Record):
    """What happened in one start."""

    outcome: Outcome
    message: str
    end_seconds: float | None
    """Seconds from the action until the job had ended; None without one."""
    processes_left: int | None
    """On this host; None if several hosts trained."""
    first_step: int | None
    """Number of steps done when it started; None if it never got that far."""
    world_size: int | None
    compile_seconds: float | None
    steps: tuple[StepFigures, ...]
    stopped_after: tuple[int, ...]
    """The last step that each rank named when it stopped."""
    last_checkpoint: int | None
    """Step of the newest checkpoint when it had ended."""


class TrainingReport(Record):
    """What happened in all starts of a training."""

    training: Training
    inputs: dict[str, str]
    """What it depends on beside its own plan."""
    starts: tuple[StartReport, ...]
    checkpoints: dict[int, Sha256]
    """SHA-256 of the weights by step, of all checkpoints that it ever had."""


class Trainings:
    """Runs trainings in a directory of their own each."""

    def __init__(self, directory: Path, say: Callable[[str], None]) -> None:
        """Keep all trainings below `directory`; `say` prints a line about one that starts."""
        self._directory, self._say = directory, say
        self._failed: dict[str, LineError] = {}

    def report(self, training: Training, shards: Path, inputs: Mapping[str, str]) -> TrainingReport:
        """Return what happened in a training, which is run if it wasn't yet.

        Args:
            training: The plan.
            shards: Directory of the data.
            inputs: What it depends on beside its plan.

        Raises:
            LineError: A start ended otherwise than planned. It isn't run again by this process.
            KeyboardInterrupt: This process was asked to stop.
        """
        directory = self._directory / training.name
        record = directory / RECORD
        with suppress(UserError):
            kept = TrainingReport.read(record)
            if kept.training == training and kept.inputs == dict(inputs):
                return kept
        if training.name in self._failed:
            raise self._failed[training.name]
        try:
            report = self._run(training, shards, inputs, directory)
        except LineError as error:
            self._failed[training.name] = error
            raise
        replace_file(record, report.encode(), durable=True)
        return report

    def clear(self, line: str) -> None:
        """Delete what a line has left, but for trainings that went as planned."""
        for path in (self._directory / line).glob("*"):
            if not path.is_dir():
                path.unlink()
            elif not (path / RECORD).exists():
                shutil.rmtree(path)

    def _run(
        self, training: Training, shards: Path, inputs: Mapping[str, str], directory: Path
    ) -> TrainingReport:
        shutil.rmtree(directory, ignore_errors=True)
        if training.compiles:
            shutil.rmtree(cache_directory("compiled"), ignore_errors=True)
        reports: list[StartReport] = []
        checkpoints: dict[int, str] = {}
        for number, start in enumerate(training.starts, 1):
            self._say(f"training {training.name}, start {number} of {len(training.starts)}")
            report = _run_start(training, start, number, shards, directory)
            reports.append(report)
            checkpoints |= _checkpoints(directory / "ckpt")
            if report.outcome is not start.ends:
                raise LineError(
                    f"start {number} of training {training.name} ended as {report.outcome}, "
                    f"expected {start.ends}: {_reason(report.message)}",
                    _log_of(report.message, logs_of(directory, number)),
                )
        return TrainingReport(
            training=training, inputs=dict(inputs), starts=tuple(reports), checkpoints=checkpoints
        )


def run_program(
    program: str,
    options: Mapping[str, object],
    directory: Path,
    *,
    number: int = 1,
    workers: int = 1,
    bind_core: bool = False,
    gang: Gang | None = None,
) -> JobResult:
    """Run a program of sknet with the launcher to its end, and return how it ended.

    Args:
        program: Name of the program: `sknet/<program>.py`.
        options: Its options, without the leading dashes; a tuple gives an option several times.
        directory: Where its logs, its outcome and its scratch files are.
        number: Number of this run in the directory.
        workers: Ranks on this host, if there is no gang.
        bind_core: Whether each rank gets processor cores of its own.
        gang: The hosts; None: this host.

    Raises:
        LineError: There is no such cluster, or too few of its hosts are free.
    """
    scratch, logs = directory / "scratch", logs_of(directory, number)
    scratch.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(logs, ignore_errors=True)
    outcome_file = _outcome_of(directory, number)
    words = [
        f"--{name}={value}"
        for name, given in options.items()
        for value in (given if isinstance(given, tuple) else (given,))
    ]
    job = Job(
        program=Path(sknet.__file__).with_name(f"{program}.py"),
        args=(*words, f"--outcome_file={outcome_file}"),
        workers=workers,
        log_dir=logs,
        outcome_file=outcome_file,
        cwd=scratch,
        env={
            MARK: str(outcome_file),
            **{name: os.environ[name] for name in ("SKNET_CACHE",) if name in os.environ},
        },
        deadline=None,
        silence=SILENCE_SECONDS,
        bind_core=bind_core,
    )
    if gang is None:
        return run(job, on_line=_ignore)
    try:
        return run_on_hosts(job, gang, on_line=_ignore)
    except (ClusterError, LostHostError) as error:
        raise LineError(str(error), logs) from None


def _ignore(_line: str) -> None:
    """Do nothing with a line that a rank prints: its log has it."""


def logs_of(directory: Path, number: int = 1) -> Path:
    """Return the directory of the logs of a program's run."""
    return directory / f"logs-{number}"


def refuse_failed(result: JobResult, directory: Path, number: int = 1) -> None:
    """Check that a program ended well.

    Raises:
        LineError: It did not.
    """
    if result.status is not Outcome.DONE:
        logs = logs_of(directory, number)
        log = _log_of(result.message, logs)
        raise LineError(f"ended as {result.status}: {_reason(result.message)}", log)


class _Watcher:
    """Acts on a running training once it has logged a step, in a thread of its own."""

    def __init__(self, start: Start, number: int, metrics: Path, last_rank: int) -> None:
        self.acted_at: float | None = None
        self._start, self._number = start, number
        self._metrics, self._last_rank = metrics, last_rank
        self._ended = threading.Event()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch a training while the body runs it.

        Raises:
            LineError: The rank that was to be killed can't be found.
        """
        if self._start.action is None:
            yield
            return
        with ThreadPoolExecutor(1, "watcher") as pool:
            watching = pool.submit(self._watch)
            try:
                yield
            finally:
                self._ended.set()
            watching.result()

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            entries = _entries(self._metrics, self._number)
            steps = [entry["step"] for entry in entries if entry["type"] == "step"]
            if steps and steps[-1] >= self._start.at_step:
                self._act()
                return

    def _act(self) -> None:
        self.acted_at = time.monotonic()
        if self._start.action == "stop":
            os.kill(os.getpid(), signal.SIGUSR1)
        else:
            _rank_process(self._last_rank).kill()


def _run_start(
    training: Training, start: Start, number: int, shards: Path, directory: Path
) -> StartReport:
    metrics = directory / "ckpt" / METRICS_FILE
    watcher = _Watcher(start, number, metrics, training.cards - 1)
    options = {
        "config": training.recipe,
        "set": training.overrides,
        "data_dir": shards,
        "ckpt_save_dir": directory / "ckpt",
        "device_target": training.device_target,
    }
    with _own_sigusr1(), watcher.watching():
        result = run_program(
            "train",
            options,
            directory,
            number=number,
            workers=training.cards,
            bind_core=training.bind_core,
            gang=_gang(training),
        )
    ended_at = time.monotonic()
    if result.status is Outcome.STOPPED and watcher.acted_at is None:
        raise KeyboardInterrupt  # somebody sent SIGUSR1 to this process
    own = _entries(metrics, number)
    compiled = [entry["compile_seconds"] for entry in own if entry["type"] == "compile"]
    return StartReport(
        outcome=result.status,
        message=result.message,
        end_seconds=None if watcher.acted_at is None else ended_at - watcher.acted_at,
        processes_left=_count_left(directory, number) if training.hosts == 1 else None,
        first_step=own[0]["step"] if own else None,
        world_size=own[0]["world_size"] if own else None,
        compile_seconds=compiled[0] if compiled else None,
        steps=tuple(
            StepFigures(**{name: entry[name] for name in StepFigures.model_fields if name in entry})
            for entry in own
            if entry["type"] == "step"
        ),
        stopped_after=tuple(_last_steps(logs_of(directory, number))),
        last_checkpoint=max(_checkpoints(directory / "ckpt"), default=None),
    )


def _outcome_of(directory: Path, number: int) -> Path:
    return directory / f"outcome-{number}.json"


def _count_left(directory: Path, number: int) -> int:
    """Return how many processes of a program's run are still there, whoever is their parent."""
    outcome_file, left = str(_outcome_of(directory, number)), []
    for process in psutil.process_iter():
        # Those of other users are no ranks, and may not be looked at.
        with suppress(psutil.Error):
            is_named = any(outcome_file in word for word in process.cmdline())
            if is_named or process.environ().get(MARK) == outcome_file:
                left.append(process)
    return len(psutil.wait_procs(left, timeout=LEAVE_SECONDS)[1])


def _gang(training: Training) -> Gang | None:
    if training.hosts == 1:
        return None
    recipe = load_recipe(training.recipe, training.overrides, warn=lambda _: None)
    launch = LaunchSettings(launcher=RAY, hosts=training.hosts)
    return gang_of(launch, recipe, training.hosts * training.cards, training.device_target)


@contextmanager
def _own_sigusr1() -> Iterator[None]:
    """Let a SIGUSR1 that arrives just after a job has ended do nothing."""
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


def _rank_process(rank: int) -> psutil.Process:
    """Return the process of a rank below this one: by msrun's variables, or the only training."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            environment, words = process.environ(), process.cmdline()
            own_rank = int(environment.get("RANK_ID", 0))
            is_scheduler = environment.get("MS_ROLE") == "MS_SCHED"
            is_program = any(word.endswith("sknet/train.py") for word in words[1:2])
            if is_program and not is_scheduler and own_rank == rank:
                return process
    raise LineError(f"the process of rank {rank} can't be found")


def _entries(metrics: Path, number: int) -> list[dict[str, Any]]:
    """Return the complete lines of metrics.jsonl that a start has written; none if it hasn't yet.

    Until a start writes its first line, the file has those of the start before.
    """
    try:
        lines = metrics.read_bytes().splitlines(keepends=True)
    except OSError:
        return []
    entries = [json.loads(line) for line in lines if line.endswith(b"\n")]
    begun = [index for index, entry in enumerate(entries) if entry["type"] == "start"]
    return entries[begun[-1] :] if len(begun) == number else []


def _checkpoints(directory: Path) -> dict[int, str]:
    """Return the SHA-256 of the weights of each checkpoint, by step."""
    return {
        int(found[1]): file_sha256(path / MODEL_FILE)
        for path in directory.glob("step-*")
        if (found := _CHECKPOINT.fullmatch(path.name))
    }


def _last_steps(logs: Path) -> Iterator[int]:
    for path in sorted(logs.glob("worker_*.log")):
        yield from map(int, _STOPPED.findall(path.read_text("utf-8", "replace")))


def _log_of(message: str, logs: Path) -> Path:
    """Return the log of the rank that a message names first, or that of rank 0."""
    named = re.search(r"\brank (\d+)\b", message)
    log = logs / f"worker_{named[1] if named else 0}.log"
    return log if log.is_file() else logs


def _reason(message: str) -> str:
    """Return the first line of a job's message, and the error in the log's last lines below it."""
    first, _, tail = message.strip().partition("\n")
    errors = _ERROR.findall(tail)
    return f"{first.partition('; logs in ')[0]}: {errors[-1]}" if errors else first
