"""Killed, stopped or out of disk anywhere, started again: the same files as if nothing had been."""

import hashlib
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from sknet.records import Shards
from sknet.training import checkpoint
from tests.sknet.test_checkpoint import make_run, make_step, never, save

pytestmark = pytest.mark.slow

# Everything that is drawn or kept from step to step.
ALL_AT_ONCE = {
    "vflip": 0.5,
    "color_jitter": [0.4, 0.4, 0.4, 0.1],
    "re_prob": 0.5,
    "re_value": "random",
    "mixup": 0.2,
    "cutmix": 1.0,
    "num_parallel_workers": 2,
    "weight_decay": 1e-4,
    "use_nesterov": True,
    "label_smoothing": 0.1,
    "warmup_epochs": 1,
}
RECIPES = {
    "plain": {},
    "everything": ALL_AT_ONCE,
    "RandAugment": {"auto_augment": "randaug-m9-n2", "color_jitter": None},
}
TOTAL_STEPS = 9
KILLED = -9


class Trainings:
    """Jobs for a process of `tests.sknet.forked_training`."""

    def __init__(self, shards: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.sknet.forked_training", str(shards)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, directory: Path, do: str = "train", **job: Any) -> int:
        """The exit code, -9 for killed."""
        assert self._process.stdin
        assert self._process.stdout
        request = {"do": do, "directory": str(directory), "recipe": {}, **job}
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="module")
def forked(converted: tuple[Shards, Path]) -> Iterator[Trainings]:
    trainings = Trainings(converted[1])
    yield trainings
    trainings.close()


def operations(directory: Path) -> int:
    return int(directory.with_suffix(".count").read_text())


def log(directory: Path) -> str:
    return directory.with_suffix(".log").read_text()


def digests(directory: Path) -> dict[str, str]:
    """SHA-256 of every file of every checkpoint."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.glob("step-*/*"))
    }


@pytest.fixture(scope="module")
def undisturbed(
    forked: Trainings, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """The directory of a training with one of the recipes, not to be changed."""

    @cache
    def train(name: str) -> Path:
        directory = tmp_path_factory.mktemp("undisturbed") / "ckpt"
        assert forked(directory, recipe=RECIPES[name]) == 0, log(directory)
        assert f"trained {TOTAL_STEPS} steps" in log(directory)
        return directory

    return train


@pytest.mark.parametrize("name", RECIPES)
def test_killed_anywhere_any_number_of_times(
    undisturbed: Callable[[str], Path], forked: Trainings, tmp_path: Path, name: str
) -> None:
    recipe, reference = RECIPES[name], undisturbed(name)
    points = random.Random(name)
    total = operations(reference)
    assert total > 50
    directory, kills = tmp_path / "ckpt", 0
    # Half of them at a file operation, half after a step; bounded, as points may be behind the end.
    for _ in range(6):
        if points.random() < 0.5:
            code = forked(directory, recipe=recipe, kill_at=points.randint(1, total // 2))
        else:
            point = {"signal": "SIGKILL", "signal_at_step": points.randint(1, TOTAL_STEPS)}
            code = forked(directory, recipe=recipe, **point)
        assert code in (KILLED, 0)
        kills += code == KILLED
    assert kills >= 2
    assert forked(directory, recipe=recipe) == 0, log(directory)
    assert digests(directory) == digests(reference)
    assert not list(directory.glob(".saving*"))


@pytest.mark.parametrize("step", [1, 2, 4, 8])
def test_stopped_after_any_step(
    undisturbed: Callable[[str], Path], forked: Trainings, tmp_path: Path, step: int
) -> None:
    """1 and 4 are within a segment, 2 is its end, 8 is within the last one."""
    reference, directory = undisturbed("everything"), tmp_path / "stopped"
    number = "SIGTERM" if step == 2 else "SIGUSR1"
    stop = {"signal": number, "signal_at_step": step}
    assert forked(directory, recipe=ALL_AT_ONCE, **stop) == 1
    name = f"step-{step:08}"
    assert f"stopped: after step {step} of 9, with checkpoint {name}" in log(directory)
    assert "Traceback" not in log(directory)
    outcome = json.loads(Path(f"{directory}.outcome").read_text())
    assert outcome["status"] == "stopped"
    assert f"after step {step} of 9" in outcome["message"]
    assert checkpoint.read_state(directory / name).step == step
    assert forked(directory, recipe=ALL_AT_ONCE) == 0
    final = f"step-{TOTAL_STEPS:08}"
    for file in ("model.ckpt", "state.json"):
        assert (directory / final / file).read_bytes() == (reference / final / file).read_bytes()


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """Checkpoints of the steps 3, 6 and 9."""
    for step in (3, 6, 9):
        save(make_step(step), tmp_path / "three", step)
    return tmp_path / "three"


def test_save_killed_before_each_of_its_file_operations(
    forked: Trainings, three: Path, tmp_path: Path
) -> None:
    reference = shutil.copytree(three, tmp_path / "reference")
    assert forked(reference, "save") == 0, log(reference)
    total = operations(reference)
    for number in range(1, total + 1):
        directory = shutil.copytree(three, tmp_path / str(number))
        assert forked(directory, "save", kill_at=number) == KILLED
        newest = checkpoint.newest_valid(directory, make_run(), never)
        assert newest is not None
        assert newest[1].step in (9, 12)
        # The best is there at any moment, too.
        assert checkpoint.read_state(directory / "step-00000003").step == 3
        assert forked(directory, "save") == 0
        assert digests(directory) == digests(reference)
        left = [{path.name for path in where.iterdir()} for where in (directory, reference)]
        assert left[0] == left[1]


@pytest.mark.parametrize("kill", [True, False], ids=["killed", "refused by the disk"])
def test_save_that_ends_within_a_file(
    forked: Trainings, three: Path, tmp_path: Path, kill: bool
) -> None:
    size = (three / "step-00000009/model.ckpt").stat().st_size
    for limit in (1, size // 2, size - 1):
        directory = shutil.copytree(three, tmp_path / str(limit))
        job = {"file_limit": limit, "kill_at_limit": kill}
        assert forked(directory, "save", **job) == (-25 if kill else 70)
        newest = checkpoint.newest_valid(directory, make_run(), never)
        assert newest is not None
        assert newest[1].step == 9
        assert (directory / ".saving").exists() == kill
