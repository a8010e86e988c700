"""Programs of sknet as supervised jobs, on one host or several; their output is logged."""

import logging
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Annotated, Literal, Self, cast
from uuid import UUID

import httpx
from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from pydantic import BaseModel, ConfigDict, Field, model_validator

import sknet
from infra.base.console import FRAMES_PER_SECOND, console
from infra.base.outcomes import read_outcome
from infra.base.progress import Progress
from infra.launch import Job, JobResult, Outcome, Preparation, run
from infra.launch.cluster import ClusterError, LostHostError, connect
from infra.launch.environment import seconds
from infra.launch.gang import Gang, run_on_hosts
from sknet.device import Cards, Device, Target, choose_device, find_cards
from sknet.errors import DiskFullError, NonFiniteLossError, UserError
from sknet.progress import STILL, read_progress
from sknet.recipe import Recipe
from tasks.errors import JobFailedError, JobStoppedError, LostWorkerError, OutOfMemoryError

SILENCE_SECONDS = 1800
"""Seconds without a line until a job counts as hung: more than start-up, graph compilation and an
evaluation take together on a loaded machine."""

SECONDS_BETWEEN_UPDATES = 5.0
"""Seconds between two updates of a progress bar: Prefect's pages look less often, and an update
costs 8 ms of the flow's process."""

SECONDS_WITHOUT_SERVER = 600.0
"""Seconds without updates after one that failed: Prefect's client tries for minutes to reach a
server that is gone, and the work waits meanwhile."""

CLUSTER_POLL_SECONDS = 0.5
"""Seconds between two looks at the hosts of a cluster."""

SHOWN_OTHERWISE = "shown_otherwise"
"""Attribute of the log's records that a command shows by other means: progress, which its console
draws, and what its summary says."""

LESS_MEMORY = {
    "convert": "fewer workers",
    "train": "a smaller batch_size, fewer num_parallel_workers, or more hosts",
    "validate": "a smaller batch_size, fewer num_parallel_workers",
}
"""Program → what its user can choose so that it needs less memory."""

# MindSpore's own INFO lines, which are for its developers. The rank logs have them all.
FRAMEWORK_LINE = re.compile(r"(?:\[[^]]*\] )?\[rank \d+\] \[INFO\] ")


class LaunchSettings(BaseModel):
    """The user's choices about hosts."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    launcher: Literal["local", "ray:auto"] | Annotated[str, Field(pattern="^ray://.+")] = "local"
    """`local`, or a running Ray cluster: `ray:auto` or `ray://HOST:PORT`."""
    hosts: Annotated[int, Field(ge=1)] = 1
    """Number of hosts that train. Each runs an equal part of the workers."""
    wait_for_hosts: Annotated[float, Field(ge=0)] = 60.0
    """Seconds to wait for that many hosts before training starts, or resumes, with fewer."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.launcher == "local" and self.hosts > 1:
            raise ValueError("several hosts need a launcher: ray:auto or ray://HOST:PORT")
        return self

    @property
    def is_local(self) -> bool:
        """Whether everything runs on this host."""
        return self.launcher == "local"

    @property
    def ray_address(self) -> str:
        """The cluster's address as Ray takes it."""
        return "auto" if self.launcher == "ray:auto" else self.launcher


THIS_HOST = LaunchSettings()


def device_of(settings: LaunchSettings, recipe: Recipe, option: str | None) -> Device:
    """Return the device of a training: of this host, or of the cluster's hosts.

    Args:
        settings: The hosts.
        recipe: Says the device, if the option doesn't.
        option: auto, CPU or Ascend, if given.

    Raises:
        UserError: The option is Ascend, but this host, which trains, has no card; or the cluster
            can't be reached.
    """
    if not settings.is_local:
        return choose_device(option, recipe, partial(cards_of_cluster, settings))
    cards = find_cards()
    if option == "Ascend" and not cards.number:
        raise UserError(
            f"--device_target is Ascend, but this machine has {cards.said}: use CPU or auto"
        )
    # With cards, auto is Ascend, or says that the driver is missing.
    return choose_device("auto" if option == "Ascend" else option, recipe, lambda: cards)


