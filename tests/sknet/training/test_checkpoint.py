"""A checkpoint is complete or absent, and belongs to its run; damage is reported and skipped."""

import shutil
from collections.abc import Callable
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from sknet.errors import UserError
from sknet.models.weights import load_weights
from sknet.records import Checkpoint
from sknet.training import checkpoint
from sknet.world import World
from tests.refusals import refusal
from tests.sknet.ranks import in_threads
from tests.sknet.training.checkpoints import (
    RECIPE,
    make_network,
    make_run,
    new_step,
    save,
    save_three,
    state_at,
)


def values(cell: nn.Cell) -> dict[str, bytes]:
    return {p.name: p.asnumpy().tobytes() for p in cell.get_parameters()}


def noting(skipped: list[tuple[str, str]]) -> Callable[[Path, str], None]:
    return lambda path, fault: skipped.append((path.name, fault))


def never(path: Path, fault: str) -> None:
    pytest.fail(f"{path.name}: {fault}")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Checkpoints of the steps 3, 6 and 9."""
    return save_three(tmp_path / "ckpt")


def test_a_restored_checkpoint_has_every_bit_of_the_saved_step(saved: Path) -> None:
    path = saved / "step-00000006"
    assert checkpoint.read_state(path).step == 6
    other = new_step(1)
    assert values(other) != values(new_step(6))
    checkpoint.restore(other, path)
    assert values(other) == values(new_step(6))


def test_optimizer_state_and_statistics_are_saved(saved: Path) -> None:
    names = ms.load_checkpoint(str(saved / "step-00000003/model.ckpt")).keys()
    assert {"0.weight", "1.moving_mean", "moments.0.weight", "global_step"} <= set(names)


def test_equal_states_give_equal_files(tmp_path: Path) -> None:
    one, two = (save(new_step(3), tmp_path / name, 3) for name in ("one", "two"))
    for name in ("model.ckpt", "state.json"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_a_network_loads_its_weights_from_a_checkpoint(saved: Path) -> None:
    network = make_network()
    load_weights(network, saved / "step-00000006/model.ckpt", "sknet")
    assert values(network).items() <= values(new_step(6)).items()


def test_the_newest_checkpoint_is_found(saved: Path) -> None:
    skipped: list[tuple[str, str]] = []
    skip = noting(skipped)
    newest = checkpoint.newest_valid(saved, make_run(), skip)
    assert newest == (saved / "step-00000009", checkpoint.read_state(saved / "step-00000009"))
    assert skipped == []


def test_without_checkpoints_there_is_no_newest(tmp_path: Path) -> None:
    (tmp_path / "step-1").mkdir()
    (tmp_path / ".saving").mkdir()
    for directory in (tmp_path, tmp_path / "none"):
        assert checkpoint.newest_valid(directory, make_run(), never) is None


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, flip])
def test_damaged_checkpoint_is_named_and_skipped(
    saved: Path, damage: Callable[[Path], None]
) -> None:
    damage(saved / "step-00000009/model.ckpt")
    (saved / "step-00000006/model.ckpt").unlink()
    skipped: list[tuple[str, str]] = []
    skip = noting(skipped)
    newest = checkpoint.newest_valid(saved, make_run(), skip)
    assert newest is not None
    assert newest[0].name == "step-00000003"
    assert skipped == [
        (
            "step-00000009",
            f"checkpoint file {saved / 'step-00000009/model.ckpt'} is damaged (SHA-256 differs)",
        ),
        (
            "step-00000006",
            f"checkpoint file {saved / 'step-00000006/model.ckpt'} is missing",
        ),
    ]


@pytest.mark.parametrize("damage", [truncate, Path.unlink])
def test_checkpoint_without_a_valid_state_is_skipped(
    saved: Path, damage: Callable[[Path], None]
) -> None:
    state = saved / "step-00000009/state.json"
    state.write_text(state.read_text().rstrip())
    damage(state)
    skipped: list[tuple[str, str]] = []
    skip = noting(skipped)
    newest = checkpoint.newest_valid(saved, make_run(), skip)
    assert newest is not None
    assert newest[0].name == "step-00000006"
    assert [name for name, _ in skipped] == ["step-00000009"]


def newest_of_hosts(*directories: Path) -> tuple[list[int | str], list[str]]:
    """Let a rank on each host look for checkpoints in its host's directory.

    Returns:
        The step that each rank finds, or why it refuses; and what rank 0 reports.
    """
    reports: list[str] = []

    def find(world: World) -> int | str:
        directory = directories[world.rank]
        report = reports.append if world.rank == 0 else len
        try:
            newest = checkpoint.newest_of_all(directory, make_run(), world, noting([]), report)
        except UserError as error:
            return str(error)
        return newest[1].step if newest else 0

    return in_threads(len(directories), find), reports


def test_ranks_whose_hosts_have_different_checkpoints_take_the_newest_that_all_have(
    saved: Path, tmp_path: Path
) -> None:
    other, third = tmp_path / "other", tmp_path / "third"
    shutil.copytree(saved, other)
    shutil.copytree(saved, third)
    assert newest_of_hosts(saved, other, third) == ([9, 9, 9], [])
    flip(other / "step-00000009/model.ckpt")
    flip(third / "step-00000006/model.ckpt")
    # The other host's newest is step 6, which is damaged on the third one.
    assert newest_of_hosts(saved, other, third) == (
        [3, 3, 3],
        [
            "rank 1 has only step-00000006: all start there",
            "rank 2 has only step-00000003: all start there",
        ],
    )


def test_ranks_without_checkpoints_beside_others_do_not_start_anew(
    saved: Path, tmp_path: Path
) -> None:
    none = tmp_path / "none"
    found, _ = newest_of_hosts(saved, none)
    assert found == [
        f"rank {rank} finds step {step} in {directory}, other ranks find another one: all need "
        "the same --ckpt_save_dir on a shared file system"
        for rank, step, directory in ((0, 9, saved), (1, 0, none))
    ]
    assert newest_of_hosts(none, none) == ([0, 0], [])


@pytest.mark.parametrize(("version", "age"), [(4, "a newer"), (1, "an older")])
def test_checkpoint_of_another_format_is_refused(saved: Path, version: int, age: str) -> None:
    state = saved / "step-00000009/state.json"
    set_format(state, version)
    message = refusal(lambda: checkpoint.newest_valid(saved, make_run(), never))
    assert f"step-00000009 was written by {age} version (format {version}" in message


def test_a_training_that_augmented_otherwise_cannot_go_on_but_can_be_read(saved: Path) -> None:
    path = saved / "step-00000009"
    set_format(path / "state.json", 2)
    message = refusal(lambda: checkpoint.newest_valid(saved, make_run(), never))
    assert "step-00000009 was trained by an older version, which augmented images oth" in message
    assert message.endswith("or give another --ckpt_save_dir to train anew")
    assert Checkpoint.read(path / "state.json").step == 9


def set_format(state: Path, version: int) -> None:
    written = state.read_text()
    changed = written.replace('"format_version": 3', f'"format_version": {version}')
    assert changed != written
    state.write_text(changed)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            {"recipe": RECIPE.model_copy(update={"lr": 0.2, "hflip": 0.0})},
            "hflip is 0.5 there, 0.0 here; lr is 0.1 there, 0.2 here",
        ),
        (
            {"classes": ("a", "b", "d")},
            "classes is ('a', 'b', 'c') there, ('a', 'b', 'd') here",
        ),
        (
            {"world_size": 2, "device_target": "Ascend"},
            "device_target is 'CPU' there, 'Ascend' here",
        ),
    ],
)
def test_checkpoint_of_another_run_is_refused(
    saved: Path, changes: dict[str, object], named: str
) -> None:
    message = refusal(lambda: checkpoint.newest_valid(saved, make_run(**changes), never))
    assert f"holds checkpoints of another run ({named})" in message


def test_checkpoint_of_the_run_planned_for_another_number_of_ranks_is_accepted(saved: Path) -> None:
    other = make_run(world_size=2, global_batch_size=8, steps_per_epoch=1)
    newest = checkpoint.newest_valid(saved, other, never)
    assert newest is not None
    assert newest[1].run == make_run()


@pytest.mark.parametrize(
    "change",
    [{"name": "other"}, {"log_interval": 7}, {"keep_checkpoint_max": 9}, {"min_accuracy": 0.9}],
    ids=str,
)
def test_checkpoint_of_a_recipe_that_trains_the_same_is_accepted(
    saved: Path, change: dict[str, object]
) -> None:
    other = make_run(recipe=RECIPE.model_copy(update=change))
    assert checkpoint.newest_valid(saved, other, never) is not None


def test_weights_of_other_shapes_are_refused_by_name(saved: Path) -> None:
    file = saved / "step-00000009/model.ckpt"
    message = refusal(lambda: load_weights(make_network(5), file, "sknet"))
    assert message == (
        f"{file} doesn't fit the model (2 of another shape): "
        "2.weight has shape (3, 8), expected (5, 8); "
        "2.bias has shape (3,), expected (5,)"
    )


def test_missing_and_unknown_weights_are_counted_and_named(saved: Path) -> None:
    file = saved / "step-00000009/model.ckpt"
    network = nn.SequentialCell(nn.Dense(4, 8), nn.Dense(8, 3))
    before = values(network)
    message = refusal(lambda: load_weights(network, file, "sknet"))
    # 1.weight and 1.bias are missing; BatchNorm's four and the two of the last layer unknown.
    assert message.startswith(
        f"{file} doesn't fit the model (2 missing, 6 unknown): 1.weight is missing; "
    )
    assert values(network) == before


def test_non_finite_weights_are_refused(tmp_path: Path) -> None:
    step = new_step(3)
    weight = step.network[0].weight
    weight.set_data(Tensor(np.full(weight.shape, np.nan, np.float32)))
    path = save(step, tmp_path, 3)
    message = refusal(lambda: load_weights(make_network(), path / "model.ckpt", "sknet"))
    assert message.endswith("0.weight has non-finite values")


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.ckpt"
    file.write_bytes(b"\x00" * 100)
    assert "is no MindSpore checkpoint" in refusal(
        lambda: load_weights(make_network(), file, "sknet")
    )


def test_a_damaged_checkpoint_is_replaced(saved: Path) -> None:
    truncate(saved / "step-00000009/model.ckpt")
    save(new_step(9), saved, 9)
    assert checkpoint.read_state(saved / "step-00000009").step == 9


def test_the_newest_and_the_best_are_kept(saved: Path) -> None:
    save(new_step(12), saved, 12)
    (saved / "metrics.jsonl").write_text("")
    checkpoint.remove_old(saved, 2, best_step=3)
    names = sorted(path.name for path in saved.iterdir())
    assert names == ["metrics.jsonl", "step-00000003", "step-00000009", "step-00000012"]
    checkpoint.remove_old(saved, 2, best_step=None)
    assert [path.name for path in checkpoint.list_checkpoints(saved)] == names[2:]


def test_a_damaged_checkpoint_that_was_set_aside_is_not_listed(saved: Path) -> None:
    for _ in range(2):
        aside = checkpoint.set_aside(saved / "step-00000009")
        assert aside.name == "damaged-step-00000009"
        names = [path.name for path in checkpoint.list_checkpoints(saved)]
        assert names == ["step-00000003", "step-00000006"]
        save(new_step(9), saved, 9)


def test_the_file_is_the_one_that_mindspore_writes(saved: Path, tmp_path: Path) -> None:
    peer = tmp_path / "peer.ckpt"
    ms.save_checkpoint(new_step(9), str(peer), crc_check=True)
    assert (saved / "step-00000009/model.ckpt").read_bytes() == peer.read_bytes()


def test_statistics_of_all_ranks_are_saved_and_verified(tmp_path: Path) -> None:
    cell = new_step(3)
    statistics = np.arange(6, dtype=np.float32).reshape(2, 3)
    snapshot = checkpoint.Snapshot(checkpoint.parameters_of(cell), statistics)
    path = checkpoint.write(snapshot, tmp_path, state_at(3))
    read = checkpoint.read_statistics(path)
    assert read is not None
    assert read.tobytes() == statistics.tobytes()
    flip(path / "statistics.npy")
    assert "statistics.npy is damaged" in refusal(lambda: checkpoint.read_state(path))


def test_a_snapshot_does_not_change_with_the_training(tmp_path: Path) -> None:
    cell = new_step(3)
    before = values(cell)
    snapshot = checkpoint.parameters_of(cell)
    for parameter in cell.get_parameters():
        parameter.set_data(Tensor(np.zeros(parameter.shape), parameter.dtype))
    assert {name: array.tobytes() for name, array in snapshot.items()} == before


def test_values_that_are_not_finite_are_found_in_the_statistics_of_any_rank() -> None:
    weights = {"weight": np.ones(2, np.float32), "steps": np.zeros(1, np.int32)}
    statistics = np.ones((3, 2), np.float32)
    assert checkpoint.Snapshot(weights, statistics).find_non_finite() is None
    statistics[2, 1] = np.nan
    found = checkpoint.Snapshot(weights, statistics).find_non_finite()
    assert found == "BatchNorm of rank 2"
    weights["weight"] = np.array([1, np.inf], np.float32)
    assert checkpoint.Snapshot(weights, statistics).find_non_finite() == "weight"
