"""The programs: bad input ends with code 2 and one line; good input gives equal records."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import mindspore as ms
import pytest

from sknet import convert, program, train, validate
from sknet.data.shards import Row, count_rows, read_rows
from sknet.evaluation.files import read_predictions
from sknet.models import create_model
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
from sknet.training import device
from sknet.training.checkpoint import Snapshot, write
from sknet.training.device import World
from sknet.training.planning import plan_run
from tests.conversions import contents

pytestmark = pytest.mark.usefixtures("program_state")


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(module: ModuleType, *options: object) -> tuple[int, str, str]:
        arguments = module.parser().parse_args([str(option) for option in options])
        code = program.run(module.main, arguments)
        return code, *capfd.readouterr()

    return run


@pytest.fixture
def refused(call: Callable[..., tuple[int, str, str]]) -> Callable[..., str]:
    """The one line of a refusal."""

    def run(module: ModuleType, *options: object) -> str:
        code, _, errors = call(module, *options)
        assert code == 2, errors
        (line,) = errors.splitlines()
        assert line.startswith("error: ")
        return line

    return run


@pytest.fixture
def recipe(recipe_file: Path) -> tuple[str, Path]:
    return "--config", recipe_file


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Files of freshly initialised networks, by their number of classes."""
    folder = tmp_path_factory.mktemp("checkpoints")
    ms.set_seed(1)
    for num_classes in (3, 4):
        network = create_model("skresnet18", num_classes=num_classes)
        ms.save_checkpoint(network, str(folder / f"{num_classes}.ckpt"))
    return {num_classes: folder / f"{num_classes}.ckpt" for num_classes in (3, 4)}


@pytest.mark.parametrize("module", [train, validate])
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lrr=1", "unknown key 'lrr' (did you mean 'lr'?)"),
        ("epoch_size=many", "epoch_size is 'many'"),
        ("epoch_size=true", "epoch_size is True"),
        ("lr", "override 'lr' has no '='"),
    ],
)
def test_bad_recipe(
    refused: Callable[..., str],
    recipe: tuple[str, Path],
    folders: Path,
    module: ModuleType,
    override: str,
    message: str,
) -> None:
    options = [*recipe, "--data_dir", folders, "--set", override]
    if module is validate:
        options += ["--ckpt_path", "none.ckpt"]
    assert message in refused(module, *options)


def test_missing_recipe(refused: Callable[..., str], folders: Path) -> None:
    line = refused(train, "--config", "none.yaml", "--data_dir", folders)
    assert line.startswith("error: no recipe 'none.yaml'")


@pytest.mark.parametrize(
    ("option", "path", "message"),
    [
        ("--tensorboard", "/proc/nowhere", "--tensorboard /proc/nowhere can't be made: "),
        ("--ckpt_save_dir", "/proc", "/proc can't be written: "),
    ],
)
def test_directory_that_takes_nothing(
    refused: Callable[..., str],
    recipe: tuple[str, Path],
    converted: tuple[Shards, Path],
    option: str,
    path: str,
    message: str,
) -> None:
    assert message in refused(train, *recipe, "--data_dir", converted[1], option, path)


def test_missing_data(refused: Callable[..., str], recipe: tuple[str, Path]) -> None:
    assert "does not exist" in refused(train, *recipe, "--data_dir", "none")
    assert "does not exist" in refused(
        convert, "--source", "none", "--out", "shards", "--shards", 1
    )


def test_empty_data(refused: Callable[..., str], recipe: tuple[str, Path], away: Path) -> None:
    (away / "empty").mkdir()
    assert "has no form known here" in refused(train, *recipe, "--data_dir", "empty")


def test_class_without_images(
    refused: Callable[..., str], recipe: tuple[str, Path], folders: Path, away: Path
) -> None:
    shutil.copytree(folders, away / "images")
    for image in (away / "images/train/dog").iterdir():
        image.unlink()
    assert "class 'dog' has no images" in refused(train, *recipe, "--data_dir", "images")


def test_damaged_shards(
    refused: Callable[..., str],
    recipe: tuple[str, Path],
    converted: tuple[Shards, Path],
    away: Path,
) -> None:
    shutil.copytree(converted[1], away / "copy")
    with (away / "copy/train-00000-of-00002.mindrecord.db").open("ab") as file:
        file.write(b"x")
    assert "is damaged" in refused(train, *recipe, "--data_dir", "copy")


def test_classes_other_than_the_recipe_says(
    refused: Callable[..., str], recipe: tuple[str, Path], converted: tuple[Shards, Path]
) -> None:
    line = refused(train, *recipe, "--data_dir", converted[1], "--set", "num_classes=4")
    assert line == "error: num_classes is 4, but the data set has 3 classes"


