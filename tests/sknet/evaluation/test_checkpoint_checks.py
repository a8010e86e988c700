"""The checks of a finished checkpoint: every fault fails a check by name, none ends the program."""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mindspore import Tensor

from sknet.data.shards import ShardSet
from sknet.evaluation.checks import check_checkpoint
from sknet.planning import plan_run
from sknet.recipe import Recipe, load_recipe
from sknet.records import Checkpoint, CheckpointChecks, Evaluation, Layout, Shards
from sknet.training import checkpoint
from sknet.training.step import TrainStep
from tests.sknet.tiny_networks import tiny_network

ALL_CHECKS = [
    *("state", "recipe", "shards", "run", "progress", "layouts", "evaluations", "files"),
    *("weights", "parameters", "finite", "positive variances"),
]


def evaluation(correct: int) -> Evaluation:
    return Evaluation(
        split="val",
        resolution=32,
        seen=6,
        correct_top1=correct,
        correct_top5=6,
        loss_sum=3.5,
        class_seen=(2, 2, 2),
        class_correct=(correct, 0, 0),
    )


def finished(recipe: Recipe, shards: Shards, directory: Path, **choices: Any) -> Path:
    """Write a checkpoint of the last step, as a training does."""
    recipe = recipe.model_copy(update=choices)
    run = plan_run(recipe, shards, 1, "CPU")
    step = TrainStep(tiny_network(), recipe, [0.1] * run.total_steps)
    state = Checkpoint(
        run=run,
        layouts=(Layout(first_step=0, world_size=2), Layout(first_step=4, world_size=1)),
        step=6,
        epoch=2,
        samples_seen=24,
        num_params=sum(p.size for p in step.network.trainable_params()),
        best_top1=2,
        best_step=3,
        evaluations=((1, evaluation(2)), (2, evaluation(2))),
        files=(),
    )
    return checkpoint.write(checkpoint.Snapshot(checkpoint.parameters_of(step)), directory, state)


@pytest.fixture(scope="module")
def recipe(recipe_file: Path) -> Recipe:
    return load_recipe(str(recipe_file))


