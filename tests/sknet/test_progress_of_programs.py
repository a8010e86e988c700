"""How a program tells its supervisor how far it is, and that it is alive as long as it is."""

import io
import sys
import threading
from pathlib import Path

import pytest

from infra.base.progress import Progress
from sknet import progress as module
from sknet.options import LaunchedOptions
from sknet.progress import SupervisedConsole, console_of_program, read_progress, write_progress


class Supervised:
    """A supervised console, its clock, and what it prints."""

    def __init__(self, file: Path | None, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)
        self._printed = io.StringIO()
        monkeypatch.setattr(sys, "stdout", self._printed)
        self.console = SupervisedConsole(file)

    def show(self, now: float, **progress: object) -> None:
        self.now = now
        self.console.show(Progress.model_validate(progress))

    def lines(self) -> list[str]:
        return self._printed.getvalue().splitlines()


def test_lines_about_progress_end_with_dots_and_come_each_10_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    supervised = Supervised(None, monkeypatch)
    for now in (101.0, 109.0, 111.0, 120.0, 122.0):
        supervised.show(now, fraction=(now - 100) / 100)
    assert supervised.lines() == ["11% ...", "22% ..."]
    supervised.now = 133.0
    supervised.console.say("epoch 1/2")
    supervised.show(140.0, fraction=0.4)
    assert supervised.lines()[2:] == ["epoch 1/2"], "news is a sign of life as well"


def test_a_program_that_hangs_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    supervised = Supervised(None, monkeypatch)
    supervised.show(101.0, phase="compiling the graph")
    supervised.now = 4000.0
    assert "console" not in [thread.name for thread in threading.enumerate()]
    assert supervised.lines() == []


def test_the_file_has_the_newest_progress_each_new_phase_and_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "progress"
    supervised = Supervised(file, monkeypatch)

    def known() -> tuple[str, float | None]:
        progress = read_progress(file)
        assert progress is not None
        return progress.phase, progress.fraction

    supervised.show(101.0, phase="predicting", fraction=0.1)
    supervised.show(101.1, phase="predicting", fraction=0.2)
    assert known() == ("predicting", 0.1)
    supervised.show(101.2, phase="measuring attention")
    assert known() == ("measuring attention", None)
    supervised.show(101.7, phase="measuring attention", fraction=0.5)
    supervised.show(101.8, phase="measuring attention", fraction=1.0)
    assert known() == ("measuring attention", 1.0)


def test_progress_that_can_not_be_written_or_read_fails_nothing(tmp_path: Path) -> None:
    write_progress(tmp_path / "nowhere" / "file", Progress())
    assert read_progress(tmp_path / "nowhere" / "file") is None
    (tmp_path / "file").write_text('{"phase": "conv', "utf-8")
    assert read_progress(tmp_path / "file") is None


def test_a_rank_that_is_not_the_first_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    options = LaunchedOptions(outcome_file=Path("outcome.json"))
    assert isinstance(console_of_program(options), SupervisedConsole)
    monkeypatch.setenv("RANK_ID", "1")
    assert not isinstance(console_of_program(options), SupervisedConsole)
