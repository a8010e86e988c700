"""A conversion that is killed goes on from what it had finished."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from sknet.data.shards import read_shards
from tests.conversions import contents, convert, identities
from tests.sknet.conftest import write_images

pytestmark = pytest.mark.slow


def command(source: Path, out: Path, num_shards: int) -> list[str]:
    options = ["--source", source, "--out", out, "--shards", num_shards, "--workers", 2]
    return [sys.executable, "-m", "sknet.convert", *map(str, options)]


def records(out: Path) -> set[str]:
    return {path.name.removesuffix(".json") for path in out.glob(".conversion/*.json")}


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_conversion_killed_at_any_moment_goes_on_from_its_finished_shards(tmp_path: Path) -> None:
    source = write_images(tmp_path / "images", train=20, val=5)
    undisturbed, out = tmp_path / "undisturbed", tmp_path / "out"
    convert(source, undisturbed, num_shards=12)
    chance = random.Random(11)
    kept: dict[str, tuple[int, int]] = {}
    out.mkdir()
    for number in (1, 7, 17):
        process = subprocess.Popen(command(source, out, 12), stdout=subprocess.DEVNULL)
        wait_for(lambda least=number: len(records(out)) >= least, process)
        time.sleep(chance.uniform(0, 0.15))
        workers = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        # Its workers end by themselves, lest they write beside the next attempt.
        assert not psutil.wait_procs(workers, timeout=10)[1]
        assert not (out / "shards.json").exists()
        now = identities(path for name in records(out) for path in out.glob(f"{name}*"))
        assert kept.items() <= now.items()
        kept = now
    subprocess.run(command(source, out, 12), check=True, stdout=subprocess.DEVNULL, timeout=120)
    assert contents(out) == contents(undisturbed)
    assert kept.items() <= identities(out.iterdir()).items()
    assert len(kept) >= 2 * 17


def test_killed_worker_ends_the_conversion_in_one_line_and_without_an_outcome(
    tmp_path: Path,
) -> None:
    source = write_images(tmp_path / "images", train=20, val=5)
    out = tmp_path / "out"
    out.mkdir()
    process = subprocess.Popen(
        [*command(source, out, 20), f"--outcome_file={tmp_path / 'outcome.json'}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    wait_for(lambda: len(records(out)) >= 1, process)
    (*_, worker) = psutil.Process(process.pid).children()
    worker.kill()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    # Which makes a task try again.
    assert not (tmp_path / "outcome.json").exists()
    assert errors.decode().splitlines()[-1] == (
        "error: a worker process was killed, perhaps for want of memory: "
        "start the same command again to resume from the finished shards"
    )
    done = records(out)
    before = identities(path for name in done for path in out.glob(f"{name}*"))
    convert(source, out, num_shards=20)
    assert read_shards(out).num_samples("train") == 60
    assert before.items() <= identities(out.iterdir()).items()
