"""How the commands of flows end: one line for an error, and the exit code that belongs to it."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from flows import report, revalidate, train_sknet
from flows.command import run_flow
from infra.artifacts import (
    DamagedArtifactError,
    DigestConflictError,
    RefConflictError,
    StoreError,
)
from infra.base.commands import ConsoleOptions, parse
from sknet.errors import NonFiniteLossError, UserError
from tasks.errors import JobStoppedError, RegressionError
from tests.synthetic_store import fill
from tests.tiny_pipeline import write_images

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
    def main(_: object) -> None:
        raise error

    def command() -> int:
        return run_flow(main, ConsoleOptions())

    ended = call_command(SimpleNamespace(command=command, __name__="flow"))
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, "", f"error: {line}\n")


@pytest.mark.parametrize("flow", [train_sknet, revalidate, report], ids=lambda m: m.__name__)
def test_a_run_records_stores_and_data_by_their_absolute_paths(
    flow: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads the run on Prefect's pages, or retries it, is in another directory."""
    monkeypatch.chdir(tmp_path)
    fill(Path("store"), 1)
    write_images(Path("images"))
    recorded: list[object] = []

    def call(_: object, *args: object, **kwargs: object) -> None:
        recorded.extend([*args, *kwargs.values()])
        raise UserError("recorded")

    monkeypatch.setattr(flow, "call", call)
    options = ["--store", "store", "--data", "images"]
    words = {
        train_sknet: [*options, "--set", "num_classes=3", "--set", "batch_size=4"],
        revalidate: [*options, "--replica", "store"],
        report: options[:2],
    }
    with pytest.raises(UserError, match="recorded"):
        flow.main(parse(flow.command, words[flow]))
    assert str(tmp_path / "store") in recorded
    assert not {"store", "images"} & {each for each in recorded if isinstance(each, str)}
