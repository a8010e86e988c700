"""Two ranks under msrun: stopped, hung, killed; at last the files of an undisturbed training."""

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

import sknet
from infra.launch import Job, JobResult, JobStatus, run
from sknet.records import Layout, Shards
from sknet.training import checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.alone]

# Two epochs of three steps, saved at their ends.
OPTIONS = ("--set", "checkpoint_every_steps=null")
# Seconds: longer than any step here takes.
HANG_FLOOR = "15"

Launch = Callable[..., tuple[JobResult, list[str]]]


def send(number: signal.Signals, rank: int) -> None:
    """To a rank among the processes below this one."""
    (process,) = [
        process
        for process in psutil.Process().children(recursive=True)
        if (environment := process.environ()).get("MS_ROLE") == "MS_WORKER"
        and environment["RANK_ID"] == str(rank)
    ]
    process.send_signal(number)


@pytest.fixture
def launch(recipe_file: Path, converted: tuple[Shards, Path], tmp_path: Path) -> Launch:
    count = iter(range(99))

    def start(
        name: str,
        workers: int = 2,
        *,
        at: str = "never",
        number: signal.Signals = signal.SIGUSR1,
        rank: int = 1,
    ) -> tuple[JobResult, list[str]]:
        """A training in tmp_path/name; the rank gets the signal at the first line with `at`."""
        lines: list[str] = []
        sent: list[bool] = []

        def hear(line: str) -> None:
            lines.append(line)
            if at in line and not sent:
                sent.append(True)
                send(number, rank)

        attempt = tmp_path / f"attempt-{next(count)}"
        attempt.mkdir()
        job = Job(
            program=Path(sknet.__file__).with_name("train.py"),
            args=(
                *("--config", str(recipe_file), "--data_dir", str(converted[1]), *OPTIONS),
                *("--ckpt_save_dir", str(tmp_path / name), "--hang_floor", HANG_FLOOR),
                *("--outcome_file", str(attempt / "outcome.json")),
            ),
            workers=workers,
            log_dir=attempt / "logs",
            outcome_file=attempt / "outcome.json",
            cwd=attempt,
            env={
                "PYTHONPATH": str(Path(sknet.__file__).parents[1]),
                # Later than the watchdog, which has to notice by itself.
                "MS_NODE_TIMEOUT": "60",
            },
            deadline=300,
            silence=None,
        )
        return run(job, on_line=hear), lines

    return start


def files(directory: Path, step: int = 6) -> tuple[bytes, bytes]:
    path = directory / checkpoint.checkpoint_name(step)
    assert not (path / checkpoint.STATISTICS_FILE).exists()
    return (path / "model.ckpt").read_bytes(), (path / "state.json").read_bytes()


def test_ranks_stop_together_and_end_together_and_nobody_can_tell(
    launch: Launch, tmp_path: Path
) -> None:
    result, _ = launch("undisturbed")
    assert result.status is JobStatus.DONE, result.message

    # While rank 1 compiles: it stops after the first step, and rank 0 with it.
    result, _ = launch("disturbed", at="the first compiles the graph")
    assert result.status is JobStatus.STOPPED, result.message
    assert result.message.startswith("after step 1 of 6, with checkpoint step-00000001: start")
    stopped = tmp_path / "disturbed/step-00000001"
    checkpoint.read_state(stopped)
    own = checkpoint.read_statistics(stopped)
    assert own is not None
    assert len(own) == 2
    assert (own[0] != own[1]).any()
    shutil.copytree(tmp_path / "disturbed", tmp_path / "alone")

    # Within the second epoch: rank 0 waits for rank 1 within a collective operation.
    result, lines = launch("disturbed", at="step 4/6", number=signal.SIGSTOP)
    assert result.status is JobStatus.LOST_WORKER, result.message
    said = "\n".join(lines)
    assert "[rank 0] resuming from step-00000001: 1 of 6 steps are done" in said
    # Which of its timers it is depends on whether MindSpore holds Python's lock meanwhile.
    assert "[rank 0] Timeout (0:00:" in said or "[rank 0] error: no step within" in said
    assert "in _train_step" in said or "in sum" in said

    result, lines = launch("disturbed", at="step 5/6", number=signal.SIGKILL)
    assert result.status in (JobStatus.LOST_WORKER, JobStatus.DONE), result.message
    result, _ = launch("disturbed")
    assert result.status is JobStatus.DONE, result.message
    assert files(tmp_path / "disturbed") == files(tmp_path / "undisturbed")

    # The one that stopped goes on with one rank.
    result, lines = launch("alone", workers=1)
    assert result.status is JobStatus.DONE, result.message
    assert any("planned for 2 workers, going on with 1" in line for line in lines)
    state = checkpoint.read_state(tmp_path / "alone/step-00000006")
    assert state.layouts == (
        Layout(first_step=0, world_size=2),
        Layout(first_step=1, world_size=1),
    )
    assert (state.run.world_size, state.run.global_batch_size) == (2, 4)
