"""A conversion that loses a process, or is killed, is resumed from its finished shards."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.sknet.conftest import write_images
from tests.sknet.conversions import contents, convert, identities

pytestmark = pytest.mark.slow

NUM_SHARDS = 12
"""Shards of each split; 24 in all, of a few images each."""


def start(source: Path, out: Path, outcome: Path) -> subprocess.Popen[bytes]:
    options = ["--source", source, "--out", out, "--shards", NUM_SHARDS, "--workers", 2]
    command = [sys.executable, "-m", "sknet.convert", *options, "--outcome_file", outcome]
    return subprocess.Popen(
        list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def finished_files(out: Path) -> dict[str, tuple[int, int]]:
    """Return the identities of the files of all finished shards."""
    records = out.glob(".conversion/*.json")
    return identities(path for each in records for path in out.glob(f"{each.stem}*"))


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_conversion_resumes_after_the_loss_of_a_worker_and_after_a_kill(tmp_path: Path) -> None:
    source = write_images(tmp_path / "images", train=20, val=5)
    undisturbed, out, outcome = (tmp_path / name for name in ("undisturbed", "out", "outcome.json"))
    convert(source, undisturbed, num_shards=NUM_SHARDS)
    out.mkdir()

    process = start(source, out, outcome)
    wait_for(lambda: len(finished_files(out)) >= 2, process)
    (*_, worker) = psutil.Process(process.pid).children()
    worker.kill()
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    # Without an outcome, the task tries again.
    assert not outcome.exists()
    assert errors.decode().splitlines()[-1] == (
        "error: a worker process was killed, perhaps because memory ran out: start the same "
        "command again to resume from the finished shards"
    )
    after_loss = finished_files(out)

    process = start(source, out, outcome)
    wait_for(lambda: len(finished_files(out)) >= len(after_loss) + 8, process)
    workers = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=300)
    # Its workers end too, so that they don't disturb the next attempt.
    assert not psutil.wait_procs(workers, timeout=60)[1]
    assert not (out / "shards.json").exists()
    after_kill = finished_files(out)
    assert after_loss.items() <= after_kill.items()

    process = start(source, out, outcome)
    process.communicate(timeout=300)
    assert process.returncode == 0
    assert contents(out) == contents(undisturbed)
    assert after_kill.items() <= identities(out.iterdir()).items()
