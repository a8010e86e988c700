"""What a command shows of its work: in a terminal, in a file, quietly."""

import fcntl
import io
import os
import pty
import re
import struct
import termios
import threading
from collections.abc import Iterator

import pytest

from infra.base import console as module
from infra.base.console import (
    Console,
    LiveConsole,
    PlainConsole,
    QuietConsole,
    console,
    open_console,
    opened,
)
from infra.base.progress import Progress, clock
from tests.waiting import wait_for

TIME = re.compile(r"^\d\d:\d\d:\d\d ", re.MULTILINE)


class Plain:
    """A plain console whose clock and thread are the test's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)
        self._stream = io.StringIO()
        self.console = PlainConsole(self._stream, first_line_after=2.0)

    def lines(self) -> list[str]:
        return TIME.sub("", self._stream.getvalue()).splitlines()

    def pass_silently(self, until: float, expected: int) -> None:
        """Let the time pass, and wait until so many lines are there."""
        self.now = until
        wait_for(lambda: len(self.lines()) == expected, lambda: str(self.lines()), pause=0.02)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Iterator[Plain]:
    plain = Plain(monkeypatch)
    yield plain
    plain.console.close()


def test_in_a_file_progress_is_at_most_one_line_each_10_seconds(plain: Plain) -> None:
    plain.console.stage("train")
    plain.console.say("train: began")
    for plain.now in (1.0, 9.9, 10.0, 19.0, 20.0):
        plain.console.show(Progress(fraction=plain.now / 100, figures=(f"step {plain.now:g}",)))
    assert plain.lines() == ["train: began", "train: step 10, 10%", "train: step 20, 20%"]


def test_in_a_file_nothing_is_silent_for_30_seconds_whatever_it_does(plain: Plain) -> None:
    plain.pass_silently(2.0, expected=1)
    assert plain.lines() == ["at work, 0:02 so far"], "the first line comes soon"
    plain.console.stage("train")
    plain.console.show(Progress(phase="compiling the graph"))
    plain.pass_silently(22.0, expected=2)
    plain.pass_silently(42.0, expected=3)
    assert plain.lines()[1:] == [
        "train: compiling the graph, 0:20 so far",
        "train: compiling the graph, 0:40 so far",
    ]


def test_nothing_is_said_twice_of_progress_that_did_not_change(plain: Plain) -> None:
    plain.console.say("begun")
    for plain.now in (10.0, 19.0):
        plain.console.show(Progress(fraction=0.5))
    assert plain.lines() == ["begun", "50%"]


def test_quiet_leaves_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    quiet = QuietConsole(stream)
    quiet.stage("train")
    quiet.show(Progress(fraction=0.5))
    quiet.say("news")
    quiet.warn("the disk is nearly full")
    assert stream.getvalue() == "the disk is nearly full\n"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3725, "1:02:05")])
def test_durations(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_the_time_that_is_left_is_said_only_if_it_is_known() -> None:
    known = Progress(phase="converting", fraction=0.25, figures=("5 MB/s",), seconds_left=75)
    assert known.describe() == "converting, 5 MB/s, 25%, 1:15 left"
    assert Progress(phase="converting", fraction=0.0).describe() == "converting, 0%"


def test_where_no_console_is_open_nothing_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    console().say("news")
    console().show(Progress(fraction=0.5))
    with opened(Console()) as mine:
        assert console() is mine
    assert console() is not mine
    assert capfd.readouterr() == ("", "")


class Terminal:
    """A terminal of 80 columns, and what was written to it."""

    def __init__(self) -> None:
        self._master, inside = pty.openpty()
        fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.stream = os.fdopen(inside, "w")
        self._written = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                more = os.read(self._master, 65536)
            except OSError:
                return
            self._written += more

    def text(self) -> str:
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self._written.decode())

    def raw(self) -> str:
        return self._written.decode()

    def close(self) -> None:
        self.stream.close()
        self._reader.join()
        os.close(self._master)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setenv("TERM", "xterm-256color")
    terminal = Terminal()
    yield terminal
    terminal.close()


def test_in_a_terminal_a_bar_is_redrawn_below_the_lines_that_stay(terminal: Terminal) -> None:
    live = LiveConsole(terminal.stream, redirects_stdout=False)
    live.stage("train", "starting 2 processes")
    wait_for(lambda: "starting 2 processes" in terminal.text(), terminal.text, pause=0.02)
    figures = ("epoch 3/20", "loss 0.4123", "412 images/s")
    live.show(Progress(fraction=0.35, figures=figures, seconds_left=83))
    wait_for(lambda: "412 images/s" in terminal.text(), terminal.text, pause=0.02)
    live.say("train: epoch 3/20: train loss 0.4, [accuracy@1] 91 %")
    live.warn("warning: a line")
    live.close()
    wait_for(lambda: "warning: a line" in terminal.text(), terminal.text, pause=0.02)
    shown = terminal.text()
    assert "━" in shown
    assert " 35% " in shown
    assert "1:23 left" in shown
    assert "epoch 3/20, loss 0.4123, 412 images/s" in shown
    assert "[accuracy@1]" in shown, "brackets are no markup"
    raw = terminal.raw()
    assert "\x1b[1A" in raw, "nothing is redrawn in place"
    assert raw.rindex("\x1b[?25h") > raw.rfind("\x1b[?25l"), "the cursor is left hidden"
    assert max(map(len, shown.replace("\r", "\n").splitlines())) <= 80


def test_the_kind_of_console_follows_stderr_and_the_options(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kind(**options: bool) -> type[Console]:
        with opened(open_console(**options)) as console:
            return type(console)

    assert kind() is PlainConsole
    monkeypatch.setattr(module.sys, "stderr", terminal.stream)
    assert kind() is LiveConsole
    assert kind(verbose=True) is PlainConsole
    assert kind(quiet=True) is QuietConsole
    monkeypatch.setenv("TERM", "dumb")
    assert kind() is PlainConsole
