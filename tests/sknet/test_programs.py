"""The programs convert and validate: what they write, and that it is reproducible."""

import json
import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import mindspore as ms
import pytest

from sknet import convert, train, validate
from sknet.data.shards import Row, ShardSet, count_rows, read_rows
from sknet.device import find_cards
from sknet.evaluation.predictions import read_predictions
from sknet.models import create_model
from sknet.models.weights import save_safetensors
from sknet.planning import plan_run
from sknet.recipe import load_recipe
from sknet.records import (
    Attention,
    Checkpoint,
    CheckpointChecks,
    Evaluation,
    Examples,
    Layout,
    Shards,
)
from sknet.records.calibration import Calibration
from sknet.training.checkpoint import Snapshot, write
from sknet.training.trainer import other_classes
from tests.sknet.conversions import contents
from tests.sknet.tiny_networks import tiny_network

pytestmark = pytest.mark.usefixtures("program_state")


def test_conversion_writes_shards_and_their_record(
    call: Callable[..., tuple[int, str, str]], folders: Path, away: Path
) -> None:
    code, output, errors = call(
        *(convert, "--source", folders, "--out", "shards", "--shards", 1, "--workers", 1),
        *("--json", "records/shards.json", "--outcome_file", "outcome.json"),
    )
    assert (code, errors) == (0, "")
    *_, progress, last = output.splitlines()
    assert progress.startswith("converted 21/21 images (100.0%), ")
    assert last == "21 images converted, 0 left out"
    record = Shards.read(away / "records/shards.json")
    assert record == Shards.read(away / "shards/shards.json")
    assert [file.name for file in record.files] == [
        "train-00000-of-00001.mindrecord",
        "val-00000-of-00001.mindrecord",
    ]
    assert json.loads((away / "outcome.json").read_text()) == {"status": "done", "message": ""}


def test_validating_weights_prints_and_writes_the_counts(
    call: Callable[..., tuple[int, str, str]],
    config: tuple[str, ...],
    converted: ShardSet,
    checkpoints: dict[int, Path],
    away: Path,
) -> None:
    shutil.copy(checkpoints[3], "weights.ckpt")
    Path("state.json").write_text("{}")  # it describes model.ckpt, and no other file
    code, output, errors = call(
        *(validate, *config, "--data_dir", converted.directory),
        *("--ckpt_path", "weights.ckpt", "--json", "evaluation.json"),
    )
    assert code == 0, errors
    record = Evaluation.read(away / "evaluation.json")
    assert (record.split, record.resolution, record.seen) == ("val", 32, 6)
    assert record.class_seen == (2, 2, 2)
    assert sum(record.class_correct) == record.correct_top1
    device, warning, counts = output.splitlines()
    assert "it can't be checked whether it was trained on these classes" in warning
    assert device == f"device CPU: {find_cards().said}"
    assert f"({record.correct_top1}/6)" in counts


def test_weights_of_timm_with_other_preprocessing_than_timms_are_told(
    call: Callable[..., tuple[int, str, str]],
    config: tuple[str, ...],
    converted: ShardSet,
    away: Path,
) -> None:
    save_safetensors(tiny_network(3), away / "timm.safetensors", "timm")
    options = (validate, *config, "--data_dir", converted.directory, "--ckpt_path")
    said = "warning: other preprocessing than timm's networks have: "
    differing = "interpolation is bilinear instead of bicubic"
    code, output, errors = call(*options, "timm.safetensors")
    assert (code, f"{said}{differing}\n" in output) == (0, True), errors
    code, output, errors = call(*options, "timm.safetensors", "--set", "interpolation=bicubic")
    assert (code, said in output) == (0, False), errors


def test_training_with_a_file_of_mindcv_says_the_device_first_and_once_which_keys_it_ignores(
    call: Callable[..., tuple[int, str, str]], converted: ShardSet, away: Path
) -> None:
    theirs = {"model": "tiny", "dataset": "imagenet", "num_classes": 4, "opt": "sgd"}
    (away / "theirs.yaml").write_text(json.dumps(theirs))
    handler = logging.StreamHandler(sys.stdout)
    logger = logging.getLogger("sknet.recipe")
    logger.addHandler(handler)
    try:
        code, output, errors = call(
            *(train, "--config", "theirs.yaml", "--data_dir", converted.directory),
            *("--set", "num_parallel_workers=1"),
        )
    finally:
        logger.removeHandler(handler)
    assert (code, errors) == (2, "error: num_classes is 4, but the data set has 3 classes\n")
    assert output.splitlines() == [
        f"device CPU: {find_cards().said}",
        "recipe theirs.yaml is MindCV's; without effect here: dataset",
    ]


def rows_of(shard: Path) -> list[Row]:
    return read_rows(shard, range(count_rows(shard)))


