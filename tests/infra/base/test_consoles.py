"""What a command shows of its work: in a terminal, in a file, quietly."""

import io
import re
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
    showing_work,
)
from infra.base.outcomes import UserError
from infra.base.progress import Progress, clock, work
from tests.screens import COLOUR, Terminal
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


def test_all_work_of_a_command_that_opens_a_console_is_shown_on_it() -> None:
    with showing_work("reading", quiet=True, verbose=False):
        opened = console()
        assert opened._status().startswith("reading, 0:00")
        with work("hashing", 10) as count:
            count(5)
        assert opened._status() == "hashing, 50%"
    assert console() is not opened


def test_where_no_console_is_open_nothing_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    console().say("news")
    console().show(Progress(fraction=0.5))
    with opened(Console()) as mine:
        assert console() is mine
    assert console() is not mine
    assert capfd.readouterr() == ("", "")


def terminal_of(columns: int, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm-256color")
    # Rich asks the terminal of this process for its size, which is another one.
    monkeypatch.setenv("COLUMNS", str(columns))
    return Terminal(columns)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    terminal = terminal_of(80, monkeypatch)
    yield terminal
    terminal.close()


FIGURES = (
    *("epoch 12/120", "step 9812/98120", "loss 0.4123"),
    *("lr 0.08", "412 images/s", "data wait 3%"),
)
BUSY = Progress(fraction=0.1, figures=FIGURES, seconds_left=3683)


def test_in_a_terminal_a_bar_is_redrawn_below_the_lines_that_stay(terminal: Terminal) -> None:
    live = LiveConsole(terminal.stream, redirects_stdout=False)
    live.stage("train", "starting 2 processes")
    wait_for(lambda: "train    starting 2 processes 0:0" in terminal.text(), terminal.text)
    live.show(BUSY)
    wait_for(lambda: "412 images/s" in terminal.text(), terminal.text)
    live.say("train: epoch 3/20: train loss 0.4, [accuracy@1] 91 %")
    live.warn("warning: a line")
    wait_for(lambda: "warning: a line\n" in terminal.text(), terminal.text)
    stays = ["train: epoch 3/20: train loss 0.4, [accuracy@1] 91 %", "warning: a line"]
    bar = re.compile(r". train    ━{3}[╸━]+  10% 0:0\d 1:01:23 left")

    def is_drawn() -> bool:
        # Brackets are no markup, and nothing of an earlier drawing is left.
        first, second, third, *figures = [*terminal.screen.lines(), "", "", ""]
        known = " ".join(map(str.strip, figures)).strip()
        return [first, second] == stays and bool(bar.match(third)) and known == ", ".join(FIGURES)

    wait_for(is_drawn, terminal.text, seconds=60)
    live.close()
    wait_for(lambda: terminal.screen.lines() == stays, terminal.text)
    assert not terminal.screen.hides_cursor
    assert COLOUR.search(terminal.written())


@pytest.mark.parametrize(
    ("columns", "stage", "has_bar"),
    [
        *((80, "validate", True), (60, "validate", True), (40, "validate", True)),
        *((24, "validate", False), (80, "reevaluate-promoted", True)),
        (40, "reevaluate-promoted", False),
    ],
)
def test_however_narrow_a_terminal_is_all_figures_are_shown_and_nothing_is_left_behind(
    columns: int, stage: str, has_bar: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = terminal_of(columns, monkeypatch)
    live = LiveConsole(terminal.stream, redirects_stdout=False)
    live.stage(stage, "a phase that has more words than even a wide terminal has room for")
    wait_for(lambda: "…" in terminal.text(), terminal.text)
    assert len(terminal.screen.lines()) == 1
    live.show(BUSY)
    wait_for(lambda: "10%" in terminal.text(), terminal.text)
    live.say("news")

    def shown() -> tuple[str, bool, str]:
        news, bar, *known = [*terminal.screen.lines(), "", ""]
        return news, "━" in bar and "left" in bar, " ".join(map(str.strip, known)).strip()

    expected = ("news", has_bar, ", ".join(FIGURES))
    wait_for(lambda: shown() == expected, terminal.text, seconds=60)
    live.close()
    wait_for(lambda: terminal.screen.lines() == ["news"], terminal.text)
    terminal.close()


def test_what_a_command_prints_appears_above_the_bar_as_the_line_that_it_is(
    terminal: Terminal,
) -> None:
    path = "directory of a report/" * 9
    live = LiveConsole(terminal.stream, redirects_stdout=True)
    live.stage("report")
    live.show(BUSY)
    print(path)
    live.close()
    wait_for(lambda: len(terminal.screen.lines()) == 3, terminal.text)
    assert path in terminal.written(), "it can't be copied as one line"


def test_colours_are_left_out_for_those_who_want_none(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    live = LiveConsole(terminal.stream, redirects_stdout=False)
    live.stage("train")
    live.show(BUSY)
    live.warn("warning: a line")
    wait_for(lambda: "412 images/s" in terminal.text(), terminal.text)
    live.close()
    assert not COLOUR.search(terminal.written())


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
    with pytest.raises(UserError, match="--quiet and --verbose contradict each other"):
        kind(quiet=True, verbose=True)
    with monkeypatch.context() as patch:
        patch.setenv("TERM", "dumb")
        assert kind() is PlainConsole
    with monkeypatch.context() as patch:
        patch.setenv("JPY_PARENT_PID", "7")  # in a cell of a notebook
        assert kind() is PlainConsole
    assert kind() is LiveConsole