def test_world_that_does_not_divide_the_batch(
    refused: Callable[..., str],
    recipe: tuple[str, Path],
    converted: tuple[Shards, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(device, "join_world", lambda **_: World(0, 3))
    line = refused(train, *recipe, "--data_dir", converted[1])
    assert line.startswith("error: global_batch_size 4 can't be divided among 3 workers")


def test_unknown_model(
    refused: Callable[..., str], recipe: tuple[str, Path], converted: tuple[Shards, Path]
) -> None:
    line = refused(train, *recipe, "--data_dir", converted[1], "--set", "model=skresnet81")
    nearest = "(did you mean 'skresnet18' or 'skresnet50' or 'skresnet34'?): expected one of"
    assert line.startswith(f"error: no model 'skresnet81' {nearest} skresnet18, ")


def test_distribution_without_its_launcher(
    refused: Callable[..., str], recipe: tuple[str, Path], converted: tuple[Shards, Path]
) -> None:
    line = refused(train, *recipe, "--data_dir", converted[1], "--distribute", "True")
    assert line.startswith("error: --distribute True without msrun")


@pytest.mark.parametrize("name", ["GPU", "Ascend"])
def test_device_that_is_not_there(
    refused: Callable[..., str], recipe: tuple[str, Path], converted: tuple[Shards, Path], name: str
) -> None:
    line = refused(train, *recipe, "--data_dir", converted[1], "--device_target", name)
    assert name in line


def test_missing_checkpoint(
    refused: Callable[..., str], recipe: tuple[str, Path], folders: Path
) -> None:
    line = refused(validate, *recipe, "--data_dir", folders, "--ckpt_path", "none.ckpt")
    assert line == "error: checkpoint none.ckpt does not exist"


def test_checkpoint_of_another_model(
    refused: Callable[..., str],
    recipe: tuple[str, Path],
    converted: tuple[Shards, Path],
    checkpoints: dict[int, Path],
) -> None:
    line = refused(validate, *recipe, "--data_dir", converted[1], "--ckpt_path", checkpoints[4])
    assert "4.ckpt is for 4 classes, the network has 3: " in line


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--shards", 0, "at least 1"),
        ("--workers", 0, "at least 1"),
        ("--shorter-side", -1, "at least 1"),
        ("--quality", 101, "at most 100"),
        ("--max-quarantine", 1.5, "a share: 0 to 1"),
    ],
)
def test_conversion_that_makes_no_sense(
    refused: Callable[..., str], folders: Path, option: str, value: float, expected: str
) -> None:
    options = ["--source", folders, "--out", "shards", "--shards", "auto", option, value]
    assert refused(convert, *options) == f"error: {option} is {value}, expected {expected}"


def test_output_that_is_a_file(refused: Callable[..., str], folders: Path, away: Path) -> None:
    (away / "shards").write_text("")
    line = refused(convert, "--source", folders, "--out", "shards", "--shards", 1)
    assert line == "error: --out shards can't be made: File exists"


def test_checkpoint_directory_that_is_a_file(
    refused: Callable[..., str],
    recipe: tuple[str, Path],
    converted: tuple[Shards, Path],
    away: Path,
) -> None:
    (away / "ckpt").write_text("")
    line = refused(train, *recipe, "--data_dir", converted[1])
    assert line == "error: --ckpt_save_dir ckpt can't be made: File exists"


def test_record_that_cannot_be_written_is_refused_before_the_work(
    refused: Callable[..., str],
    recipe: tuple[str, Path],
    folders: Path,
    checkpoints: dict[int, Path],
    away: Path,
) -> None:
    (away / "file").write_text("")
    options = ["--source", folders, "--out", "shards", "--shards", 1, "--workers", 1]
    line = refused(convert, *options, "--json", "file/shards.json")
    assert line.startswith("error: --json file can't be made: ")
    options = [*recipe, "--data_dir", "none", "--ckpt_path", checkpoints[3]]
    line = refused(validate, *options, "--json", "file/evaluation.json")
    assert line.startswith("error: --json file can't be made: ")
    assert [path.name for path in away.iterdir()] == ["file"]


def test_a_refusal_is_told_to_the_launcher_too(
    refused: Callable[..., str], folders: Path, away: Path
) -> None:
    options = ["--source", folders, "--out", "shards", "--shards", 0]
    line = refused(convert, *options, "--outcome_file", "outcome.json")
    outcome = json.loads((away / "outcome.json").read_text())
    assert outcome == {"status": "user_error", "message": line.removeprefix("error: ")}


def test_converted_data_is_as_the_record_says(
    call: Callable[..., tuple[int, str, str]], folders: Path, away: Path
) -> None:
    code, output, errors = call(
        *(convert, "--source", folders, "--out", "shards", "--shards", 1, "--workers", 1),
        *("--json", "records/shards.json", "--outcome_file", "outcome.json"),
    )
    assert (code, errors) == (0, "")
    assert output.splitlines()[-1].startswith("converted 21/21 images (100.0%), ")
    record = Shards.read(away / "records/shards.json")
    assert record == Shards.read(away / "shards/shards.json")
    assert [file.name for file in record.files] == [
        "train-00000-of-00001.mindrecord",
        "val-00000-of-00001.mindrecord",
    ]
    assert json.loads((away / "outcome.json").read_text()) == {"status": "done", "message": ""}