@pytest.fixture
def finished(
    checkpoints: dict[int, Path], converted: ShardSet, recipe_file: Path, away: Path
) -> Path:
    """The last checkpoint of a training, with invented counts of its evaluation."""
    network = tiny_network(num_classes=3)
    weights = ms.load_checkpoint(str(checkpoints[3]))
    recipe = load_recipe(str(recipe_file), ["model=tiny"])
    run = plan_run(recipe, converted.record, 1, "CPU")
    evaluation = Evaluation(
        split="val",
        resolution=32,
        seen=6,
        correct_top1=2,
        correct_top5=6,
        loss_sum=6.5,
        class_seen=(2, 2, 2),
        class_correct=(2, 0, 0),
    )
    state = Checkpoint(
        run=run,
        layouts=(Layout(first_step=0, world_size=1),),
        step=6,
        epoch=2,
        samples_seen=24,
        num_params=sum(p.size for p in network.trainable_params()),
        best_top1=2,
        best_step=6,
        evaluations=((2, evaluation),),
        files=(),
    )
    snapshot = Snapshot({name: value.asnumpy() for name, value in weights.items()})
    return write(snapshot, away / "ckpt", state)


def lines_of(file: Path) -> list[str]:
    return file.read_text("utf-8").splitlines()


def test_validating_a_checkpoint_writes_checks_counts_predictions_attention_and_examples(
    call: Callable[..., tuple[int, str, str]],
    config: tuple[str, ...],
    converted: ShardSet,
    finished: Path,
    away: Path,
) -> None:
    options = [*config, "--data_dir", converted.directory, "--ckpt_path", finished]
    code, output, errors = call(validate, *options, "--out", "one", "--json", "primary.json")
    assert (code, errors) == (0, "")
    checks = CheckpointChecks.read(away / "one/checks.json")
    assert checks.passed
    record = Evaluation.read(away / "one/evaluation.json")
    assert (away / "primary.json").read_bytes() == (away / "one/evaluation.json").read_bytes()
    low, high = record.interval_top1
    assert f"95 % interval {low:.2%} to {high:.2%}" in output
    calibration = Calibration.read(away / "one/calibration.json")
    assert (
        f"calibration error {record.calibration_error:.4f} ({calibration.describe()})\n" in output
    )
    assert record.balanced_accuracy is not None
    assert f"balanced accuracy {record.balanced_accuracy.value:.2%}" in output
    assert record.macro_f1 is not None
    assert f"macro-F1 {record.macro_f1.value:.2%}" in output
    assert "accuracy@5" not in output, "of three classes it says nothing"

    stored = read_predictions(away / "one/predictions.parquet")
    assert (len(stored.keys), stored.correct.sum()) == (6, record.correct_top1)
    rows = [
        row
        for file in converted.record.files_of("val")
        for row in rows_of(converted.directory / file.name)
    ]
    assert stored.keys == tuple(row.key for row in rows)
    assert stored.labels.tolist() == [row.label for row in rows]
    examples = Examples.read(away / "one/examples.json").examples
    assert len(examples) == record.seen - record.correct_top1
    for example in examples:
        number = stored.keys.index(example.key)
        assert (example.label, example.predicted) == (stored.labels[number], stored.top[number, 0])
        assert (away / "one" / example.file).is_file()
    names = [line.split(",")[1] for line in lines_of(away / "one/classes.csv")[1:]]
    assert tuple(names) == converted.record.dataset.titles
    matrix = [line.split(",")[1:] for line in lines_of(away / "one/confusion.csv")[1:]]
    assert tuple(sum(map(int, row)) for row in matrix) == record.class_seen
    assert tuple(int(row[label]) for label, row in enumerate(matrix)) == record.class_correct
    attention = Attention.read(away / "one/attention.json")
    assert [unit.unit for unit in attention.units] == ["SK_2_1", "SK_3_1"]

    assert call(validate, *options, "--out", "two") == (0, output, "")
    assert contents(away / "one") == contents(away / "two")


def test_a_checkpoint_that_fails_a_check_is_not_evaluated(
    call: Callable[..., tuple[int, str, str]],
    config: tuple[str, ...],
    converted: ShardSet,
    finished: Path,
    away: Path,
) -> None:
    code, output, errors = call(
        *(validate, *config, "--set", "lr=0.5", "--data_dir", converted.directory),
        *("--ckpt_path", finished, "--out", "out"),
    )
    assert (code, output) == (1, f"device CPU: {find_cards().said}\n")
    (line,) = errors.splitlines()
    assert line == f"error: {finished} is not evaluated: recipe: lr is 0.01, expected 0.5"
    assert contents(away / "out").keys() == {"checks.json"}
    assert not CheckpointChecks.read(away / "out/checks.json").passed