@pytest.fixture(scope="module")
def intact(recipe: Recipe, converted: ShardSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished checkpoint; don't change it."""
    return finished(recipe, converted.record, tmp_path_factory.mktemp("intact"))


@pytest.fixture(scope="module")
def check(recipe: Recipe, converted: ShardSet) -> Callable[[Path], CheckpointChecks]:
    fresh = tiny_network()
    return lambda directory: check_checkpoint(directory, fresh, recipe, converted.record)


@pytest.fixture
def copy(intact: Path, tmp_path: Path) -> Path:
    return shutil.copytree(intact, tmp_path / "copy")


def faults(checks: CheckpointChecks) -> dict[str, str]:
    for each in checks.checks:
        assert len(each.detail.splitlines()) == 1, each
        # Damage may put any character into a name, a slash too.
        assert tempfile.gettempdir() not in each.detail, "details must not depend on the directory"
    return {each.name: each.detail for each in checks.checks if not each.passed}


def test_an_intact_checkpoint_passes_every_check(
    check: Callable[[Path], CheckpointChecks], intact: Path
) -> None:
    result = check(intact)
    assert (result.passed, faults(result)) == (True, {})
    assert [each.name for each in result.checks] == ALL_CHECKS


@pytest.mark.parametrize(
    "choices",
    [{"opt": "sgd"}, {"opt": "adamw"}, {"opt": "lamb", "ema": True}, {"amp_level": "O2"}],
    ids=str,
)
def test_the_state_of_every_training_step_is_known(
    recipe: Recipe, converted: ShardSet, tmp_path: Path, choices: dict[str, Any]
) -> None:
    path = finished(recipe, converted.record, tmp_path, **choices)
    expected = recipe.model_copy(update=choices)
    assert check_checkpoint(path, tiny_network(), expected, converted.record).passed


def with_state(directory: Path, changes: Mapping[str, Any]) -> None:
    """Set values of state.json; the keys of `changes` are dotted paths."""
    file = directory / "state.json"
    state = json.loads(file.read_text("utf-8"))
    for path, value in changes.items():
        *parents, last = path.split(".")
        target = state
        for parent in parents:
            target = target[int(parent) if parent.isdecimal() else parent]
        target[int(last) if last.isdecimal() else last] = value
    file.write_text(json.dumps(state), "utf-8")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"step": 5}, {"progress": "step is 5, expected 6; samples seen is 24, expected 20; "}),
        ({"samples_seen": 23}, {"progress": "samples seen is 23, expected 24"}),
        ({"epoch": 3}, {"progress": "epoch is 3, expected 2"}),
        ({"num_params": 1}, {"run": "trainable parameters is 1, expected "}),
        ({"run.recipe.lr": 0.5}, {"recipe": "lr is 0.5, expected 0.01"}),
        ({"run.recipe.jit_level": "O2"}, {"recipe": "jit_level is 'O2', expected None"}),
        ({"run.shards_digest": "0" * 64}, {"shards": f"digest is {'0' * 64}, expected "}),
        ({"run.classes.0": "cow"}, {"shards": "class 0 is 'cow', expected 'cat'"}),
        ({"run.steps_per_epoch": 4}, {"run": "steps per epoch is 4, expected 3"}),
        ({"run.global_batch_size": 5}, {"run": "global batch is 5, expected 4"}),
        ({"layouts": []}, {"layouts": "first steps are [], expected them from 0 on"}),
        ({"layouts.1.first_step": 0}, {"layouts": "first steps are [0, 0], expected them rising"}),
        ({"layouts.1.first_step": 6}, {"layouts": "first steps are [0, 6], expected them rising"}),
        ({"layouts.1.world_size": 3}, {"layouts": "3 ranks can't share a global batch of 4"}),
        ({"evaluations": []}, {"evaluations": "last epoch is [], expected [2]"}),
        ({"evaluations.0.0": 2}, {"evaluations": "epochs are [2, 2], expected them rising"}),
        ({"evaluations.0.1.seen": 7}, {"evaluations": "of epoch 1: seen is 7, expected 6"}),
        ({"evaluations.0.1.split": "a\nb"}, {"evaluations": r"of epoch 1: split is 'a\nb', "}),
        ({"evaluations.1.1.correct_top1": 3}, {"evaluations": "of epoch 2: correct of all "}),
        ({"best_top1": None}, {"evaluations": "best count is None, expected 2"}),
        ({"best_step": 6}, {"evaluations": "best step is 6, expected 3"}),
        ({"files": []}, {"files": "files are [], expected model.ckpt"}),
        ({"files.0.size": 1}, {"files": "size of model.ckpt is "}),
        ({"files.0.name": "other"}, {"files": "files are ['other'], expected model.ckpt; "}),
    ],
    ids=lambda value: next(iter(value.items()))[0] if isinstance(value, dict) else None,
)
def test_a_state_of_another_run_fails_with_what_was_found_and_expected(
    check: Callable[[Path], CheckpointChecks],
    copy: Path,
    changes: dict[str, Any],
    expected: dict[str, str],
) -> None:
    with_state(copy, changes)
    found = faults(check(copy))
    for name, detail in expected.items():
        assert found[name].startswith(detail)


def test_a_choice_that_the_checkpoint_left_at_its_default_is_compared_too(
    recipe: Recipe, converted: ShardSet, copy: Path
) -> None:
    expected = recipe.model_copy(update={"jit_level": "O2"})
    result = check_checkpoint(copy, tiny_network(), expected, converted.record)
    assert faults(result) == {"recipe": "jit_level is None, expected 'O2'"}


