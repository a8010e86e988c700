"""Directories of the agents on a host, of which some were killed."""

import subprocess
import sys
from pathlib import Path

import pytest

from infra.launch.host_agent import _own_directory
from tests.processes import ROOT

AGENT = """
from infra.launch.host_agent import _own_directory
with _own_directory() as directory:
    (directory / "checkpoint").write_text("not uploaded")
    print(directory, flush=True)
    input()
"""


def start_agent() -> tuple[subprocess.Popen[str], Path]:
    """Start a process that holds a directory until its input ends, and return both."""
    process = subprocess.Popen(
        [sys.executable, "-c", AGENT],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_the_next_agent_removes_the_directories_of_killed_ones_and_of_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKNET_CACHE", str(tmp_path))
    killed, left = start_agent()
    killed.kill()
    killed.communicate()
    assert (left / "checkpoint").is_file()
    living, used = start_agent()
    assert not left.exists()
    with _own_directory() as own:
        assert {path for path in own.parent.iterdir() if path.is_dir()} == {own, used}
    assert (used / "checkpoint").is_file()
    living.communicate("\n")
    assert living.returncode == 0
    assert list(own.parent.iterdir()) == []