def cards_of_cluster(settings: LaunchSettings) -> Cards:
    """Return the Ascend cards that the hosts of a Ray cluster offer as its resource NPU.

    While none is offered, waits for as many hosts as are to train, so that hosts that are starting
    don't make it a training on CPU.

    Raises:
        UserError: There is no cluster at the address.
    """
    try:
        ray = connect(settings.ray_address)
    except ClusterError as error:
        raise UserError(str(error)) from None
    last = time.monotonic() + settings.wait_for_hosts
    try:
        while (
            not (number := int(ray.cluster_resources().get("NPU", 0)))
            and num_working_hosts(ray) < settings.hosts
            and time.monotonic() < last
        ):
            time.sleep(CLUSTER_POLL_SECONDS)
    finally:
        ray.shutdown()
    return Cards(number, f"{number or 'no'} NPU in the Ray cluster")


def num_working_hosts(ray: ModuleType) -> int:
    """Return the number of hosts of a Ray cluster that offer CPUs or NPUs; a head may not."""
    hosts = (host["Resources"] for host in ray.nodes() if host["Alive"])
    return sum(bool(offered.get("CPU") or offered.get("NPU")) for offered in hosts)


def chosen_device(settings: LaunchSettings, recipe: Recipe, option: str | None) -> Target:
    """Return the device of a training as `device_of` does, and log which it is, and why."""
    device = device_of(settings, recipe, option)
    level = logging.WARNING if device.is_replacement else logging.INFO
    get_run_logger().log(level, "%s", device)
    return device.target


def device_here(device_target: str, warn: Callable[[str], object] | None = None) -> str:
    """Return the device on which this host evaluates: CPU, with a warning, if it has no card.

    The checkpoint may come from hosts that have cards.

    Args:
        device_target: The device of the training.
        warn: Called with the warning; None: it goes into the log of the task.
    """
    if device_target == "Ascend" and not (cards := find_cards()).number:
        warn = warn or get_run_logger().warning
        warn(f"evaluating on CPU, because this machine has {cards.said}")
        return "CPU"
    return device_target


def gang_of(
    settings: LaunchSettings, recipe: Recipe, num_workers: int, device_target: str
) -> Gang | None:
    """Return the hosts of a training that is planned for `num_workers` ranks; None: this host.

    Raises:
        UserError: The hosts can't share the ranks equally.
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
        usable=partial(recipe.can_divide, global_batch),
        wait=settings.wait_for_hosts,
    )


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """The processes that run a program."""

    workers: int = 1
    """Number of ranks on this host, if there is no gang."""
    bind_core: bool = False
    """Whether each rank gets processor cores of its own, as Ascend needs it."""
    gang: Gang | None = None
    """The hosts; None: this host."""


ONE_RANK = Ranks()


class ProgressBar:
    """A progress bar on the Prefect page of the running task, made with its first update.

    The work continues if the server can't be reached.
    """

    def __init__(self, key: str, description: str, *, phase: str = "") -> None:
        """Make a bar.

        Args:
            key: Prefect's key of the bar.
            description: What the fraction is of.
            phase: The phase of a program that it shows, of those that the program reports.
        """
        self.phase = phase
        self._key = key
        self._description = description
        self._artifact: UUID | None = None
        self._percent = -1.0
        self._not_before = 0.0
        self._server_is_gone = False

    def update(self, fraction: float) -> None:
        """Show a fraction from 0 to 1, unless the last update was a moment ago."""
        percent = round(100 * fraction, 1)
        now = time.monotonic()
        # The end is shown at once, unless the server is gone.
        is_end = percent == 100 and not self._server_is_gone
        if percent == self._percent or (now < self._not_before and not is_end):
            return
        try:
            if self._artifact is None:
                self._artifact = cast(
                    "UUID",  # a coroutine only where an event loop runs, which no task here has
                    create_progress_artifact(percent, key=self._key, description=self._description),
                )
            else:
                update_progress_artifact(self._artifact, percent)
        except httpx.HTTPError as error:
            get_run_logger().warning(
                "progress is not shown for %.0f s: %s", SECONDS_WITHOUT_SERVER, error
            )
            self._server_is_gone, self._not_before = True, now + SECONDS_WITHOUT_SERVER
            return
        self._percent, self._server_is_gone = percent, False
        self._not_before = now + SECONDS_BETWEEN_UPDATES


def _is_outcome(line: str, outcome_file: Path) -> bool:
    """Tell whether a program's line is the error with which the task ends, and says it itself."""
    if "error: " not in line:
        return False
    outcome = read_outcome(outcome_file)
    return outcome is not None and line.endswith(f"error: {outcome.message}")


