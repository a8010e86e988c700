"""The command `sknet` lists the commands at once, and they take the options of their modules."""

import subprocess
import sys

import pytest

from flows.console import COMMANDS, console
from infra.base.commands import start


def test_the_list_of_commands_imports_none_of_them() -> None:
    code = (
        "import sys; from flows.console import console; from infra.base.commands import start;"
        "start(console(), ['--help']);"
        "print(sorted({'mindspore', 'prefect', 'pandas', 'numpy'} & {*sys.modules}))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    *shown, imported = ended.stdout.splitlines()
    assert imported == "[]"
    for name in (*COMMANDS, "store"):
        assert any(line.startswith(f"│ {name} ") for line in shown), name


def test_an_unknown_command_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert start(console(), ["trian"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: no command 'trian' (did you mean train?): expected run, ")


@pytest.mark.parametrize("option", ["--data-dir", "--data_dir"])
def test_options_are_those_of_the_module_in_both_spellings(
    capsys: pytest.CaptureFixture[str], option: str
) -> None:
    assert start(console(), ["train", option, "x"]) == 2
    assert capsys.readouterr().err == "error: --config is missing: --help lists all options\n"
