"""A training that is killed, stopped or out of disk anywhere ends with the files of another one.

The loop's exactness is proven here in processes of one rank, and in test_ranks.py with two.
"""

import hashlib
import json
import random
import re
import shutil
import struct
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from sknet.training import checkpoint
from tests import disks
from tests.sknet.training.checkpoints import make_run, save_three
from tests.sknet.training.conftest import Trainings
from tests.sknet.training.logs import losses, metrics, output

pytestmark = pytest.mark.slow

# Everything that is drawn, or passed on from step to step.
EVERYTHING = {
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
    "sampler": "balanced",
    "class_weights": [1, 2, 4],
    "warmup_epochs": 1,
    "gradient_accumulation_steps": 2,
    "drop_path_rate": 0.2,
    "clip_grad": True,
    "ema": True,
    "amp_level": "O2",
    "loss_scale_type": "dynamic",
    # The first steps overflow.
    "loss_scale": 1 << 24,
    "drop_overflow_update": True,
}
RECIPES = {
    "plain": {},
    "everything": EVERYTHING,
    "everything, pynative": EVERYTHING | {"mode": 1},
}
TOTAL_STEPS = 9
KILLED = -9


def digests(directory: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of every checkpoint."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.glob("step-*/*"))
    }


@pytest.fixture(scope="module")
def uninterrupted(
    forked: Trainings, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """The directory of a training with one of the recipes, not to be changed."""

    @cache
    def train(name: str) -> Path:
        directory = tmp_path_factory.mktemp("uninterrupted") / "ckpt"
        assert forked(directory, recipe=RECIPES[name]) == 0, output(directory)
        assert f"trained {TOTAL_STEPS} steps" in output(directory)
        return directory

    return train


@pytest.mark.parametrize("name", ["everything", "everything, pynative"])
def test_killed_anywhere_several_times(
    uninterrupted: Callable[[str], Path], forked: Trainings, tmp_path: Path, name: str
) -> None:
    recipe, reference = RECIPES[name], uninterrupted(name)
    points = random.Random(name)
    directory, num_kills = tmp_path / "ckpt", 0
    while num_kills < 2:
        saved = checkpoint.list_checkpoints(directory)
        done = int(saved[-1].name.removeprefix("step-")) if saved else 0
        assert done < TOTAL_STEPS
        if points.random() < 0.5:
            # Before one of the next file operations; a save has about 12.
            code = forked(directory, recipe=recipe, kill_at=points.randint(1, 20))
        else:
            step = points.randint(done + 1, min(done + 4, TOTAL_STEPS))
            point = {"signal": "SIGKILL", "signal_at_step": step}
            code = forked(directory, recipe=recipe, **point)
        assert code in (KILLED, 0)
        num_kills += code == KILLED
    assert forked(directory, recipe=recipe) == 0, output(directory)
    assert digests(directory) == digests(reference)
    assert losses(directory) == losses(reference)
    assert not list(directory.glob(".saving*"))


@pytest.mark.parametrize(
    ("name", "number", "step"),
    [("plain", "SIGTERM", 2), ("everything", "SIGUSR1", 7)],
    ids=["at a planned checkpoint", "between two of them"],
)
def test_stopped_after_a_step(
    uninterrupted: Callable[[str], Path],
    forked: Trainings,
    tmp_path: Path,
    name: str,
    number: str,
    step: int,
) -> None:
    recipe, reference, directory = RECIPES[name], uninterrupted(name), tmp_path / "stopped"
    assert forked(directory, recipe=recipe, signal=number, signal_at_step=step) == 1
    stopped = checkpoint.checkpoint_name(step)
    assert f"stopped: after step {step} of 9, with checkpoint {stopped}" in output(directory)
    assert "Traceback" not in output(directory)
    outcome = json.loads(Path(f"{directory}.outcome").read_text())
    assert outcome["status"] == "stopped"
    assert f"after step {step} of 9" in outcome["message"]
    assert checkpoint.read_state(directory / stopped).step == step
    # How it is logged and kept may change on the way.
    other = {"log_interval": 4, "keep_checkpoint_max": 5, "min_accuracy": 0.5}
    assert forked(directory, recipe=recipe | other) == 0
    final = checkpoint.checkpoint_name(TOTAL_STEPS)
    for file in ("model.ckpt", "state.json"):
        assert (directory / final / file).read_bytes() == (reference / final / file).read_bytes()
    assert metrics(directory)[-1]["restarts"] == 1


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """Checkpoints of the steps 3, 6 and 9."""
    return save_three(tmp_path / "three")


def newest_step(directory: Path) -> int:
    newest = checkpoint.newest_valid(
        directory, make_run(), lambda path, fault: pytest.fail(f"{path.name}: {fault}")
    )
    assert newest is not None
    return newest[1].step


def test_save_killed_before_each_of_its_file_operations(
    forked: Trainings, three: Path, tmp_path: Path
) -> None:
    reference = shutil.copytree(three, tmp_path / "reference")
    assert forked(reference, "save") == 0, output(reference)
    num_operations = int(reference.with_suffix(".count").read_text())
    for number in range(1, num_operations + 1):
        directory = shutil.copytree(three, tmp_path / str(number))
        assert forked(directory, "save", kill_at=number) == KILLED
        assert newest_step(directory) in (9, 12)
        # The best one exists at any moment, too.
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
        assert newest_step(directory) == 9
        assert (directory / ".saving").exists() == kill


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """256 kB."""
    with disks.small_disk(tmp_path / "disk", "size=256k") as disk:
        yield disk


def test_full_disk_costs_a_checkpoint_but_not_the_training(
    uninterrupted: Callable[[str], Path], forked: Trainings, small_disk: Path
) -> None:
    code = forked(small_disk, full_at_steps=[4], room_at_steps=[9])
    assert code == 0, output(small_disk)
    warned = re.findall(
        r"^warning: (\S+) was not saved: No space left on device \(it needs 0\.00\d+ MB, 0 MB are "
        rf"free in {small_disk}\); the newest checkpoint is step-00000003; the training continues$",
        output(small_disk),
        re.MULTILINE,
    )
    # By the time that step 8 is saved, there may be room again.
    assert warned[:2] == ["step-00000005", "step-00000006"]
    final = {name: digest for name, digest in digests(small_disk).items() if "-00000009" in name}
    assert len(final) == 2
    assert final.items() <= digests(uninterrupted("plain")).items()
    assert metrics(small_disk)[-1]["type"] == "end"


def test_full_disk_at_the_end_is_an_error_that_leaves_the_old_checkpoints(
    uninterrupted: Callable[[str], Path], forked: Trainings, small_disk: Path
) -> None:
    directory = small_disk
    assert forked(directory, full_at_steps=[7]) == 1
    (line,) = [line for line in output(directory).splitlines() if line.startswith("error: ")]
    assert "step-00000009 was not saved: No space left on device" in line
    assert line.endswith("make room, then start the same command again")
    assert "Traceback" not in output(directory)
    names = [path.name for path in checkpoint.list_checkpoints(directory)]
    assert names == ["step-00000003", "step-00000005", "step-00000006"]  # the best and two
    for name in names:
        checkpoint.read_state(directory / name)
    assert not (directory / ".saving").exists()
    (small_disk / "filler").unlink()
    assert forked(directory) == 0
    assert digests(directory) == digests(uninterrupted("plain"))


@pytest.fixture(scope="module")
def resumed(forked: Trainings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a training planned for two ranks, which one rank does with a stop."""
    directory = tmp_path_factory.mktemp("resumed") / "ckpt"
    job = {
        "recipe": {"global_batch_size": None, "batch_size": 2, "reference_global_batch_size": 8},
        "planned_workers": 2,
        "tensorboard": str(directory.with_suffix(".events")),
    }
    assert forked(directory, signal="SIGUSR1", signal_at_step=4, **job) == 1
    printed = output(directory)
    assert forked(directory, **(job | {"planned_workers": 1})) == 0
    directory.with_suffix(".log").write_text(printed + output(directory))
    return directory


def test_a_run_planned_for_more_ranks_than_there_are_keeps_its_plan(resumed: Path) -> None:
    printed = output(resumed)
    planned = "planned for 2 workers, continuing with 1: the global batch stays 4, 4 for each"
    assert printed.count(planned) == 2
    assert "learning rate 0.01 scaled to 0.005 for a global batch of 4" in printed
    state = checkpoint.read_state(resumed / "step-00000009")
    assert (state.run.world_size, state.run.global_batch_size) == (2, 4)
    assert [tuple(layout.model_dump().values()) for layout in state.layouts] == [(0, 1)]
    assert state.samples_seen == 36


def test_tensorboard_shows_the_losses_of_metrics_across_a_stop(resumed: Path) -> None:
    expected = [
        (line["step"], np.float32(line["loss"])) for line in metrics(resumed) if "loss" in line
    ]
    assert len(expected) == TOTAL_STEPS
    found = [
        (event.step, np.float32(value.simple_value))
        for event in read_events(resumed.with_suffix(".events"))
        for value in event.summary.value
        if value.tag == "step/loss"
    ]
    assert found == expected


def read_events(directory: Path) -> Iterator[Event]:
    """Yield the events of all files. They are TFRecords: length, checksum, event, checksum."""
    for path in sorted(directory.iterdir()):
        content = path.read_bytes()
        while content:
            (size,) = struct.unpack("<Q", content[:8])
            yield Event.FromString(content[12 : 12 + size])
            content = content[16 + size :]


def test_the_best_checkpoint_outlives_the_newest_across_restarts(
    forked: Trainings, tmp_path: Path
) -> None:
    recipe = {"epoch_size": 6, "lr": 0.003}
    directory = tmp_path / "ckpt"
    assert forked(directory, recipe=recipe, signal="SIGKILL", signal_at_step=11) == KILLED
    assert forked(directory, recipe=recipe) == 0
    state = checkpoint.read_state(directory / "step-00000018")
    correct = [evaluation.correct_top1 for _, evaluation in state.evaluations]
    assert len(correct) == 6
    assert state.best_top1 == max(correct)
    assert state.best_step == 3 * (correct.index(max(correct)) + 1)
    names = {"step-00000017", "step-00000018", f"step-{state.best_step:08}"}
    assert {path.name for path in checkpoint.list_checkpoints(directory)} == names


def test_compiled_graphs_are_reused_only_where_they_fit(
    uninterrupted: Callable[[str], Path], forked: Trainings, tmp_path: Path
) -> None:
    cached = tmp_path / "cache"
    environment = {"SKNET_CACHE": str(cached)}
    reference = digests(uninterrupted("plain"))

    def graphs() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in cached.glob("compiled/*/**/*.mindir")}

    # Written, then read, then found damaged and written again.
    for number in range(3):
        assert forked(tmp_path / str(number), environment=environment) == 0
        assert digests(tmp_path / str(number)) == reference
        (graph,) = graphs()
        if number == 0:
            written = graphs()
            assert graph.stat().st_size > 1000
        if number == 1:
            assert graphs() == written
            graph.chmod(0o600)
            graph.write_bytes(graph.read_bytes()[:-1])
    assert graph.stat().st_size == len(graph.read_bytes()) > 1000
    # MindSpore's own cache would use the same graph for another label smoothing.
    other = {"label_smoothing": 0.2}
    assert forked(tmp_path / "other", environment=environment, recipe=other) == 0
    assert len(graphs()) == 2
    off = {"MS_COMPILER_CACHE_ENABLE": "0"}
    assert forked(tmp_path / "off", environment=environment | off, recipe=other) == 0
    assert len(graphs()) == 2
    assert digests(tmp_path / "off") == digests(tmp_path / "other")


def test_two_trainings_that_compile_at_the_same_time_leave_one_complete_graph(
    uninterrupted: Callable[[str], Path], forked: Trainings, tmp_path: Path
) -> None:
    environment = {"SKNET_CACHE": str(tmp_path / "cache")}
    pair = [tmp_path / "one", tmp_path / "two"]
    assert forked.together(pair, environment=environment) == [0, 0]
    assert [metrics(each)[1]["type"] for each in pair] == ["compile", "compile"]
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
    assert [digests(each) for each in (*pair, third)] == [digests(uninterrupted("plain"))] * 3