@contextmanager
def _shown(progress_file: Path) -> Iterator[Callable[[], Progress]]:
    """Show on the console what a program writes into a file; yield what tells the newest of it."""
    ended, shown = threading.Event(), Progress()

    def follow() -> None:
        nonlocal shown
        while not ended.wait(1 / FRAMES_PER_SECOND):
            if (known := read_progress(progress_file)) is not None and known != shown:
                shown = known
                console().show(known)

    thread = threading.Thread(target=follow, name="progress", daemon=True)
    thread.start()
    try:
        yield lambda: shown
    finally:
        ended.set()
        thread.join()


def run_program(
    module: str,
    options: Mapping[str, object],
    *,
    workspace: Path,
    ranks: Ranks = ONE_RANK,
    prepare: Preparation | None = None,
    bar: ProgressBar | None = None,
) -> None:
    """Run a program of sknet under the supervisor, and log the lines that it prints.

    Args:
        module: Name of the program: `sknet/<module>.py`.
        options: Its options, without the leading dashes.
        workspace: Directory for its logs and for the files by which it reports.
        ranks: The processes that run it.
        prepare: Prepares the hosts, each in a directory of its own; this host in the workspace.
        bar: Shows on Prefect's page how far the program is; the console shows it in any case.

    Raises:
        UserError: The program refused its input, a host refused it, or the cluster can't run it.
        NonFiniteLossError: The loss became NaN or infinite.
        LostWorkerError: A rank or a host was lost; OutOfMemoryError if the kernel killed it.
        DiskFullError: The disk is full.
        JobStoppedError: The program was asked to stop, and did.
        JobFailedError: The program ended with another error.
    """
    logger = get_run_logger()
    scratch = workspace / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    outcome_file = workspace / f"{module}-outcome.json"
    progress_file = workspace / f"{module}-progress"
    progress_file.unlink(missing_ok=True)
    arguments = [f"--{key}={value}" for key, value in options.items()]

    job = Job(
        program=Path(sknet.__file__).with_name(f"{module}.py"),
        args=(
            *arguments,
            f"--progress_file={progress_file}",
            f"--outcome_file={outcome_file}",
        ),
        workers=ranks.workers,
        log_dir=workspace / "logs" / f"{module}-{uuid.uuid4().hex[:8]}",
        outcome_file=outcome_file,
        progress_file=progress_file,
        cwd=scratch,
        env={"PREFECT_PLUGINS_ENABLED": "false"},
        deadline=None,
        silence=SILENCE_SECONDS,
        grace=seconds("stop_grace"),
        bind_core=ranks.bind_core,
    )
    number = ranks.workers if ranks.gang is None else ranks.gang.hosts * ranks.gang.slots
    console().show(Progress(phase=f"starting {number} process{'es' if number > 1 else ''}"))
    try:
        with _shown(progress_file) as shown:

            def on_line(line: str) -> None:
                if not FRAMEWORK_LINE.match(line) and not _is_outcome(line, outcome_file):
                    logger.info("%s", line, extra={SHOWN_OTHERWISE: line.endswith(STILL)})
                known = shown()
                if bar and known.phase == bar.phase and known.fraction is not None:
                    bar.update(known.fraction)

            if ranks.gang is None:
                result = _run_here(job, prepare, workspace, on_line)
            else:
                result = run_on_hosts(job, ranks.gang, on_line=on_line, prepare=prepare)
    except ClusterError as error:
        raise UserError(str(error)) from None
    except LostHostError as error:
        raise LostWorkerError(str(error)) from None
    raise_unless_done(result, module)
    if bar:
        bar.update(1.0)  # its last line may have come before its last report


def _run_here(
    job: Job, prepare: Preparation | None, workspace: Path, on_line: Callable[[str], None]
) -> JobResult:
    """Run a job on this host, once it is prepared.

    Raises:
        Exception: The ranks have ended because what served them has failed.
    """
    if prepare is None:
        return run(job, on_line=on_line)
    with prepare(workspace, 0) as prepared:
        result = run(job.with_options(prepared.options), on_line=on_line)
        if cause := prepared.cause(result):
            raise cause
        return result


def raise_unless_done(result: JobResult, module: str) -> None:
    """Raise the error that `run_program` documents for a job that didn't end as done."""
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
