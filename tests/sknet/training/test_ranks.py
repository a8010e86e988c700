"""Two ranks under msrun that stop and hang end with the files of uninterrupted ones."""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import pytest
from mindspore import load_checkpoint

from infra.launch import JobResult, Outcome
from sknet.data.shards import ShardSet
from sknet.records import Layout
from sknet.training import checkpoint
from tests.sknet.ranks import run_ranks

pytestmark = pytest.mark.alone

# Three epochs of three steps, with checkpoints at their ends. Float16 overflows in the first step
# and twice more, once before and once after the stop.
CHOICES = {
    "epoch_size": 3,
    "checkpoint_every_steps": "null",
    "amp_level": "O2",
    "loss_scale_type": "dynamic",
    "loss_scale": 1 << 16,
    "drop_overflow_update": "true",
    "ema": "true",
    "ema_decay": 0.9,
}

Launch = Callable[..., tuple[JobResult, str]]


@pytest.fixture
def launch(recipe_file: Path, converted: ShardSet, tmp_path: Path) -> Launch:
    count = iter(range(99))

    def start(
        name: str, disturbance: str = "", *, workers: int = 2, hang_floor: int = 600
    ) -> tuple[JobResult, str]:
        """Train in tmp_path/name, and return the result and what the ranks printed."""
        lines: list[str] = []
        attempt = tmp_path / f"attempt-{next(count)}"
        attempt.mkdir()
        result = run_ranks(
            Path(__file__).with_name("disturbed_training.py"),
            *("--config", recipe_file, "--data_dir", converted.directory),
            *(word for key, value in CHOICES.items() for word in ("--set", f"{key}={value}")),
            *("--ckpt_save_dir", tmp_path / name, "--hang_floor", hang_floor),
            directory=attempt,
            on_line=lines.append,
            workers=workers,
            env={"DISTURBANCE": disturbance} if disturbance else None,
        )
        return result, "\n".join(lines)

    return start


@pytest.fixture
def beside() -> Iterator[Executor]:
    """Runs a launch while the test runs another: for half of its time, a launch only waits."""
    with ThreadPoolExecutor(1) as threads:
        yield threads


def files(directory: Path) -> tuple[bytes, bytes]:
    path = directory / checkpoint.checkpoint_name(9)
    assert not (path / checkpoint.STATISTICS_FILE).exists()
    return (path / "model.ckpt").read_bytes(), (path / "state.json").read_bytes()


def scale_and_updates(path: Path) -> tuple[float, float]:
    """Return the loss scale, and how many updates the average has followed."""
    parameters = load_checkpoint(str(path / "model.ckpt"))
    return float(parameters["loss_scale"].asnumpy()), float(parameters["ema.updates"].asnumpy())


def test_ranks_that_stop_and_hang_end_with_the_files_of_uninterrupted_ones(
    launch: Launch, beside: Executor, tmp_path: Path
) -> None:
    result, printed = launch("disturbed", "1 4 SIGUSR1")
    assert result.status is Outcome.STOPPED, printed
    # The ranks hear of it with the result of the fourth step, when they have begun the fifth.
    assert result.message.startswith("after step 5 of 9, with checkpoint step-00000005: start")
    stopped = tmp_path / "disturbed/step-00000005"
    checkpoint.read_state(stopped)
    statistics = checkpoint.read_statistics(stopped)
    assert statistics is not None
    assert len(statistics) == 2
    assert (statistics[0] != statistics[1]).any()
    assert scale_and_updates(stopped) == (1 << 14, 3)
    shutil.copytree(tmp_path / "disturbed", tmp_path / "one-rank")

    # Both take the graph that the first launch compiled.
    uninterrupted = beside.submit(launch, "uninterrupted")
    # While rank 1 hangs, rank 0 waits for it in a collective operation.
    result, printed = launch("disturbed", "1 8 hang", hang_floor=10)
    assert result.status is Outcome.LOST_WORKER, printed
    assert "[rank 0] resuming from step-00000005: 5 of 9 steps are done" in printed
    assert "[rank 1] error: no step within 10 s; where all threads are:" in printed
    assert "[rank 1]   File" in printed
    assert "in stand_still" in printed
    assert "[rank 0] Timeout (0:00:12)!" in printed
    assert "in _begin_step" in printed

    result, printed = uninterrupted.result()
    assert result.status is Outcome.DONE, printed

    # One rank continues what two ranks began.
    continued_by_one = beside.submit(launch, "one-rank", workers=1)
    result, printed = launch("disturbed")
    assert result.status is Outcome.DONE, printed
    assert "resuming from step-00000006: 6 of 9 steps are done" in printed
    assert files(tmp_path / "disturbed") == files(tmp_path / "uninterrupted")
    assert scale_and_updates(tmp_path / "disturbed/step-00000009") == (1 << 14, 7)

    result, printed = continued_by_one.result()
    assert result.status is Outcome.DONE, printed
    planned = "planned for 2 workers, continuing with 1: the global batch stays 4, 4 for each"
    assert planned in printed
    state = checkpoint.read_state(tmp_path / "one-rank/step-00000009")
    assert state.layouts == (
        Layout(first_step=0, world_size=2),
        Layout(first_step=5, world_size=1),
    )
    assert (state.run.world_size, state.run.global_batch_size) == (2, 4)
    assert state.samples_seen == 36