def with_weights(directory: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the arrays of model.ckpt, and its size and SHA-256 in state.json."""
    values = {
        name: p.asnumpy() for name, p in ms.load_checkpoint(str(directory / "model.ckpt")).items()
    }
    change(values)
    ms.save_checkpoint(
        [{"name": name, "data": Tensor(value)} for name, value in values.items()],
        str(directory / "model.ckpt"),
        crc_check=True,
    )
    size = (directory / "model.ckpt").stat().st_size
    sha256 = checkpoint.file_sha256(directory / "model.ckpt")
    with_state(directory, {"files.0.size": size, "files.0.sha256": sha256})


VARIANCE, WEIGHT = "stem.bn.moving_variance", "stem.conv.weight"


def fill(name: str, value: float) -> Callable[[dict[str, Any]], object]:
    return lambda values: values.update({name: np.full_like(values[name], value)})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda v: v.pop(WEIGHT), {"parameters": f"{WEIGHT} is missing"}),
        (
            lambda v: v.update(extra=np.zeros(3, np.float32)),
            {"parameters": "extra is unknown"},
        ),
        (
            lambda v: v.update({"moments.stem.other": np.zeros(3, np.float32)}),
            {"parameters": "moments.stem.other is unknown"},
        ),
        (
            lambda v: v.update({WEIGHT: v[WEIGHT][:-1]}),
            {"parameters": f"shape of {WEIGHT} is (63, 3, 7, 7), expected (64, 3, 7, 7)"},
        ),
        (
            lambda v: v.update({WEIGHT: v[WEIGHT].astype(np.float16)}),
            {"parameters": f"type of {WEIGHT} is 'float16', expected 'float32'"},
        ),
        (fill(WEIGHT, np.nan), {"finite": f"{WEIGHT} has values that are not"}),
        (fill(f"moments.{WEIGHT}", np.inf), {"finite": f"moments.{WEIGHT} has values that are"}),
        (fill(VARIANCE, 0), {"positive variances": f"{VARIANCE} has values that are not"}),
        (
            fill(VARIANCE, np.nan),
            {
                "finite": f"{VARIANCE} has values that are not",
                "positive variances": f"{VARIANCE} has values that are not",
            },
        ),
    ],
)
def test_weights_of_another_network_fail_by_name(
    check: Callable[[Path], CheckpointChecks],
    copy: Path,
    change: Callable[[dict[str, Any]], object],
    expected: dict[str, str],
) -> None:
    with_weights(copy, change)
    found = faults(check(copy))
    assert found.keys() == expected.keys()
    for name, detail in expected.items():
        assert found[name].startswith(detail)


def test_missing_files_fail_the_checks_that_need_them(
    check: Callable[[Path], CheckpointChecks], copy: Path
) -> None:
    (copy / "model.ckpt").unlink()
    found = faults(check(copy))
    assert found.keys() == {"files", "weights"}
    assert found["files"] == "model.ckpt can't be read: No such file or directory"
    (copy / "model.ckpt").mkdir()
    assert faults(check(copy)).keys() == {"files", "weights"}
    (copy / "state.json").unlink()
    result = check(copy)
    assert [each.name for each in result.checks] == ["state", "weights"]
    assert "No such file or directory" in faults(result)["state"]


def test_enormous_numbers_are_shortened(
    check: Callable[[Path], CheckpointChecks], copy: Path
) -> None:
    huge = 10**4000
    with_state(copy, {"step": huge, "run.recipe.epoch_size": huge, "run.steps_per_epoch": huge})
    found = faults(check(copy))
    assert {"recipe", "run", "progress"} <= found.keys()
    assert max(map(len, found.values())) < 1000


@settings(max_examples=100)
@given(st.data())
def test_any_damage_fails_a_check_without_an_exception(
    check: Callable[[Path], CheckpointChecks],
    intact: Path,
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
) -> None:
    damaged = tmp_path_factory.getbasetemp() / "damaged"
    shutil.rmtree(damaged, ignore_errors=True)
    shutil.copytree(intact, damaged)
    file = damaged / data.draw(st.sampled_from(["state.json", "model.ckpt"]))
    content = bytearray(file.read_bytes())
    # The start and the end of the weights contain names and the checksum.
    at = data.draw(st.integers(0, min(4000, len(content) - 1)))
    if data.draw(st.booleans()):
        at = len(content) - 1 - at
    match data.draw(st.sampled_from(["flip", "cut", "foreign"])):
        case "flip":
            content[at] ^= 1 << data.draw(st.integers(0, 7))
        case "cut":
            del content[at:]
        case "foreign":
            content[:] = data.draw(st.binary(max_size=99))
    file.write_bytes(content)
    result = check(damaged)
    faults(result)
    if file.name == "model.ckpt":
        assert not result.passed
