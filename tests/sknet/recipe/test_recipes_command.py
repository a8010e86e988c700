"""`sknet recipes` lists the recipes, shows one that can be used as it is, and explains keys."""

import subprocess
from pathlib import Path

import pytest

from infra.base.commands import start
from sknet.recipe import Recipe, list_recipes, load_recipe, mindcv
from sknet.recipe import __main__ as command
from sknet.recipe.__main__ import app
from sknet.recipe.keys import keys

Ended = subprocess.CompletedProcess[str]


def called(capsys: pytest.CaptureFixture[str], *words: str) -> Ended:
    return Ended(words, start(app, words), *capsys.readouterr())


@pytest.mark.parametrize("words", [(), ("list",)])
def test_the_list_has_every_recipe_and_what_it_is_for(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    ended = called(capsys, *words)
    assert (ended.returncode, ended.stderr) == (0, "")
    _, _, *rows = ended.stdout.splitlines()
    assert [row.split()[0] for row in rows] == list_recipes()
    assert rows[2].split()[1:5] == ["skresnet18", "32", "8", "64"]
    assert rows[2].endswith(
        "Handwritten digits on two CPU cores: the whole pipeline in a few minutes"
    )


@pytest.mark.parametrize("name", list_recipes())
def test_a_shown_recipe_is_one_of_the_same_digest_with_every_key(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    changed = "seed=7"
    ended = called(capsys, "show", name, "--set", changed)
    shown = tmp_path / "shown.yaml"
    shown.write_text(ended.stdout, "utf-8")
    assert load_recipe(str(shown)).choices() == load_recipe(name, [changed]).choices()
    lines = [line for line in ended.stdout.splitlines() if line and not line.startswith("#")]
    assert {line.partition(":")[0] for line in lines} == {*Recipe.model_fields} - {"name"}


def test_a_shown_recipe_marks_what_has_its_default(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    given = tmp_path / "given.yaml"
    given.write_text("model: skresnet18\nbatch_size: 8\nepoch_size: 2\nlr: 0.5\n")
    lines = called(capsys, "show", str(given)).stdout.splitlines()
    marked = {line.partition(":")[0] for line in lines if line.endswith("  # default")}
    required = {"model", "batch_size", "epoch_size", "lr", "name"}
    assert marked == {*Recipe.model_fields} - required


def test_a_file_of_mindcv_is_shown_with_what_it_means_here(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    given = tmp_path / "mindcv.yaml"
    given.write_text("model: skresnet18\nopt: momentum\ndistribute: true\n")
    ended = called(capsys, "show", str(given))
    assert "without effect here: distribute" in ended.stderr
    lines = ended.stdout.splitlines()
    assert f"batch_size: {mindcv.BATCH_SIZE}" in lines
    assert "epoch_size: 90" in lines


def test_every_key_is_explained_by_its_own_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "list_recipes", lambda: ["skresnet18_digits"])
    assert {key.name for key in keys()} == {*Recipe.model_fields} - {"name"}
    for key in keys():
        ended = called(capsys, "--explain", key.name)
        first, values, default, *_ = ended.stdout.splitlines()
        text = " ".join(str(Recipe.model_fields[key.name].description).split())
        assert first == f"{key.name}: {text}"
        assert values.startswith("values: ")
        assert default.startswith("default: ")


@pytest.mark.parametrize(
    ("key", "values", "default"),
    [
        ("lr", "a number above 0", "none, every recipe gives it"),
        ("ema_decay", "a number of at least 0 and below 1", "0.9999"),
        ("seed", "a whole number of at least 0 and below 4294967296", "42"),
        ("jit_level", "O0 or O1 or O2, or null", "null"),
        ("scale", "2 numbers, each a number of at least 0 and at most 1", "[0.08, 1.0]"),
        ("val_resolutions", "a list of any length, each a whole number of at least 32", "[]"),
    ],
)
def test_values_and_default_of_a_key_are_those_that_are_checked(
    capsys: pytest.CaptureFixture[str], key: str, values: str, default: str
) -> None:
    lines = called(capsys, "--explain", key).stdout.splitlines()
    assert lines[1:3] == [f"values: {values}", f"default: {default}"]


def test_an_explained_key_is_shown_where_recipes_of_the_project_set_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = called(capsys, "--explain", "crop_pct").stdout.splitlines()
    assert "skresnet18_digits         1.0" in lines
    assert not any(line.startswith("skresnet18_folder") for line in lines)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ("--explain", "croppct"),
            "no key 'croppct' (did you mean 'crop_pct'?): "
            "`sknet recipes show sknet50_paper` prints all keys",
        ),
        (("--explain",), "--explain needs a value: --help shows which"),
        (("show",), "RECIPE is missing: --help lists all options"),
        (
            ("show", "skresnet18_digits", "--set", "lr"),
            "--set 'lr' has no '=': expected KEY=VALUE",
        ),
    ],
)
def test_wrong_words_are_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], line: str
) -> None:
    ended = called(capsys, *words)
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", f"error: {line}\n")


@pytest.mark.parametrize(
    ("key", "fate"),
    [
        ("dataset_sink_mode", "it has no effect here, where options and the programs decide it"),
        ("aug_repeats", "only 0 or 1 is possible here"),
        (
            "filter_bias_and_bn",
            "it becomes another key here: `sknet recipes show FILE` prints which value it has",
        ),
    ],
)
def test_a_key_that_only_mindcv_has_is_explained_by_what_becomes_of_it(
    capsys: pytest.CaptureFixture[str], key: str, fate: str
) -> None:
    ended = called(capsys, "--explain", key)
    assert ended.stdout == f"{key}: a key of MindCV's files alone; {fate}\n"
