"""The program as a process: what it logs, and that it does nothing when it is finished."""

import subprocess
import sys
from pathlib import Path

import pytest

from sknet.data.shards import ShardSet
from sknet.device import find_cards
from sknet.records import Checkpoint
from tests.sknet.training.logs import metrics

pytestmark = pytest.mark.slow


class Training:
    """The program over one directory of checkpoints, with the tiny network."""

    def __init__(self, recipe_file: Path, shards: Path, out: Path) -> None:
        self.directory = out / "ckpt"
        self._out = out
        self._command = [
            *(sys.executable, "-m", "sknet.train"),
            *("--config", str(recipe_file), "--set", "model=tiny", "--data_dir", str(shards)),
            *("--ckpt_save_dir", str(self.directory), "--set", "jit_level=O1"),
        ]
        self.printed = self.run()

    def run(self, *options: str) -> str:
        """Run the program to its end and return what it printed."""
        result = subprocess.run(
            [*self._command, *options],
            cwd=self._out,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout


@pytest.fixture(scope="module")
def finished(
    recipe_file: Path, converted: ShardSet, tmp_path_factory: pytest.TempPathFactory
) -> Training:
    training = Training(recipe_file, converted.directory, tmp_path_factory.mktemp("out"))
    last = training.directory / "step-00000006"
    assert training.printed.endswith(f"trained 6 steps: {last}\n")
    return training


def test_the_first_line_says_the_device_and_why(finished: Training) -> None:
    assert finished.printed.splitlines()[0] == f"device CPU: {find_cards().said}"


def test_a_run_records_its_device_and_its_jit_level(finished: Training) -> None:
    run = Checkpoint.read(finished.directory / "step-00000006/state.json").run
    assert (run.device_target, run.recipe.jit_level) == ("CPU", "O1")


def test_metrics_describe_start_steps_epochs_and_end(finished: Training) -> None:
    lines = metrics(finished.directory)
    assert [(line["type"], line["step"]) for line in lines] == [
        ("start", 0),
        ("compile", 0),
        ("step", 1),
        ("step", 2),
        ("step", 3),
        ("epoch", 3),
        ("step", 4),
        ("step", 5),
        ("step", 6),
        ("epoch", 6),
        ("end", 6),
    ]
    keys = {line["type"]: line.keys() for line in lines}
    common = {"type", "step"}
    measured = {
        *("ms_per_step", "ms_per_step_p50", "ms_per_step_p90", "ms_per_step_p99"),
        *("images_per_second", "data_wait_share", "host_memory_mib"),
    }
    assert keys["start"] == common | {"world_size", "planned_workers"}
    assert keys["compile"] == common | {"compile_seconds", "first_batch_seconds"}
    assert keys["step"] == common | measured | {"epoch", "loss", "lr"}
    assert keys["epoch"] == common | measured | {
        *("epoch", "train_loss", "lr", "seconds"),
        *("seen", "correct_top1", "correct_top5", "loss_sum"),
    }
    assert keys["end"] == common | measured | {"compile_seconds", "checkpoint_seconds", "restarts"}
    # A warm-up over the three steps of the first epoch, then a cosine of three.
    rates = [line["lr"] for line in lines if line["type"] == "step"]
    assert rates == pytest.approx([0.01 / 3, 0.02 / 3, 0.01, 0.01, 0.0075, 0.0025])
    losses = [line["loss"] for line in lines if line["type"] == "step"]
    epochs = [line for line in lines if line["type"] == "epoch"]
    assert [line["seen"] for line in epochs] == [6, 6]
    assert [line["train_loss"] for line in epochs] == pytest.approx(
        [sum(losses[:3]) / 3, sum(losses[3:]) / 3]
    )


def test_a_finished_training_does_nothing(finished: Training) -> None:
    def state() -> dict[Path, tuple[int, int]]:
        return {
            path: (path.stat().st_mtime_ns, path.stat().st_size)
            for path in finished.directory.rglob("*")
            if path.suffix != ".lock"
        }

    before = state()
    # A recipe for Ascend trains on CPU where there is no card, and is the same run.
    device, done, *_ = finished.run("--set", "device_target=Ascend").splitlines()
    assert device == f"warning: device CPU, but the recipe is for Ascend: {find_cards().said}"
    assert "6 of 6 steps are done" in done
    assert state() == before
