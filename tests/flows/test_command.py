"""How the commands of flows end: one line for an error, and the exit code that belongs to it."""

import subprocess
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from infra.artifacts import (
    DamagedArtifactError,
    DigestConflictError,
    RefConflictError,
    StoreError,
)
from sknet.errors import NonFiniteLossError, UserError
from tasks.errors import JobStoppedError, RegressionError

Ended = subprocess.CompletedProcess[str]


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("no such recipe"), 2, "no such recipe"),
        (StoreError("no such artifact"), 2, "no such artifact"),
        (DamagedArtifactError("bytes differ"), 1, "bytes differ"),
        (DigestConflictError("another digest"), 1, "another digest"),
        (RefConflictError("moved"), 1, "moved"),
        (RegressionError("production changed"), 1, "production changed"),
        (NonFiniteLossError("loss is nan"), 1, "NonFiniteLossError: loss is nan"),
        (OSError("disk"), 1, "OSError: disk"),
        (JobStoppedError("step 7"), 1, "stopped (step 7); the same command goes on from here"),
    ],
)
def test_each_error_has_its_line_and_exit_code(
    error: BaseException, code: int, line: str, call_command: Callable[..., Ended]
) -> None:
    def main(_: Namespace) -> None:
        raise error

    ended = call_command(SimpleNamespace(main=main, parser=ArgumentParser))
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, "", f"error: {line}\n")
