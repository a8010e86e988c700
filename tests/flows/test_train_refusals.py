"""Wrong input ends train-sknet before anything starts: one line, exit code 2."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from prefect.logging import disable_run_logger

from flows import train_sknet
from flows.train_sknet import command, settings_of
from infra.base.commands import parse
from sknet.data.conversion.converter import reencoding_to
from sknet.errors import UserError
from tasks.convert import ConversionSettings
from tasks.programs import LaunchSettings
from tests.tiny_pipeline import RECIPE, run_command, train_command, train_options, write_recipe


class Inputs:
    """The inputs of a command that would run; each case spoils one of them."""

    def __init__(self, directory: Path, data: Path) -> None:
        self.directory = directory
        self.recipe = write_recipe(directory / "tiny.yaml")
        self.data = data
        self.store = directory / "store"
        self.workers = 1
        self.more: list[str] = []

    def options(self) -> list[str]:
        return [
            *train_options(self.recipe, self.data, self.store, self.workers),
            *self.more,
        ]

    def command(self) -> list[str]:
        return train_command(self.recipe, self.data, self.store, self.workers, *self.more)


def unknown_key(inputs: Inputs) -> str:
    inputs.recipe.write_text(RECIPE + "epoch_sise: 3\n", "utf-8")
    return "unknown key 'epoch_sise' (did you mean 'epoch_size'?)"


def wrong_type(inputs: Inputs) -> str:
    inputs.recipe.write_text(RECIPE.replace("lr: 0.01", "lr: fast"), "utf-8")
    return "lr is 'fast'"


def no_data_directory(inputs: Inputs) -> str:
    inputs.data = inputs.directory / "nowhere"
    return f"data directory {inputs.data} does not exist"


def empty_data_directory(inputs: Inputs) -> str:
    inputs.data = inputs.directory / "empty"
    inputs.data.mkdir()
    return f"data directory {inputs.data} has none of the known forms: expected train/ and val/"


def class_without_images(inputs: Inputs) -> str:
    inputs.data = inputs.directory / "gaps"
    for split in ("train", "val"):
        for name in ("blue", "red"):
            (inputs.data / split / name).mkdir(parents=True)
        (inputs.data / split / "blue/image.png").touch()
    return "class 'red' has no images"


def store_below_a_file(inputs: Inputs) -> str:
    (inputs.directory / "file").touch()
    inputs.store = inputs.directory / "file" / "store"
    return f"store '{inputs.store}' can't be created or written"


def workers_that_do_not_divide_the_batch(inputs: Inputs) -> str:
    inputs.workers = 3
    return "global_batch_size 8 can't be divided among 3 workers"


def floor_of_an_unknown_class(inputs: Inputs) -> str:
    inputs.more = ["--class-floor", "bleu=0.9"]
    return "--class-floor names 'bleu', but the data has no such class: did you mean 'blue'?"


def floor_of_a_class_in_percent(inputs: Inputs) -> str:
    inputs.more = ["--class-floor", "blue=90"]
    return "--class-floor is ['blue=90']: 'blue=90' is not of the form CLASS=FRACTION"


def balanced_floor_in_percent(inputs: Inputs) -> str:
    inputs.more = ["--balanced-floor", "80"]
    return "--balanced-floor is '80': "


@pytest.mark.parametrize(
    "spoil",
    [
        floor_of_an_unknown_class,
        floor_of_a_class_in_percent,
        balanced_floor_in_percent,
        unknown_key,
        wrong_type,
        no_data_directory,
        empty_data_directory,
        class_without_images,
        store_below_a_file,
        workers_that_do_not_divide_the_batch,
    ],
)
def test_wrong_input_gives_one_line_and_changes_nothing(
    spoil: Callable[[Inputs], str], refused: Callable[..., str], tmp_path: Path, images: Path
) -> None:
    inputs = Inputs(tmp_path, images)
    message = spoil(inputs)
    before = sorted(tmp_path.rglob("*"))

    line = refused(train_sknet, *inputs.options())

    assert line.startswith("error: ")
    assert message in line
    assert sorted(tmp_path.rglob("*")) == before


def test_ascend_without_a_card_is_refused_before_anything_starts(
    refused: Callable[..., str], tmp_path: Path, images: Path
) -> None:
    inputs = Inputs(tmp_path, images)
    line = refused(train_sknet, *inputs.options(), "--device_target", "Ascend")
    assert line == (
        "error: --device_target is Ascend, but this machine has no Ascend card "
        "(no /dev/davinci<N>): use CPU or auto"
    )
    assert not inputs.store.exists()


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("SKNET_CARD", "card {path} has a field 'licence' that there isn't: "),
        ("SKNET_SIGNING_KEY", "signing key {path} can't be used, "),
    ],
)
def test_a_card_or_a_signing_key_that_can_not_be_used_is_refused_before_the_first_task(
    variable: str,
    message: str,
    refused: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    images: Path,
) -> None:
    inputs = Inputs(tmp_path, images)
    path = tmp_path / "file"
    path.write_text("licence: MIT", "utf-8")
    monkeypatch.setenv(variable, str(path))
    assert message.format(path=path) in refused(train_sknet, *inputs.options())
    # On a worker of a deployment, the flow finds it: there is no command.
    with disable_run_logger(), pytest.raises(UserError) as caught:
        train_sknet.train_sknet.fn(str(inputs.recipe), str(images), str(inputs.store), workers=1)
    assert message.format(path=path) in str(caught.value)
    assert not inputs.store.exists()


def test_as_a_process_the_code_and_the_line_are_the_same(tmp_path: Path, images: Path) -> None:
    inputs = Inputs(tmp_path, images)
    message = unknown_key(inputs)
    before = sorted(tmp_path.rglob("*"))

    ended = run_command([*inputs.command(), "--quiet"])

    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert sorted(tmp_path.rglob("*")) == before


def test_a_number_of_workers_below_one_is_refused(
    refused: Callable[..., str], tmp_path: Path, images: Path
) -> None:
    inputs = Inputs(tmp_path, images)
    inputs.workers = 0
    line = refused(train_sknet, *inputs.options())
    assert line.endswith("--workers: '0' is not a whole number of at least 1")
    assert not inputs.store.exists()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--shards", "0", "--shards is '0': "),
        ("--shards", "many", "--shards is 'many': "),
        ("--shorter-side", "0", "--shorter-side is '0': "),
        ("--quality", "101", "--quality is '101': "),
        ("--max-quarantine", "2", "--max-quarantine is '2': "),
        ("--launcher", "cloud", "--launcher is 'cloud': "),
        ("--hosts", "0", "--hosts is '0': "),
        ("--hosts", "2", "several hosts need a launcher: ray:auto or ray://HOST:PORT"),
        ("--wait-for-hosts", "-1", "--wait-for-hosts is '-1': "),
    ],
)
def test_wrong_settings_are_refused_by_the_name_of_the_option(
    option: str, value: str, message: str
) -> None:
    arguments = parse(command, [option, value])
    with pytest.raises(UserError) as caught:
        for settings in (ConversionSettings, LaunchSettings):
            settings_of(settings, arguments)
    assert str(caught.value).startswith(message)


def test_options_become_settings() -> None:
    options = ["--shards", "auto", "--shorter-side", "256"]
    conversion = settings_of(ConversionSettings, parse(command, options))
    assert conversion.shards == "auto"
    assert conversion.reencoding == reencoding_to(256, 92)
    assert settings_of(ConversionSettings, parse(command, [])) == ConversionSettings(
        shards=4, shorter_side=None, max_quarantine=None
    )
    options = ["--launcher", "ray://head:10001", "--hosts", "3", "--wait-for-hosts", "5"]
    assert settings_of(LaunchSettings, parse(command, options)) == LaunchSettings(
        launcher="ray://head:10001", hosts=3, wait_for_hosts=5
    )


@pytest.mark.slow
@pytest.mark.usefixtures("flow_harness")
def test_a_mistake_that_a_task_finds_ends_without_a_traceback(
    call_command: Callable[..., subprocess.CompletedProcess[str]],
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    images: Path,
) -> None:
    inputs = Inputs(tmp_path, shutil.copytree(images, tmp_path / "images"))
    for number in range(6):
        (inputs.data / "train" / "red" / f"notes{number}.jpg").write_text("no image")
    ended = call_command(train_sknet, *inputs.options())
    assert ended.returncode == 2
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert "6 of 72 samples (8.33%) can't be used, more than 5 of them" in line
    assert line.endswith("to leave them out, give --max-quarantine 0.084")
    # The task says it once, and the command.
    (said,) = [record for record in caplog.records if "can't be used" in record.getMessage()]
    assert said.name == "prefect.task_runs"
    assert "Traceback" not in caplog.text + ended.stderr
    assert not any(inputs.store.glob("shards/*"))
