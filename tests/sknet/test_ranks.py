"""Two ranks under msrun: stopped, hung, killed; at last the files of an undisturbed training."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from mindspore import load_checkpoint

import sknet
from infra.launch import Job, JobResult, Outcome, run
from sknet.data.shards import ShardSet
from sknet.records import Layout
from sknet.training import checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.alone]

# Two epochs of three steps, saved at their ends.
OPTIONS = ("--set", "checkpoint_every_steps=null")
# Seconds: longer than any step here takes.
HANG_FLOOR = "10"

Launch = Callable[..., tuple[JobResult, str]]


@pytest.fixture
def launch(recipe_file: Path, converted: ShardSet, tmp_path: Path) -> Launch:
    count = iter(range(99))

    def start(
        name: str, disturbance: str = "", *, workers: int = 2, choices: tuple[str, ...] = ()
    ) -> tuple[JobResult, str]:
        """A training in tmp_path/name, and what its ranks said."""
        lines: list[str] = []
        attempt = tmp_path / f"attempt-{next(count)}"
        attempt.mkdir()
        job = Job(
            program=Path(__file__).with_name("disturbed_training.py"),
            args=(
                *("--config", str(recipe_file), "--data_dir", str(converted.directory), *OPTIONS),
                *(word for choice in choices for word in ("--set", choice)),
                *("--ckpt_save_dir", str(tmp_path / name), "--hang_floor", HANG_FLOOR),
                *("--outcome_file", str(attempt / "outcome.json")),
            ),
            workers=workers,
            log_dir=attempt / "logs",
            outcome_file=attempt / "outcome.json",
            cwd=attempt,
            env={
                "PYTHONPATH": str(Path(sknet.__file__).parents[1]),
                **({"DISTURBANCE": disturbance} if disturbance else {}),
            },
            deadline=300,
            silence=None,
        )
        return run(job, on_line=lines.append), "\n".join(lines)

    return start


def files(directory: Path, step: int = 6) -> tuple[bytes, bytes]:
    path = directory / checkpoint.checkpoint_name(step)
    assert not (path / checkpoint.STATISTICS_FILE).exists()
    return (path / "model.ckpt").read_bytes(), (path / "state.json").read_bytes()


def test_ranks_stop_together_and_end_together_and_nobody_can_tell(
    launch: Launch, tmp_path: Path
) -> None:
    result, said = launch("undisturbed")
    assert result.status is Outcome.DONE, said

    result, said = launch("disturbed", "1 1 SIGUSR1")
    assert result.status is Outcome.STOPPED, said
    assert result.message.startswith("after step 1 of 6, with checkpoint step-00000001: start")
    stopped = tmp_path / "disturbed/step-00000001"
    checkpoint.read_state(stopped)
    own = checkpoint.read_statistics(stopped)
    assert own is not None
    assert len(own) == 2
    assert (own[0] != own[1]).any()
    shutil.copytree(tmp_path / "disturbed", tmp_path / "alone")

    # Rank 0 waits for rank 1 within a collective operation meanwhile.
    result, said = launch("disturbed", "1 4 hang")
    assert result.status is Outcome.LOST_WORKER, said
    assert "[rank 0] resuming from step-00000001: 1 of 6 steps are done" in said
    assert f"[rank 1] error: no step within {HANG_FLOOR} s; where all threads are:" in said
    assert "[rank 1]   File" in said
    assert "in stand_still" in said
    assert "[rank 0] Timeout (0:00:12)!" in said
    assert "in _train_step" in said or "in sum" in said

    result, said = launch("disturbed", "1 5 SIGKILL")
    assert result.status is Outcome.LOST_WORKER, said
    assert "resuming from step-00000003: 3 of 6 steps are done" in said
    result, said = launch("disturbed")
    assert result.status is Outcome.DONE, said
    assert "resuming from step-00000003: 3 of 6 steps are done" in said
    assert files(tmp_path / "disturbed") == files(tmp_path / "undisturbed")

    # The one that stopped goes on with one rank.
    result, said = launch("alone", workers=1)
    assert result.status is Outcome.DONE, said
    assert "planned for 2 workers, continuing with 1: the global batch stays 4, 4 for each" in said
    state = checkpoint.read_state(tmp_path / "alone/step-00000006")
    assert state.layouts == (
        Layout(first_step=0, world_size=2),
        Layout(first_step=1, world_size=1),
    )
    assert (state.run.world_size, state.run.global_batch_size) == (2, 4)
    assert state.samples_seen == 24


# The scale overflows float16 in the first four steps, on both sides of the checkpoint at step 3.
OVERFLOWING = (
    *("amp_level=O2", "loss_scale_type=dynamic", "loss_scale=262144", "drop_overflow_update=true"),
    *("gradient_accumulation_steps=2", "ema=true", "ema_decay=0.9"),
)


def test_average_passes_and_scale_of_two_ranks_go_on_with_the_same_bits(
    launch: Launch, tmp_path: Path
) -> None:
    result, said = launch("undisturbed", choices=OVERFLOWING)
    assert result.status is Outcome.DONE, said
    shutil.copytree(tmp_path / "undisturbed", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed/step-00000006")
    result, said = launch("resumed", choices=OVERFLOWING)
    assert result.status is Outcome.DONE, said
    assert "resuming from step-00000003: 3 of 6 steps are done" in said
    assert files(tmp_path / "resumed") == files(tmp_path / "undisturbed")

    scales, updates = zip(
        *(state_of_precision(tmp_path / f"undisturbed/step-0000000{step}") for step in (3, 6)),
        strict=True,
    )
    # A step either updates the weights or halves the scale.
    assert scales == (1 << 18 >> 3, 1 << 18 >> 4)
    assert updates == (0, 2)


def state_of_precision(path: Path) -> tuple[float, float]:
    """The loss scale, and how many updates the average has followed."""
    parameters = load_checkpoint(str(path / "model.ckpt"))
    return float(parameters["loss_scale"].asnumpy()), float(parameters["ema.updates"].asnumpy())
