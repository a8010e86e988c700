"""Nobody can tell that a training was interrupted; what can't go on says so and stops."""

import fcntl
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import psutil
import pytest

from sknet.data.order import epoch_order
from sknet.data.reading.segments import Segment, segments_from
from sknet.data.shards import ShardSet, read_rows
from sknet.errors import UserError
from sknet.recipe import Recipe, load_recipe
from sknet.records import Run
from sknet.training import trainer
from sknet.training.loop import divergence
from sknet.training.stopping import StopRequest
from sknet.training.trainer import Options, Trainer, plan_run
from sknet.world import ALONE, World

ENVIRONMENT = {
    **os.environ,
    "MS_NODE_TIMEOUT": "15",
    "MS_HEARTBEAT_RETRY_TIMEOUT": "10",
    "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    # The programs run in directories of their own, and one of them is of these tests.
    "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
}


@pytest.fixture
def recipe(recipe_file: Path) -> Recipe:
    return load_recipe(str(recipe_file))


@pytest.fixture
def run(recipe: Recipe, converted: ShardSet) -> Run:
    return plan_run(recipe, converted.record, 1, "CPU")


def test_a_run_has_the_steps_that_fill_a_batch(run: Run) -> None:
    assert (run.steps_per_epoch, run.total_steps, run.global_batch_size) == (3, 6, 4)


@pytest.mark.parametrize(
    ("changes", "world_size", "message"),
    [
        ({"num_classes": 4}, 1, "num_classes is 4, but the data set has 3 classes"),
        ({"global_batch_size": 16}, 1, "there are 15 training samples: choose a smaller batch"),
        ({}, 3, "global_batch_size 4 can't be divided among 3 workers"),
        ({"num_parallel_workers": 4096}, 1, "num_parallel_workers is 4096, but this machine has "),
    ],
)
def test_recipe_that_does_not_fit_the_data_or_the_world_is_refused(
    recipe: Recipe,
    converted: ShardSet,
    changes: dict[str, Any],
    world_size: int,
    message: str,
) -> None:
    with pytest.raises(UserError) as caught:
        plan_run(recipe.model_copy(update=changes), converted.record, world_size, "CPU")
    assert message in str(caught.value)


def test_segments_end_at_the_interval_and_with_the_epoch(run: Run) -> None:
    whole = [Segment(0, 0, 2), Segment(0, 2, 3), Segment(1, 0, 2), Segment(1, 2, 3)]
    assert list(segments_from(run, 0)) == whole
    done = {2: 1, 3: 2, 5: 3, 6: 4}
    for step, number in done.items():
        assert list(segments_from(run, step)) == whole[number:]


def keys_in_order(run: Run, shards: ShardSet, epoch: int) -> list[str]:
    """Of all samples, as the epoch reads them."""
    keys = [
        row.key
        for file in shards.record.files_of("train")
        for row in read_rows(shards.directory / file.name, range(file.num_samples))
    ]
    assert len(set(keys)) == 15
    return [keys[index] for index in epoch_order(15, run.recipe.seed, epoch)]


