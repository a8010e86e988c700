"""The programs refuse wrong input with exit code 2 and one line."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from sknet import convert, export, train, validate
from sknet.data.shards import ShardSet
from sknet.device import describe_failure, find_cards

pytestmark = pytest.mark.usefixtures("program_state")


@pytest.mark.parametrize("module", [train, validate])
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lrr=1", "unknown key 'lrr' (did you mean 'lr'?)"),
        ("epoch_size=many", "epoch_size is 'many'"),
        ("epoch_size=true", "epoch_size is True"),
        ("lr", "--set 'lr' has no '='"),
    ],
)
def test_a_wrong_recipe_is_refused(
    refused: Callable[..., str],
    config: tuple[str, ...],
    folders: Path,
    module: ModuleType,
    override: str,
    message: str,
) -> None:
    options = [*config, "--data_dir", folders, "--set", override]
    if module is validate:
        options += ["--ckpt_path", "none.ckpt"]
    assert message in refused(module, *options)


def test_a_missing_recipe_is_refused(refused: Callable[..., str], folders: Path) -> None:
    line = refused(train, "--config", "none.yaml", "--data_dir", folders)
    assert line.startswith("error: no recipe 'none.yaml'")


@pytest.mark.parametrize(
    ("option", "path", "message"),
    [
        ("--tensorboard", "/proc/nowhere", "--tensorboard /proc/nowhere can't be made: "),
        ("--ckpt_save_dir", "/proc", "/proc can't be written: "),
    ],
)
def test_a_directory_that_cannot_be_written_is_refused(
    refused: Callable[..., str],
    config: tuple[str, ...],
    converted: ShardSet,
    option: str,
    path: str,
    message: str,
) -> None:
    assert message in refused(train, *config, "--data_dir", converted.directory, option, path)


def test_a_directory_of_shards_that_cannot_be_made_is_refused(
    refused: Callable[..., str], config: tuple[str, ...], folders: Path
) -> None:
    line = refused(train, *config, "--data_dir", folders, "--shards_dir", "/proc/nowhere")
    assert line.startswith("error: --shards_dir /proc/nowhere can't be made: ")


def test_missing_data_is_refused(refused: Callable[..., str], config: tuple[str, ...]) -> None:
    assert "does not exist" in refused(train, *config, "--data_dir", "none")
    assert "does not exist" in refused(
        convert, "--source", "none", "--out", "shards", "--shards", 1
    )


def test_a_directory_without_data_is_refused(
    refused: Callable[..., str], config: tuple[str, ...], away: Path
) -> None:
    (away / "empty").mkdir()
    assert "has none of the known forms" in refused(train, *config, "--data_dir", "empty")


def test_a_class_without_images_is_refused(
    refused: Callable[..., str], config: tuple[str, ...], folders: Path, away: Path
) -> None:
    shutil.copytree(folders, away / "images")
    for image in (away / "images/train/dog").iterdir():
        image.unlink()
    assert "class 'dog' has no images" in refused(train, *config, "--data_dir", "images")


def test_damaged_shards_are_refused(
    refused: Callable[..., str],
    config: tuple[str, ...],
    converted: ShardSet,
    away: Path,
) -> None:
    shutil.copytree(converted.directory, away / "copy")
    with (away / "copy/train-00000-of-00002.mindrecord.db").open("ab") as file:
        file.write(b"x")
    assert "is damaged" in refused(train, *config, "--data_dir", "copy")


def test_another_number_of_classes_than_the_recipes_is_refused(
    refused: Callable[..., str], config: tuple[str, ...], converted: ShardSet
) -> None:
    line = refused(train, *config, "--data_dir", converted.directory, "--set", "num_classes=4")
    assert line == "error: num_classes is 4, but the data set has 3 classes"


@pytest.mark.parametrize(
    ("module", "option"),
    [
        (train, "--data_dir"),
        (validate, "--data_dir"),
        (validate, "--ckpt_path"),
        (export, "--data_dir"),
        (export, "--ckpt_path"),
    ],
)
def test_a_path_that_no_file_can_have_is_refused(
    refused: Callable[..., str],
    recipe_file: Path,
    folders: Path,
    checkpoints: dict[int, Path],
    module: ModuleType,
    option: str,
) -> None:
    options = {"--config": recipe_file, "--data_dir": folders}
    if module is not train:
        options["--ckpt_path"] = checkpoints[3]
    given = options | {option: "n" * 300}
    assert "n" * 300 in refused(module, *(word for each in given.items() for word in each))


def test_a_world_size_that_does_not_divide_the_batch_is_refused(
    refused: Callable[..., str],
    config: tuple[str, ...],
    converted: ShardSet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MS_ROLE", "MS_WORKER")
    monkeypatch.setenv("MS_WORKER_NUM", "3")
    line = refused(train, *config, "--data_dir", converted.directory)
    assert line.startswith("error: global_batch_size 4 can't be divided among 3 workers")


def test_an_unknown_model_is_refused_with_the_nearest(
    refused: Callable[..., str], config: tuple[str, ...], converted: ShardSet
) -> None:
    line = refused(train, *config, "--data_dir", converted.directory, "--set", "model=skresnet81")
    nearest = "(did you mean 'skresnet18' or 'skresnet50' or 'skresnet34'?): expected one of"
    assert f": no model 'skresnet81' {nearest} skresnet18, " in line


def test_distribution_without_a_launcher_is_refused(
    refused: Callable[..., str], config: tuple[str, ...], converted: ShardSet
) -> None:
    line = refused(train, *config, "--data_dir", converted.directory, "--distribute", "True")
    assert line.startswith("error: --distribute True without msrun")


def test_an_unavailable_device_is_refused_with_mindspores_cause_and_the_cure(
    refused: Callable[..., str], config: tuple[str, ...], converted: ShardSet
) -> None:
    options = [*config, "--data_dir", converted.directory]
    line = refused(train, *options, "--device_target", "Ascend")
    assert line.startswith("error: device_target Ascend is not available on this machine: ")
    assert "libge_runner.so: cannot open shared object file" in line
    assert "/set_env.sh`" in line


@pytest.mark.parametrize("module", [train, validate])
def test_a_machine_with_cards_and_a_broken_cann_is_refused_and_never_takes_its_cpu(
    refused: Callable[..., str],
    config: tuple[str, ...],
    converted: ShardSet,
    checkpoints: dict[int, Path],
    away: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: ModuleType,
) -> None:
    dev, ascend = away / "dev", away / "Ascend"
    for file in (dev / "davinci0", ascend / "driver/version.info", ascend / "cann/set_env.sh"):
        file.parent.mkdir(parents=True)
        file.touch()
    monkeypatch.setattr(find_cards, "__defaults__", (dev, ascend))
    monkeypatch.setattr(describe_failure, "__defaults__", (ascend,))
    options = [*config, "--data_dir", converted.directory]
    if module is validate:
        options += ["--ckpt_path", checkpoints[3]]
    assert refused(module, *options) == (
        "error: device_target Ascend is not available on this machine: libge_runner.so: cannot "
        "open shared object file: No such file or directory: "
        f"`source {ascend}/cann/set_env.sh`, then run the same command again"
    )
    assert not (away / "ckpt").exists()


def test_a_missing_checkpoint_is_refused(
    refused: Callable[..., str], config: tuple[str, ...], folders: Path
) -> None:
    line = refused(validate, *config, "--data_dir", folders, "--ckpt_path", "none.ckpt")
    assert line == "error: checkpoint none.ckpt does not exist"


def test_a_checkpoint_of_another_network_is_refused(
    refused: Callable[..., str],
    config: tuple[str, ...],
    converted: ShardSet,
    checkpoints: dict[int, Path],
) -> None:
    line = refused(
        validate, *config, "--data_dir", converted.directory, "--ckpt_path", checkpoints[4]
    )
    assert "4.ckpt is for 4 classes, the network has 3: " in line


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--shards", "0", "'0' is not a whole number of at least 1, nor 'auto'"),
        ("--workers", "0", "'0' is not a whole number of at least 1"),
        ("--shorter-side", "-1", "'-1' is not a whole number of at least 1"),
        ("--quality", "101", "'101' is not a whole number from 1 to 100"),
        ("--max-quarantine", "1.5", "'1.5' is not a number from 0 to 1"),
    ],
)
def test_an_option_of_conversion_out_of_its_range_is_refused(
    refused: Callable[..., str], option: str, value: str, message: str
) -> None:
    options = ["--source", "digits", "--out", "shards", "--shards", "auto", f"{option}={value}"]
    assert refused(convert, *options) == f"error: {option}: {message}"


def test_an_output_directory_that_is_a_file_is_refused(
    refused: Callable[..., str], folders: Path, away: Path
) -> None:
    (away / "shards").write_text("")
    line = refused(convert, "--source", folders, "--out", "shards", "--shards", 1)
    assert line == "error: --out shards can't be made: File exists"


def test_a_checkpoint_directory_that_is_a_file_is_refused(
    refused: Callable[..., str],
    config: tuple[str, ...],
    converted: ShardSet,
    away: Path,
) -> None:
    (away / "ckpt").write_text("")
    line = refused(train, *config, "--data_dir", converted.directory)
    assert line == "error: --ckpt_save_dir ckpt can't be made: File exists"


def test_a_record_that_cannot_be_written_is_refused_before_the_work(
    refused: Callable[..., str],
    config: tuple[str, ...],
    folders: Path,
    checkpoints: dict[int, Path],
    away: Path,
) -> None:
    (away / "file").write_text("")
    options = ["--source", folders, "--out", "shards", "--shards", 1, "--workers", 1]
    line = refused(convert, *options, "--json", "file/shards.json")
    assert line.startswith("error: --json file can't be made: ")
    options = [*config, "--data_dir", "none", "--ckpt_path", checkpoints[3]]
    line = refused(validate, *options, "--json", "file/evaluation.json")
    assert line.startswith("error: --json file can't be made: ")
    assert [path.name for path in away.iterdir()] == ["file"]


def test_a_refusal_is_written_to_the_outcome_file(
    refused: Callable[..., str], folders: Path, away: Path
) -> None:
    options = ["--source", "none", "--out", "shards", "--shards", 1]
    line = refused(convert, *options, "--outcome_file", "outcome.json")
    outcome = json.loads((away / "outcome.json").read_text())
    assert outcome == {"status": "user_error", "message": line.removeprefix("error: ")}


def test_an_output_directory_that_is_not_empty_is_refused(
    refused: Callable[..., str], config: tuple[str, ...], checkpoints: dict[int, Path], away: Path
) -> None:
    (away / "out").mkdir()
    (away / "out/evaluation.json").write_text("{}")
    options = [*config, "--data_dir", "none", "--ckpt_path", checkpoints[3], "--out", "out"]
    line = refused(validate, *options)
    assert line == "error: --out out is not empty: give another directory"


def test_a_process_ends_with_the_same_code_and_line(folders: Path, away: Path) -> None:
    result = subprocess.run(
        [
            *(sys.executable, "-m", "sknet.train", "--quiet", "--config", "skresnet18_digits"),
            *("--data_dir", str(folders), "--set", "lrr=1"),
        ],
        cwd=away,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == (
        "error: recipe skresnet18_digits: unknown key 'lrr' (did you mean 'lr'?)\n"
    )