def test_a_checkpoint_is_validated_by_the_recipe_of_its_training_unless_another_is_given(
    call: Callable[..., tuple[int, str, str]],
    config: tuple[str, ...],
    converted: ShardSet,
    finished: Path,
    away: Path,
) -> None:
    given = (validate, "--data_dir", converted.directory, "--ckpt_path", finished)
    code, own, errors = call(*given, "--json", "own.json")
    assert (code, errors) == (0, "")
    assert call(*given, *config, "--json", "same.json") == (0, own, "")
    assert (away / "own.json").read_bytes() == (away / "same.json").read_bytes()

    code, larger, errors = call(*given, "--set", "image_resize=64", "--set", "lr=0.5")
    assert (code, errors) == (0, "")
    expected = "warning: other preprocessing than in training: image_resize is 64 instead of 32"
    assert larger.splitlines()[1] == expected
    assert larger.splitlines()[-1].startswith("64x64: ")


def renamed(converted: ShardSet, directory: Path, classes: tuple[str, ...]) -> Path:
    """Return a copy of shards in which the classes have other names."""
    shutil.copytree(converted.directory, directory)
    dataset = converted.record.dataset.model_copy(update={"classes": classes, "titles": classes})
    converted.record.model_copy(update={"dataset": dataset}).write(directory / "shards.json")
    return directory


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("cat", "dog", "fox"), "class 2 is 'fox' instead of 'emu'"),
        (("dog", "cat", "emu"), "class 0 is 'dog' instead of 'cat'"),
        (("cat", "dog", "emu", "fox"), "has 4 classes, but the checkpoint was trained on 3"),
    ],
)
def test_a_checkpoint_is_not_validated_on_other_classes(
    call: Callable[..., tuple[int, str, str]],
    converted: ShardSet,
    finished: Path,
    away: Path,
    classes: tuple[str, ...],
    message: str,
) -> None:
    data = renamed(converted, away / "renamed", classes)
    code, _, errors = call(validate, "--data_dir", data, "--ckpt_path", finished)
    assert code == 2
    assert message in errors


def test_weights_alone_need_a_recipe_and_a_checkpoint_one_of_its_network(
    call: Callable[..., tuple[int, str, str]],
    config: tuple[str, ...],
    converted: ShardSet,
    checkpoints: dict[int, Path],
    finished: Path,
) -> None:
    code, _, errors = call(
        *(validate, "--data_dir", converted.directory, "--ckpt_path", checkpoints[3])
    )
    assert (code, "comes without a state.json" in errors) == (2, True)
    code, _, errors = call(
        *(validate, *config, "--set", "model=skresnet34"),
        *("--data_dir", converted.directory, "--ckpt_path", finished),
    )
    assert (code, "the recipe's model is skresnet34, but " in errors) == (2, True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model=skresnet19", "no model 'skresnet19'"),
        ("global_batch_size=1", "each of 1 workers gets one image in a forward pass"),
        ("gradient_accumulation_steps=4", "each of 1 workers gets one image in a forward pass"),
        ("num_classes=7", "num_classes is 7, but the data set has 3 classes"),
        ("global_batch_size=16", "there are 15 training samples: choose a smaller batch"),
        ("shuffle=blocks", "the global batch is 4, which shuffle_parts 8 don't divide"),
    ],
)
def test_what_can_be_refused_is_refused_before_a_training_converts(
    call: Callable[..., tuple[int, str, str]],
    recipe_file: Path,
    folders: Path,
    away: Path,
    change: str,
    message: str,
) -> None:
    code, output, errors = call(
        *(train, "--config", recipe_file, "--data_dir", folders, "--set", "model=tiny"),
        *("--set", change),
    )
    assert (code, message in errors) == (2, True), errors
    assert len(errors.splitlines()) == 1
    assert "converted" not in output
    assert not (away / "shards").exists()


def test_weights_that_do_not_fit_are_refused_before_a_training_converts(
    call: Callable[..., tuple[int, str, str]], recipe_file: Path, folders: Path, away: Path
) -> None:
    save_safetensors(create_model("tiny", num_classes=7), away / "seven.safetensors")
    code, _, errors = call(
        *(train, "--config", recipe_file, "--data_dir", folders, "--set", "model=tiny"),
        *("--set", "ckpt_path=seven.safetensors"),
    )
    assert (code, "is for 7 classes, the network has 3" in errors) == (2, True), errors
    assert not (away / "shards").exists()


def test_weights_of_a_training_on_other_classes_are_told(
    recipe_file: Path, converted: ShardSet, finished: Path
) -> None:
    recipe = load_recipe(str(recipe_file), ["model=tiny"])
    run = plan_run(recipe, converted.record, 1, "CPU")
    assert other_classes(finished / "model.ckpt", run) is None
    renamed_run = run.model_copy(update={"classes": ("ant", "bee", "cow")})
    message = other_classes(finished / "model.ckpt", renamed_run)
    assert "was trained on other classes (('cat', 'dog', 'emu')) than this data has" in str(message)
