"""Killed, stopped or out of disk anywhere, started again: the same files as if nothing had been."""

import hashlib
import json
import random
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from sknet.data.shards import ShardSet
from sknet.training import checkpoint
from tests import disks
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
    "gradient_accumulation_steps": 2,
    "drop_path_rate": 0.2,
    "clip_grad": True,
    "ema": True,
    "amp_level": "O2",
    "loss_scale_type": "dynamic",
    # Of which the first steps overflow.
    "loss_scale": 1 << 24,
    "drop_overflow_update": True,
}
RECIPES = {
    "plain": {},
    "everything": ALL_AT_ONCE,
    "pynative": ALL_AT_ONCE | {"mode": 1},
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
        (code,) = self.together([directory], do, **job)
        return code

    def together(self, directories: list[Path], do: str = "train", **job: Any) -> list[int]:
        """The exit codes of as many processes, started at the same time."""
        assert self._process.stdin
        assert self._process.stdout
        for directory in directories:
            directory.with_suffix(".log").unlink(missing_ok=True)
        common = {"do": do, "recipe": {}, **job}
        request = [common | {"directory": str(directory)} for directory in directories]
        print(json.dumps(request), file=self._process.stdin, flush=True)
        codes: list[int] = json.loads(self._process.stdout.readline())
        return codes

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="module")
def forked(converted: ShardSet) -> Iterator[Trainings]:
    trainings = Trainings(converted.directory)
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
    directory, kills = tmp_path / "ckpt", 0
    for _ in range(6):
        saved = checkpoint.list_checkpoints(directory)
        done = int(saved[-1].name.removeprefix("step-")) if saved else 0
        if done == TOTAL_STEPS or kills == 3:
            break
        # In the next steps, or at one of the next file operations, of which a save has about 12.
        if points.random() < 0.5:
            code = forked(directory, recipe=recipe, kill_at=points.randint(1, 20))
        else:
            step = points.randint(done + 1, min(done + 4, TOTAL_STEPS))
            point = {"signal": "SIGKILL", "signal_at_step": step}
            code = forked(directory, recipe=recipe, **point)
        assert code in (KILLED, 0)
        kills += code == KILLED
    assert kills >= 2
    assert forked(directory, recipe=recipe) == 0, log(directory)
    assert digests(directory) == digests(reference)
    assert not list(directory.glob(".saving*"))


@pytest.mark.parametrize("step", [2, 7])
def test_stopped_after_any_step(
    undisturbed: Callable[[str], Path], forked: Trainings, tmp_path: Path, step: int
) -> None:
    """2 is the end of a segment, 7 is within one."""
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


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """256 kB."""
    with disks.small_disk(tmp_path / "disk", "size=256k") as disk:
        yield disk


