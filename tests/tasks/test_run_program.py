"""Programs as supervised jobs: their hosts, their progress, and the error for each outcome."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest
from prefect import flow, runtime

import tasks.programs
from infra.base.console import Console, opened
from infra.base.progress import Progress
from infra.launch import Job, JobResult, Outcome, PreparedHost
from sknet.errors import DiskFullError, NonFiniteLossError, UserError
from sknet.progress import write_progress
from sknet.recipe import load_recipe
from tasks.errors import JobFailedError, JobStoppedError, LostWorkerError, OutOfMemoryError
from tasks.programs import (
    LESS_MEMORY,
    LaunchSettings,
    ProgressBar,
    gang_of,
    raise_unless_done,
    run_program,
)
from tasks.train import about_order
from tests.tiny_pipeline import shown_by
from tests.waiting import wait_for


def job_result(status: Outcome, message: str) -> JobResult:
    return JobResult(status=status, message=message, return_code=1, seconds=1.0, log_tail=())


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (Outcome.USER_ERROR, UserError),
        (Outcome.NON_FINITE, NonFiniteLossError),
        (Outcome.LOST_WORKER, LostWorkerError),
        (Outcome.DISK_FULL, DiskFullError),
        (Outcome.STOPPED, JobStoppedError),
        (Outcome.FAILED, JobFailedError),
    ],
)
def test_each_outcome_has_its_error(status: Outcome, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        raise_unless_done(job_result(status, "why"), "train")
    assert (type(caught.value), str(caught.value)) == (error, "why")
    raise_unless_done(job_result(Outcome.DONE, ""), "train")


@pytest.mark.parametrize("program", LESS_MEMORY)
def test_a_lack_of_memory_names_what_to_lower(program: str) -> None:
    message = "out of memory on one: limit: 300 MB\nexit code 137, logs in there"
    with pytest.raises(OutOfMemoryError) as caught:
        raise_unless_done(job_result(Outcome.OUT_OF_MEMORY, message), program)
    figures, details = str(caught.value).splitlines()
    assert figures == (
        f"out of memory on one: limit: 300 MB; it takes less with {LESS_MEMORY[program]}"
    )
    assert details == "exit code 137, logs in there"


class RecordedBar(ProgressBar):
    """A progress bar that no page shows."""

    def __init__(self) -> None:
        super().__init__("work", "Fraction of the work", phase="working")
        self.fractions: list[float] = []

    def update(self, fraction: float) -> None:
        self.fractions.append(fraction)


def test_the_bar_follows_the_programs_progress_file_and_the_log_its_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def run(job: Job, *, on_line: Callable[[str], None]) -> JobResult:
        (option,) = [word for word in job.args if word.startswith("--progress_file=")]
        progress_file = Path(option.partition("=")[2])
        assert not progress_file.exists(), "an earlier attempt's progress was left"
        on_line("starting")
        for line, progress in (
            ("compared", Progress(phase="comparing shards", fraction=1.0)),
            ("at 0.25", Progress(phase="working", fraction=0.25)),
            ("at 0.5", Progress(phase="working", fraction=0.5)),
        ):
            write_progress(progress_file, progress)
            wait_for(lambda on_console=progress: shown._progress == on_console, pause=0.01)
            on_line(line)
        on_line("[rank 0] [INFO] of MindSpore")
        return job_result(Outcome.DONE, "")

    monkeypatch.setattr(tasks.programs, "run", run)
    monkeypatch.setattr(tasks.programs, "get_run_logger", lambda: logging.getLogger("run"))
    caplog.set_level(logging.INFO, "run")
    bar = RecordedBar()
    with opened(Console()) as shown:
        for _ in range(2):
            run_program("train", {"config": "tiny"}, workspace=tmp_path, bar=bar)
    assert bar.fractions == [0.25, 0.5, 0.5, 1.0] * 2, "the end has no line of its own"
    assert caplog.messages == ["starting", "compared", "at 0.25", "at 0.5"] * 2


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (Outcome.LOST_WORKER, ConnectionError),
        (Outcome.FAILED, ConnectionError),
        (Outcome.NON_FINITE, NonFiniteLossError),
    ],
)
def test_what_has_failed_to_serve_ranks_is_raised_unless_they_report_another_cause(
    status: Outcome, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def prepare(directory: Path, host: int) -> Iterator[PreparedHost]:
        assert (directory, host) == (tmp_path, 0)
        failure = ConnectionError("the store is away")
        yield PreparedHost(options={"data_dir": "here"}, failure=lambda: failure)

    def run(job: Job, *, on_line: object) -> JobResult:
        del on_line
        assert "--data_dir=here" in job.args
        return job_result(status, "a rank has ended")

    monkeypatch.setattr(tasks.programs, "run", run)
    monkeypatch.setattr(tasks.programs, "get_run_logger", lambda: logging.getLogger("run"))
    with pytest.raises(error):
        run_program("train", {}, workspace=tmp_path, prepare=prepare)


@pytest.mark.slow
@pytest.mark.usefixtures("flow_harness")
def test_a_bar_waits_between_updates_but_not_with_the_last_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tasks.programs, "SECONDS_BETWEEN_UPDATES", 600)
    seen: list[object] = []

    @flow
    def work() -> None:
        bar = ProgressBar("work", "Fraction of the work")
        for fraction in (0.1, 0.2, 1.0):
            bar.update(fraction)
            seen.append(shown_by(UUID(str(runtime.flow_run.id)))["work"].data)

    work()
    assert seen == [10.0, 10.0, 100.0]


def test_hosts_without_a_shared_disk_are_told_what_the_full_order_costs() -> None:
    line = about_order(load_recipe("skresnet18_ascend"), 140 * 10**9)
    assert line is not None
    assert "each host fetches all shards, 140 GB, before the first step" in line
    blocks = load_recipe("skresnet18_ascend", ["shuffle=blocks"])
    assert about_order(blocks, 140 * 10**9) is None


def test_launch_settings_become_a_gang() -> None:
    settings = LaunchSettings(launcher="ray://head:10001", hosts=3, wait_for_hosts=5)
    recipe = load_recipe("skresnet18_digits", ["global_batch_size=48"])
    gang = gang_of(settings, recipe, 6, "Ascend")
    assert gang is not None
    assert (gang.address, gang.resource) == ("ray://head:10001", "NPU")
    assert (gang.hosts, gang.slots, gang.wait) == (3, 2, 5)
    assert [ranks for ranks in range(1, 9) if gang.usable(ranks)] == [1, 2, 3, 4, 6, 8]
    assert gang_of(LaunchSettings(), recipe, 6, "CPU") is None
    in_passes = recipe.model_copy(update={"gradient_accumulation_steps": 4})
    gang = gang_of(settings, in_passes, 6, "Ascend")
    assert gang is not None
    assert [ranks for ranks in range(1, 9) if gang.usable(ranks)] == [1, 2, 3, 4, 6]


def test_workers_that_the_hosts_cannot_share_are_refused() -> None:
    settings = LaunchSettings(launcher="ray:auto", hosts=2)
    recipe = load_recipe("skresnet18_digits", ["global_batch_size=48"])
    with pytest.raises(UserError, match="3 workers can't be shared equally among 2 hosts"):
        gang_of(settings, recipe, 3, "CPU")
