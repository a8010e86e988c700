"""What people see of a run: its first line soon, a live display in a terminal, and how it ends."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infra.artifacts import open_store
from tests.candidates import put_changed, remove_all, with_note
from tests.flow_runs import harness_api
from tests.processes import PYTHONPATH, ROOT
from tests.terminals import TerminalRun
from tests.tiny_pipeline import Trained, train_command, train_options
from tests.waiting import wait_for

SECONDS_TO_FIRST_LINE = 3


def move_production(trained: Trained, root: Path) -> None:
    """Leave a production that the checkpoint of `trained` has lost to one that is gone since."""
    store = open_store(str(root))
    for kind in ("evaluation", "promotion", "report"):
        remove_all(store, kind)
    own = store.load("checkpoint", trained.of("train").key)
    other = put_changed(store, own, with_note("other"), params={"world_size": 1001}).manifest
    current = store.refs.get("production")
    store.refs.set("production", other, expected=current, reason="by hand")
    store.remove("checkpoint", other.key)


@pytest.mark.slow
def test_in_a_terminal_a_run_is_drawn_live_and_a_refused_checkpoint_can_fail_it(
    trained: Trained, copied_store: Path, tmp_path: Path
) -> None:
    move_production(trained, copied_store)
    command = train_command(trained.recipe, trained.images, copied_store, 2)
    environment = {"PYTHONPATH": PYTHONPATH, **harness_api()}
    run = TerminalRun([*command, "--fail-if-not-promoted"], tmp_path / "run.log", environment)
    run.columns = 400  # so that it breaks no line
    try:
        run.start()
        assert run.wait() == 1, run.output()
    finally:
        run.end()

    assert "━" in run.output(), "no bar was drawn"
    assert "validate starting 1 process" in re.sub(r"\x1b\[[0-9;]*m", "", run.output())
    screen = run.screen()
    lines = screen.lines()
    assert not any("━" in line for line in lines), "a bar was left behind"
    assert not screen.hides_cursor
    (building,) = [line for line in lines if line.startswith("validate: building evaluation/")]
    assert lines.index(building) < lines.index("task       status    seconds  artifact")
    (promoted,) = [line for line in lines if line.startswith("promoted ")]
    judged = promoted.removeprefix("promoted    NOT promoted: ")
    assert judged.startswith("no floor is set; failed: classes, ")
    assert lines[-1] == f"error: not promoted: {judged}"
    assert lines[-6] == "next"
    steps = [line[2:18].strip() for line in lines[-5:-1]]
    assert steps == ["open the report", "predict", "compare", "promote"]


def seconds_to_first_line(command: list[str], log: Path) -> float:
    """Start a command whose stderr is no terminal, and end it once it has printed something."""
    began = time.monotonic()
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True
        )
    try:
        wait_for(lambda: log.stat().st_size > 0, pause=0.02)
        return time.monotonic() - began
    finally:
        process.terminate()
        process.wait()


@pytest.mark.timed
@pytest.mark.parametrize("name", ["python", "sknet"])
def test_the_first_line_comes_within_three_seconds(
    name: str, tmp_path: Path, images: Path, recipe: Path
) -> None:
    options = train_options(recipe, images, tmp_path / "store", 1)
    command = {
        "python": [sys.executable, "-m", "flows.train_sknet"],
        "sknet": [str(Path(sys.executable).with_name("sknet")), "run"],
    }
    seconds = seconds_to_first_line([*command[name], *options], tmp_path / "errors")
    print(f"{name}: {seconds:.2f} s")
    assert seconds < SECONDS_TO_FIRST_LINE
    (line, *_) = (tmp_path / "errors").read_text("utf-8").splitlines()
    assert " start: " in line
