"""Jobs for the launcher, and the processes that they leave."""

import textwrap
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from infra.launch import Job
from tests.infra.launch.launch_jobs import RANK, Alive, MakeJob
from tests.processes import MARK, processes_marked


@pytest.fixture
def marker() -> dict[str, str]:
    """An environment variable by which the test's processes can be found."""
    return {MARK: uuid.uuid4().hex}


@pytest.fixture
def alive(marker: dict[str, str]) -> Iterator[Alive]:
    """A function that returns the living processes with the marker; all end with the test."""

    def find() -> set[psutil.Process]:
        ((name, value),) = marker.items()
        return set(processes_marked(name, value))

    yield find
    for process in find():
        process.kill()


@pytest.fixture
def make_job(tmp_path: Path, marker: dict[str, str]) -> MakeJob:
    """A function that returns a job whose ranks run `head` and then `body`."""

    def make(body: str, *, head: str = RANK, **changes: Any) -> Job:
        program = tmp_path / "program.py"
        program.write_text(head + textwrap.dedent(body))
        outcome_file = tmp_path / "outcome.json"
        values: dict[str, Any] = {
            "program": program,
            "args": (str(outcome_file),),
            "workers": 1,
            "log_dir": tmp_path / "logs",
            "outcome_file": outcome_file,
            "cwd": tmp_path,
            "env": marker,
            "deadline": 600.0,
            "silence": None,
        }
        return Job(**{**values, **changes})

    return make
