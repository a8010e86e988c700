"""Locks exclude other processes and threads, and are free as soon as their holder is dead."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from infra.base.locks import exclusive, is_held, share_for_life

HOLD = """
import os, sys, time
from pathlib import Path
from infra.base.locks import exclusive, share_for_life
path, how = Path(sys.argv[1]), sys.argv[2]
held = exclusive(path)
share_for_life(path) if how == "shared" else held.__enter__()
readable, writable = os.pipe()
child = os.fork() if how == "with a child" else None
if child == 0:
    os.write(writable, b"!")  # the child has closed its lock by now
else:
    if child:
        os.read(readable, 1)
    print(child or "", flush=True)
time.sleep(600)
"""


@contextmanager
def holder(path: Path, how: str) -> "Iterator[subprocess.Popen[str]]":
    """Hold a lock in another process; end that process, and its child, at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), how], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    child = process.stdout.readline().strip()
    try:
        yield process
    finally:
        for number in (process.pid, *map(int, child.split())):
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("how", ["alone", "with a child"])
def test_the_lock_of_a_killed_process_is_free_although_a_child_of_it_lives(
    tmp_path: Path, how: str
) -> None:
    path = tmp_path / "lock"
    with holder(path, how) as process:
        assert is_held(path)
        with pytest.raises(BlockingIOError), exclusive(path, wait=False):
            pass
        process.kill()
        process.wait()
        assert not is_held(path)
        with exclusive(path, wait=False):
            assert is_held(path)


def test_a_waiting_thread_says_so_once_and_gets_the_lock_from_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    waiting, order = threading.Event(), []

    def wait() -> None:
        with exclusive(path, on_wait=waiting.set):
            order.append("second")

    thread = threading.Thread(target=wait)
    with exclusive(path, on_wait=lambda: order.append("must not wait")):
        thread.start()
        assert waiting.wait(300)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_a_lock_file_exists_only_while_it_is_held_and_looking_at_it_makes_none(
    tmp_path: Path,
) -> None:
    path = tmp_path / "lock"
    assert not is_held(path)
    assert not path.exists()
    with exclusive(path):
        assert path.exists()
    assert not path.exists()


def test_sharers_hold_a_lock_together_against_an_exclusive_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with holder(path, "shared") as one:
        with holder(path, "shared"):
            one.kill()
            one.wait()
            with pytest.raises(BlockingIOError), exclusive(path, wait=False):
                pass
        with exclusive(path, wait=False):
            pass


def test_a_process_may_share_a_lock_more_than_once(tmp_path: Path) -> None:
    for _ in range(2):
        share_for_life(tmp_path / "lock")
    assert is_held(tmp_path / "lock")