def test_full_disk_costs_a_checkpoint_but_not_the_training(
    undisturbed: Callable[[str], Path], forked: Trainings, small_disk: Path
) -> None:
    code = forked(small_disk, full_at_steps=[4], room_at_steps=[9])
    assert code == 0, log(small_disk)
    warned = re.findall(
        r"^warning: (\S+) was not saved: No space left on device \(it needs 0\.00\d+ MB, 0 MB are "
        rf"free in {small_disk}\); the newest checkpoint is step-00000003; the training continues$",
        log(small_disk),
        re.MULTILINE,
    )
    # There may be room again by the time that step 8 is saved.
    assert warned[:2] == ["step-00000005", "step-00000006"]
    final = {name: digest for name, digest in digests(small_disk).items() if "-00000009" in name}
    assert len(final) == 2
    assert final.items() <= digests(undisturbed("plain")).items()
    lines = [json.loads(line) for line in (small_disk / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["type"] == "end"


def test_full_disk_at_the_end_is_an_error_that_leaves_the_old_checkpoints(
    undisturbed: Callable[[str], Path], forked: Trainings, small_disk: Path
) -> None:
    directory = small_disk
    assert forked(directory, full_at_steps=[7]) == 1
    (line,) = [line for line in log(directory).splitlines() if line.startswith("error: ")]
    assert "step-00000009 was not saved: No space left on device" in line
    assert line.endswith("make room, then start the same command again")
    assert "Traceback" not in log(directory)
    names = [path.name for path in checkpoint.list_checkpoints(directory)]
    assert names == ["step-00000003", "step-00000005", "step-00000006"]  # the best and two
    for name in names:
        checkpoint.read_state(directory / name)
    assert not (directory / ".saving").exists()
    (small_disk / "filler").unlink()
    assert forked(directory) == 0
    assert digests(directory) == digests(undisturbed("plain"))


def test_a_run_that_is_planned_for_more_workers_than_are_there_keeps_its_plan(
    forked: Trainings, tmp_path: Path
) -> None:
    directory = tmp_path / "ckpt"
    recipe = {"global_batch_size": None, "batch_size": 2, "reference_global_batch_size": 8}
    stop = {"signal": "SIGUSR1", "signal_at_step": 4}
    assert forked(directory, recipe=recipe, planned_workers=2, **stop) == 1
    said = log(directory)
    assert "planned for 2 workers, continuing with 1: the global batch stays 4, 4 for each" in said
    assert "learning rate 0.01 scaled to 0.005 for a global batch of 4" in said
    assert forked(directory, recipe=recipe) == 0
    state = checkpoint.read_state(directory / "step-00000009")
    assert (state.run.world_size, state.run.global_batch_size) == (2, 4)
    assert [tuple(layout.model_dump().values()) for layout in state.layouts] == [(0, 1)]
    assert state.samples_seen == 36


def test_the_best_checkpoint_outlives_the_newest_across_restarts(
    forked: Trainings, tmp_path: Path
) -> None:
    recipe = {"epoch_size": 6, "lr": 0.003}
    directory = tmp_path / "ckpt"
    for step in (7, 14):
        stop = {"signal": "SIGKILL", "signal_at_step": step}
        assert forked(directory, recipe=recipe, **stop) == KILLED
    assert forked(directory, recipe=recipe) == 0
    state = checkpoint.read_state(directory / "step-00000018")
    correct = [evaluation.correct_top1 for _, evaluation in state.evaluations]
    assert len(correct) == 6
    assert state.best_top1 == max(correct)
    assert state.best_step == 3 * (correct.index(max(correct)) + 1)
    names = {"step-00000017", "step-00000018", f"step-{state.best_step:08}"}
    assert {path.name for path in checkpoint.list_checkpoints(directory)} == names


def test_compiled_graphs_are_reused_only_where_they_fit(
    undisturbed: Callable[[str], Path], forked: Trainings, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    environment = {"SKNET_CACHE": str(cache)}
    reference = digests(undisturbed("plain"))

    def entries() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in cache.glob("compiled/*/**/*.mindir")}

    # Written, then read, then found damaged and written again.
    for number in range(3):
        assert forked(tmp_path / str(number), environment=environment) == 0
        assert digests(tmp_path / str(number)) == reference
        (entry,) = entries()
        if number == 0:
            written = entries()
            assert entry.stat().st_size > 1000
        if number == 1:
            assert entries() == written
            entry.chmod(0o600)
            entry.write_bytes(entry.read_bytes()[:-1])
    assert entry.stat().st_size == len(entry.read_bytes()) > 1000
    # MindSpore's own cache would take the same graph for another label smoothing.
    other = {"label_smoothing": 0.2}
    assert forked(tmp_path / "other", environment=environment, recipe=other) == 0
    assert len(entries()) == 2
    off = {"MS_COMPILER_CACHE_ENABLE": "0"}
    assert forked(tmp_path / "off", environment=environment | off, recipe=other) == 0
    assert len(entries()) == 2
    assert digests(tmp_path / "off") == digests(tmp_path / "other")


def test_two_that_compile_at_the_same_time_leave_one_sound_graph(
    undisturbed: Callable[[str], Path], forked: Trainings, tmp_path: Path
) -> None:
    environment = {"SKNET_CACHE": str(tmp_path / "cache")}
    pair = [tmp_path / "one", tmp_path / "two"]
    assert forked.together(pair, environment=environment) == [0, 0]
    compiled = [json.loads((it / "metrics.jsonl").read_text().splitlines()[1]) for it in pair]
    assert [line["type"] for line in compiled] == ["compile", "compile"]
    (entry,) = (tmp_path / "cache/compiled").iterdir()
    sums = json.loads((entry / "sha256.json").read_text())
    files = [path for path in entry.rglob("*") if path.is_file() and path.name != "sha256.json"]
    assert files
    assert sums == {
        str(path.relative_to(entry)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }
    third = tmp_path / "three"
    assert forked(third, environment=environment) == 0
    assert [digests(it) for it in (*pair, third)] == [digests(undisturbed("plain"))] * 3


def test_tensorboard_shows_what_metrics_say_of_the_run_as_it_went(
    forked: Trainings, tmp_path: Path
) -> None:
    directory, events = tmp_path / "ckpt", tmp_path / "events"
    stop = {"signal": "SIGUSR1", "signal_at_step": 4}
    assert forked(directory, tensorboard=str(events), **stop) == 1
    assert forked(directory, tensorboard=str(events)) == 0
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    expected = [(line["step"], np.float32(line["loss"])) for line in lines if "loss" in line]
    assert len(expected) == TOTAL_STEPS
    found = [
        (event.step, np.float32(value.simple_value))
        for event in read_events(events)
        for value in event.summary.value
        if value.tag == "step/loss"
    ]
    assert found == expected


def read_events(directory: Path) -> Iterator[Event]:
    """Of all files: TFRecords, each a length, its checksum, the event, its checksum."""
    for path in sorted(directory.iterdir()):
        content = path.read_bytes()
        while content:
            (size,) = struct.unpack("<Q", content[:8])
            yield Event.FromString(content[12 : 12 + size])
            content = content[16 + size :]
