"""Ctrl-C, SIGTERM to a process group, a closed terminal: one line, soon, and nothing is left.

The command runs in a real terminal, with its live display and the temporary server that it starts
itself. Before it ends it may print what ranks say of their last step; after the line, nothing.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.base.interrupts import INTERRUPTED
from tests.flow_runs import AT_WORK
from tests.processes import PYTHONPATH
from tests.terminals import TerminalRun
from tests.tiny_pipeline import Trained, digests, train_command
from tests.waiting import wait_for

END_SECONDS = 10


def says(text: str) -> Callable[[TerminalRun, Path], bool]:
    return lambda run, _: text in run.output()


def is_importing(run: TerminalRun, _: Path) -> bool:
    maps = Path(f"/proc/{run.process.pid}/maps")
    return "_pydantic_core" in maps.read_text("utf-8")


def has_checkpoint(_: TerminalRun, store: Path) -> bool:
    return any(store.glob(AT_WORK["train"]))


MOMENTS: dict[str, Callable[[TerminalRun, Path], bool]] = {
    "its imports": is_importing,
    "the start of its server": says("starting the Prefect server"),
    "the start of the flow": says("starting the flow"),
    "stage": says("stage: read"),
    "convert": says("convert: building"),
    "the start of the ranks": says("train: building"),
    "train": has_checkpoint,
    "validate": says("validate: building"),
    "promote": says("validate: built"),
    "report": says("report: building"),
}
INTERRUPTIONS = {
    "Ctrl-C": TerminalRun.press_ctrl_c,
    "SIGTERM": lambda run: os.killpg(run.process.pid, signal.SIGTERM),
}


@pytest.fixture
def terminal(trained: Trained, tmp_path: Path) -> Iterator[TerminalRun]:
    command = train_command(trained.recipe, trained.images, tmp_path / "store", 2)
    run = TerminalRun(command, tmp_path / "run.log", {"PYTHONPATH": PYTHONPATH})
    yield run
    run.end()


def interrupt(
    run: TerminalRun, store: Path, moment: str, send: Callable[[TerminalRun], None], times: int
) -> float:
    """Start the run, interrupt it at a moment, and return the seconds until it has ended."""
    run.start()
    wait_for(lambda: run.is_over() or MOMENTS[moment](run, store), run.output, pause=0.01)
    assert not run.is_over(), f"ended before it could be interrupted:\n{run.output()}"
    began = time.monotonic()
    for number in range(times):
        if number:
            time.sleep(0.5)
        if not run.is_over():
            send(run)
    run.wait()
    return time.monotonic() - began


def check_end(run: TerminalRun) -> None:
    """Check the exit code, the last line, and that no process is left."""
    assert run.living() == []
    assert run.process.returncode == 1
    wait_for(lambda: INTERRUPTED in run.output(), run.output)
    screen = run.screen()
    shown = [line.replace("^C", "") for line in screen.lines()]
    assert shown[-1] == INTERRUPTED
    assert shown.count(INTERRUPTED) == 1
    assert not screen.hides_cursor
    for word in ("Traceback", "error", "Crash", "EventsWorker", "ConnectError", "supervisor:"):
        assert word.lower() not in run.output().lower()


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_ends_the_command_and_its_server_in_one_line(
    terminal: TerminalRun, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    interrupt(terminal, store, "convert", TerminalRun.press_ctrl_c, 1)
    check_end(terminal)
    assert not any(store.glob("shards/*"))


def test_ctrl_c_while_the_command_is_imported_ends_in_one_line(
    terminal: TerminalRun, tmp_path: Path
) -> None:
    interrupt(terminal, tmp_path / "store", "its imports", TerminalRun.press_ctrl_c, 1)
    check_end(terminal)


@pytest.mark.long
@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
@pytest.mark.parametrize("how", INTERRUPTIONS)
@pytest.mark.parametrize("moment", MOMENTS)
def test_at_every_stage_an_interrupted_command_ends_in_time_and_goes_on_later(
    moment: str, how: str, times: int, terminal: TerminalRun, trained: Trained, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    seconds = interrupt(terminal, store, moment, INTERRUPTIONS[how], times)
    check_end(terminal)
    assert seconds < END_SECONDS
    if moment == "train":
        assert "stopped: after step" in terminal.output()
        assert not any(store.glob("checkpoint/*"))
    if times == 2:
        return
    terminal.start()
    assert terminal.wait() == 0, terminal.output()
    assert digests(store) == digests(trained.store)


@pytest.mark.long
def test_what_trains_in_a_terminal_that_is_closed_is_saved_and_leaves_nothing(
    terminal: TerminalRun, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    interrupt(terminal, store, "train", TerminalRun.close, 1)
    assert terminal.process.returncode == 1
    assert terminal.living() == []
    (log,) = store.glob(".work/checkpoint/*/logs/train-*/worker_0.log")
    assert "stopped: after step" in log.read_text("utf-8")


@pytest.mark.long
def test_a_command_that_is_killed_leaves_no_server(terminal: TerminalRun, tmp_path: Path) -> None:
    def kill(run: TerminalRun) -> None:
        assert any("uvicorn" in process.cmdline() for process in run.living())
        run.process.kill()

    interrupt(terminal, tmp_path / "store", "train", kill, 1)
    terminal.wait_until_gone()