def test_divergence_names_the_samples_of_the_rank_and_the_step(
    recipe: Recipe, converted: ShardSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = plan_run(recipe, converted.record, 2, "CPU")
    in_order = keys_in_order(run, converted, epoch=1)
    for rank, keys in enumerate((in_order[4:6], in_order[6:8])):
        message = str(divergence("the loss is nan at", 5, 0.01, run, converted, World(rank, 2)))
        assert message == (
            "the loss is nan at step 5 (epoch 2, learning rate 0.01): lower lr or lengthen the "
            f"warm-up; samples of rank {rank}: {keys[0]}, {keys[1]}"
        )
    monkeypatch.setattr("sknet.training.loop.KEYS_SHOWN", 1)
    message = str(divergence("the loss is nan at", 5, 0.01, run, converted, World(1, 2)))
    assert message.endswith(f"; samples of rank 1: {in_order[6]} and 1 more")


def test_two_trainings_in_one_directory_are_refused(
    run: Run, converted: ShardSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "LOCK_SECONDS", 0)
    options = Options(directory=tmp_path, report=print)
    training = Trainer(run, converted, ALONE, StopRequest(), options)
    with (tmp_path / ".rank-0.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another training has been at work"):
            training.train()


class Training:
    """The program in its own processes, over one directory of checkpoints."""

    def __init__(
        self,
        recipe_file: Path,
        shards: Path,
        out: Path,
        *options: str,
        program: str = "sknet.train",
    ) -> None:
        self.out = out
        self._program = program
        self.ckpt = out / "ckpt"
        self._options = [
            *("--config", str(recipe_file), "--data_dir", str(shards)),
            *("--ckpt_save_dir", str(self.ckpt), *options),
        ]
        out.mkdir(exist_ok=True)

    def finish(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._command(),
            cwd=self.out,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def kill_when(self, name: str) -> None:
        """SIGKILL to every process as soon as this directory appears."""
        with subprocess.Popen(
            self._command(),
            cwd=self.out,
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            started = psutil.Process(process.pid)
            deadline = time.monotonic() + 120
            while not (self.ckpt / name).exists() and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.001)
            assert process.poll() is None, f"ended before {name} appeared"
            for target in [started, *started.children(recursive=True)]:
                target.send_signal(signal.SIGKILL)

    def checkpoints(self) -> dict[str, tuple[bytes, bytes]]:
        return {
            path.name: ((path / "model.ckpt").read_bytes(), (path / "state.json").read_bytes())
            for path in self.ckpt.glob("step-*")
        }

    def metrics(self) -> list[dict[str, Any]]:
        lines = (self.ckpt / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def losses(self) -> list[tuple[str, int, float | None, float | None]]:
        """The losses of steps and evaluations; an epoch's train_loss starts with the program."""
        return [
            (line["type"], line["step"], line.get("loss"), line.get("loss_sum"))
            for line in self.metrics()
            if line["type"] in ("step", "epoch")
        ]

    def _command(self) -> list[str]:
        return [sys.executable, "-m", self._program, *self._options]


NewTraining = Callable[..., Training]


@pytest.fixture(scope="module")
def undisturbed(
    recipe_file: Path, converted: ShardSet, tmp_path_factory: pytest.TempPathFactory
) -> Training:
    out = tmp_path_factory.mktemp("undisturbed")
    training = Training(recipe_file, converted.directory, out)
    result = training.finish()
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith(f"trained 6 steps: {training.ckpt / 'step-00000006'}\n")
    return training


@pytest.fixture
def new(recipe_file: Path, converted: ShardSet, tmp_path: Path) -> NewTraining:
    def make(*options: str, program: str = "sknet.train") -> Training:
        return Training(
            recipe_file, converted.directory, tmp_path / "out", *options, program=program
        )

    return make


@pytest.mark.slow
def test_resumed_equals_uninterrupted(undisturbed: Training, new: NewTraining) -> None:
    training = new()
    # While saving, and within an epoch; test_interruptions.py has the other points.
    kill_points = [".saving", "step-00000005"]
    for name in kill_points:
        training.kill_when(name)
    result = training.finish()
    assert result.returncode == 0, result.stderr
    assert training.checkpoints() == undisturbed.checkpoints()
    assert training.losses() == undisturbed.losses()
    assert training.metrics()[-1]["restarts"] == len(kill_points)


@pytest.mark.slow
def test_metrics_tell_of_steps_epochs_start_and_end(undisturbed: Training) -> None:
    lines = undisturbed.metrics()
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
    of = {line["type"]: line.keys() for line in lines}
    common = {"type", "step"}
    times = {
        *("ms_per_step", "ms_per_step_p50", "ms_per_step_p90", "ms_per_step_p99"),
        *("images_per_second", "data_wait_share", "host_memory_mib"),
    }
    assert of["start"] == common | {"world_size", "planned_workers"}
    assert of["compile"] == common | {"compile_seconds", "first_batch_seconds"}
    assert of["step"] == common | times | {"epoch", "loss", "lr"}
    assert of["epoch"] == common | times | {
        *("epoch", "train_loss", "lr", "seconds"),
        *("seen", "correct_top1", "correct_top5", "loss_sum"),
    }
    assert of["end"] == common | times | {"compile_seconds", "checkpoint_seconds", "restarts"}
    # Warm-up over the three steps of the first epoch, then a cosine of three.
    rates = [line["lr"] for line in lines if line["type"] == "step"]
    assert rates == pytest.approx([0.01 / 3, 0.02 / 3, 0.01, 0.01, 0.0075, 0.0025])
    losses = [line["loss"] for line in lines if line["type"] == "step"]
    epochs = [line for line in lines if line["type"] == "epoch"]
    assert [line["seen"] for line in epochs] == [6, 6]
    assert [line["train_loss"] for line in epochs] == pytest.approx(
        [sum(losses[:3]) / 3, sum(losses[3:]) / 3]
    )


@pytest.mark.slow
def test_a_finished_training_does_nothing(undisturbed: Training) -> None:
    def state() -> dict[Path, tuple[int, int]]:
        return {
            path: (path.stat().st_mtime_ns, path.stat().st_size)
            for path in undisturbed.ckpt.rglob("*")
            if path.suffix != ".lock"
        }

    before = state()
    result = undisturbed.finish()
    assert result.returncode == 0
    assert "6 of 6 steps are done" in result.stdout
    assert state() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "lr", "message", "step"),
    [
        # Its first update takes no weight out of float32's range.
        ("tests.sknet.disturbed_training", "1e30", "the loss is nan at step 2 (", 2),
        ("sknet.train", "3e38", "after step 1 (", 1),
    ],
    ids=["at the second step", "at the first update"],
)
def test_divergence_ends_the_training_and_leaves_no_bad_checkpoint(
    new: NewTraining,
    run: Run,
    converted: ShardSet,
    program: str,
    lr: str,
    message: str,
    step: int,
) -> None:
    training = new(
        *("--set", f"lr={lr}", "--set", "warmup_epochs=0", "--set", "checkpoint_every_steps=1"),
        program=program,
    )
    result = training.finish()
    assert result.returncode == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert message in line
    keys = keys_in_order(run, converted, epoch=0)[4 * (step - 1) : 4 * step]
    assert line.endswith(f"; samples of rank 0: {', '.join(keys)}")
    assert "Traceback" not in result.stderr
    for path in training.ckpt.glob("step-*"):
        for parameter in ms.load_checkpoint(str(path / "model.ckpt")).values():
            assert np.isfinite(parameter.asnumpy()).all()
    for entry in training.metrics():
        assert all(math.isfinite(v) for v in entry.values() if isinstance(v, float))