def test_validating_twice_gives_equal_records(
    call: Callable[..., tuple[int, str, str]],
    recipe: tuple[str, Path],
    converted: tuple[Shards, Path],
    checkpoints: dict[int, Path],
    away: Path,
) -> None:
    outputs = []
    for name in ("one.json", "two.json"):
        code, output, _ = call(
            *(validate, *recipe, "--data_dir", converted[1]),
            *("--ckpt_path", checkpoints[3], "--json", name),
        )
        assert code == 0
        outputs.append(output)
    assert (away / "one.json").read_bytes() == (away / "two.json").read_bytes()
    record = Evaluation.read(away / "one.json")
    assert (record.split, record.resolution, record.seen) == ("val", 32, 6)
    assert record.class_seen == (2, 2, 2)
    assert sum(record.class_correct) == record.correct_top1
    assert outputs[0] == outputs[1]
    assert f"({record.correct_top1}/6)" in outputs[0]


def rows_of(shard: Path) -> list[Row]:
    return read_rows(shard, range(count_rows(shard)))


@pytest.fixture
def finished(
    checkpoints: dict[int, Path], converted: tuple[Shards, Path], recipe_file: Path, away: Path
) -> Path:
    """The directory of a training's last checkpoint; its one evaluation is made up."""
    network = create_model("skresnet18", num_classes=3)
    weights = ms.load_checkpoint(str(checkpoints[3]))
    run = plan_run(load_recipe(str(recipe_file)), converted[0], 1, "CPU")
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


def test_a_sound_checkpoint_leaves_checks_counts_predictions_attention_and_examples(
    call: Callable[..., tuple[int, str, str]],
    recipe: tuple[str, Path],
    converted: tuple[Shards, Path],
    finished: Path,
    away: Path,
) -> None:
    options = [*recipe, "--data_dir", converted[1], "--ckpt_path", finished]
    code, output, errors = call(validate, *options, "--out", "one", "--json", "primary.json")
    assert (code, errors) == (0, "")
    checks = CheckpointChecks.read(away / "one/checks.json")
    assert checks.passed
    record = Evaluation.read(away / "one/evaluation.json")
    assert (away / "primary.json").read_bytes() == (away / "one/evaluation.json").read_bytes()
    low, high = record.interval_top1
    assert f"95 % interval {low:.2%} to {high:.2%}" in output
    assert f"calibration error {record.calibration_error:.4f}" in output

    kept = read_predictions(away / "one/predictions.parquet")
    assert (len(kept.keys), kept.correct.sum()) == (6, record.correct_top1)
    rows = [
        row for file in converted[0].files_of("val") for row in rows_of(converted[1] / file.name)
    ]
    assert kept.keys == tuple(row.key for row in rows)
    assert kept.labels.tolist() == [row.label for row in rows]
    examples = Examples.read(away / "one/examples.json").examples
    assert len(examples) == record.seen - record.correct_top1
    for example in examples:
        number = kept.keys.index(example.key)
        assert (example.label, example.predicted) == (kept.labels[number], kept.top[number, 0])
        assert (away / "one" / example.file).is_file()
    attention = Attention.read(away / "one/attention.json")
    assert [unit.unit for unit in attention.units][:2] == ["SK_2_1", "SK_2_2"]

    assert call(validate, *options, "--out", "two")[0] == 0
    assert contents(away / "one") == contents(away / "two")


def test_a_checkpoint_that_fails_a_check_is_not_evaluated(
    call: Callable[..., tuple[int, str, str]],
    recipe: tuple[str, Path],
    converted: tuple[Shards, Path],
    finished: Path,
    away: Path,
) -> None:
    options = [*recipe, "--data_dir", converted[1], "--ckpt_path", finished, "--set", "lr=0.5"]
    code, output, errors = call(validate, *options, "--out", "out")
    assert (code, output) == (1, "")
    (line,) = errors.splitlines()
    assert line == f"error: {finished} is not evaluated: recipe: lr is 0.01, expected 0.5"
    assert contents(away / "out").keys() == {"checks.json"}
    assert not CheckpointChecks.read(away / "out/checks.json").passed


def test_an_output_directory_with_something_in_it_is_refused(
    refused: Callable[..., str], recipe: tuple[str, Path], checkpoints: dict[int, Path], away: Path
) -> None:
    (away / "out").mkdir()
    (away / "out/evaluation.json").write_text("{}")
    options = [*recipe, "--data_dir", "none", "--ckpt_path", checkpoints[3], "--out", "out"]
    line = refused(validate, *options)
    assert line == "error: --out out is not empty: give another directory"


def test_as_a_process_the_code_and_the_line_are_the_same(folders: Path, away: Path) -> None:
    result = subprocess.run(
        [
            *(sys.executable, "-m", "sknet.train", "--config", "skresnet18_digits"),
            *("--data_dir", str(folders), "--set", "lrr=1"),
        ],
        cwd=away,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == (
        "error: recipe skresnet18_digits: unknown key 'lrr' (did you mean 'lr'?)\n"
    )
