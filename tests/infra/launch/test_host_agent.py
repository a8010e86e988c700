"""The agent of one host: what it tells when it fails, and what it leaves when it is killed."""

import errno
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.base.outcomes import Outcome, UserError
from infra.launch import Job, PreparedHost
from infra.launch.host_agent import HostAgent, _own_directory
from infra.s3 import S3Error
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


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (UserError("no settings"), Outcome.USER_ERROR, "{host} can't be prepared: no settings"),
        (OSError(errno.ENOSPC, "full"), Outcome.DISK_FULL, "{host} can't be prepared: full"),
        (S3Error(0, "S3 is\naway"), Outcome.LOST_WORKER, "S3 is away"),
        (PermissionError(13, "denied", "/srv/x"), Outcome.LOST_WORKER, "denied: /srv/x"),
        (KeyError("size"), Outcome.FAILED, "{host} can't be prepared: KeyError: 'size'"),
    ],
)
def test_a_host_that_cannot_be_prepared_says_why(
    error: Exception,
    status: Outcome,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @contextmanager
    def prepare(directory: Path, host: int) -> Iterator[PreparedHost]:
        assert (directory.is_dir(), host) == (True, 1)
        raise error
        yield

    monkeypatch.setenv("SKNET_CACHE", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # which an agent removes
    agent = HostAgent()
    job = Job(
        program=tmp_path / "program.py",
        args=(),
        workers=1,
        log_dir=tmp_path / "logs",
        outcome_file=tmp_path / "outcome.json",
        cwd=tmp_path,
        env={},
        deadline=None,
        silence=None,
        grace=1,
        bind_core=False,
    )
    agent._run(job, prepare, 1)
    report = agent.report()
    assert report.result is not None
    assert report.result.status is status
    assert report.result.message == message.format(host=f"host {socket.gethostname()}")
    is_fault = status is Outcome.FAILED
    assert any("in prepare" in line for line in report.lines) is is_fault, "where it is in the code"
