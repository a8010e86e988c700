"""A command whose imports take long says so in time, and once."""

import io
import sys

import pytest

from infra.base import console, first_line
from infra.base.console import PlainConsole, open_console
from tests.waiting import wait_for


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> "first_line._FirstLine":
    monkeypatch.setattr(first_line, "SECONDS_TO_FIRST_LINE", 0.01)
    line = first_line._FirstLine()
    monkeypatch.setattr(console, "first_line", line)
    return line


def test_imports_that_take_long_are_said_once(
    line: "first_line._FirstLine",
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line.begin()
    line.begin()
    wait_for(lambda: line.is_said, pause=0.01)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    opened = open_console()
    assert isinstance(opened, PlainConsole)
    assert opened._due - opened._began > 5, "the console says it again at once"
    opened.close()
    (said,) = capfd.readouterr().err.splitlines()
    assert said.endswith(" start: loading the libraries")


@pytest.mark.parametrize("option", ["", "--help", "-h", "--quiet"])
def test_nothing_is_said_once_the_work_begins_nor_to_those_who_want_nothing(
    option: str,
    line: "first_line._FirstLine",
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(first_line, "SECONDS_TO_FIRST_LINE", 0.0 if option else 600)
    monkeypatch.setattr(sys, "argv", ["-m", option])
    line.begin()
    line.end()
    assert (line._timer is None) == bool(option)
    assert not line.is_said
    assert capfd.readouterr().err == ""
