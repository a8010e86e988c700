"""The YAML file of a recipe, and what overrides it: anything else is refused in one line."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sknet.errors import UserError
from sknet.recipe import load_recipe
from tests.refusals import refusal
from tests.sknet.recipes import SMALLEST


def load_refusal(path: Path | str, *overrides: str) -> str:
    return refusal(lambda: load_recipe(str(path), overrides))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(SMALLEST))
    return path


def test_a_key_given_twice_is_refused(file: Path) -> None:
    lines = file.read_text().splitlines()
    first = next(number for number, line in enumerate(lines, 1) if line.startswith("lr:"))
    file.write_text("\n".join([*lines, "lr: 0.2"]))
    expected = f"line {len(lines) + 1}: key 'lr' is given twice, first in line {first}"
    assert expected in load_refusal(file)


def test_a_missing_file_is_refused_with_the_nearest_packaged_recipe() -> None:
    message = load_refusal("skresnet18_digit")
    assert "no recipe 'skresnet18_digit' (did you mean 'skresnet18_digits'?)" in message


@pytest.mark.parametrize("text", ["", "- 1", "1: 2", "a: [", "a: !!python/object:os.system x"])
def test_a_file_that_is_no_recipe_is_refused(file: Path, text: str) -> None:
    file.write_text(text)
    load_refusal(file)


def test_a_binary_file_is_refused(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00")
    assert "can't be read" in load_refusal(file)


def test_a_file_above_the_limit_is_refused(file: Path) -> None:
    file.write_text("#" * (1 << 20) + "\n")
    assert "is larger than 1048576 bytes" in load_refusal(file)


@pytest.mark.parametrize("text", ["2020-99-99", "0x_", "!!timestamp x", "!!int ''", "[" * 600])
def test_text_on_which_the_yaml_parser_fails_is_refused(file: Path, text: str) -> None:
    assert "is not valid YAML" in load_refusal(file, f"lr={text}")
    file.write_text(f"lr: {text}\n")
    assert "is not valid YAML" in load_refusal(file)


@pytest.mark.parametrize(
    ("text", "reading"),
    [
        *[("010", "8"), ("-010", "-8"), ("0_17", "15")],
        *[("1:30", "90"), ("1:30.5", "90.5"), ("190:20:30", "685230")],
        *[("yes", "true"), ("Off", "false"), ("2026-01-02", "a date")],
        *[("!!int '010'", "8"), ("!!float '1:30'", "90.0")],
    ],
)
def test_a_value_that_yaml_rewrites_is_refused_with_its_line(
    file: Path, text: str, reading: str
) -> None:
    expected = f"YAML reads {text.split()[-1].strip(chr(39))} as {reading}: write a decimal number"
    assert f"line 1: {expected}" in load_refusal(file, f"lr={text}")
    file.write_text(f"# a comment\nlr: {text}\n")
    assert f"line 2: {expected}" in load_refusal(file)


@pytest.mark.parametrize(
    ("text", "value"), [("0", 0), ("+7", 7), ("08", 8), ("0x10", 16), ("1_000", 1000), ("12", 12)]
)
def test_a_number_that_yaml_reads_as_it_is_written_is_taken(
    file: Path, text: str, value: int
) -> None:
    assert load_recipe(str(file), [f"seed={text}"]).seed == value


@pytest.mark.parametrize("text", ["[" * 17, "{" * 17, "- " * 17, "[" * 1_000_000])
def test_deep_values_are_refused_before_the_time_of_parsing_them_grows(
    file: Path, text: str
) -> None:
    file.write_text(f"- {text}")
    assert "values are nested deeper than 16 levels" in load_refusal(file)


def test_an_alias_is_refused(file: Path) -> None:
    file.write_text("lr: &rate 0.1\nmin_lr: *rate\n")
    assert "line 2: the alias *rate is not supported" in load_refusal(file)


@pytest.mark.parametrize("value", ["{lr: 0.1}", "[{lr: 0.1}, {lr: 0.2}]"])
def test_merged_keys_are_refused(file: Path, value: str) -> None:
    file.write_text(f"model: tiny\n<<: {value}\n")
    assert "line 2: the key << is not supported" in load_refusal(file)


def test_a_wrong_value_is_shown_in_part_if_it_is_long(file: Path) -> None:
    assert len(load_refusal(file, f"scale=[{'1,' * 10_000}]")) < 300


def test_an_exponent_without_a_dot_is_a_number(file: Path) -> None:
    file.write_text(file.read_text() + "weight_decay: 4e-5\n")
    assert load_recipe(str(file)).weight_decay == 4e-5


def test_an_override_replaces_the_value_of_the_file(file: Path) -> None:
    loaded = load_recipe(str(file), ["lr=4e-5", "scale=[0.5, 1]", "lr = 0.3"])
    assert (loaded.lr, loaded.scale) == (0.3, (0.5, 1.0))


def test_an_override_without_equals_sign_is_refused(file: Path) -> None:
    assert load_refusal(file, "lr") == "--set 'lr' has no '=': expected KEY=VALUE"


def test_an_override_of_an_unknown_key_is_refused(file: Path) -> None:
    assert "unknown key 'lrr' (did you mean 'lr'?)" in load_refusal(file, "lrr=1")


@given(st.text(max_size=20))
def test_any_override_gives_a_recipe_or_one_line_of_error(text: str) -> None:
    try:
        load_recipe("skresnet18_digits", [f"model={text}"])
    except UserError as error:
        assert len(str(error).splitlines()) == 1
