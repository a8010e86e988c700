"""A training that hangs ends with the stacks of all its threads; a slow one continues."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

PROGRAM = """
import ctypes, sys, time
from sknet.training import watchdog
watchdog.GRACE_SECONDS, watchdog.FALLBACK_SECONDS = 0.2, 1.4
watched = watchdog.Watchdog(floor=0.5)
def stand_still():
    {body}
for _ in range(3):
    watched.step_done()
    time.sleep(0.01)
stand_still()
watched.end()
print("reached the end")
"""


def run(body: str) -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format(body=body)
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=600
    )


@pytest.mark.parametrize(
    ("body", "printed"),
    [
        ("time.sleep(50)", "error: no step within 0 s; where all threads are:"),
        # Native code that holds Python's lock, so that no Python thread can run.
        ("ctypes.PyDLL(None).sleep(50)", "Timeout (0:00:01.9"),
    ],
    ids=["Python's lock is free", "native code has the lock"],
)
def test_a_hang_ends_with_stacks(body: str, printed: str) -> None:
    result = run(body)
    assert result.returncode == 1
    assert printed in result.stderr
    assert "in stand_still" in result.stderr
    assert "reached the end" not in result.stdout


def test_work_between_steps_has_no_limit() -> None:
    result = run(
        """
    with watched.paused():
        time.sleep(3)
    watched.step_done()
""".strip()
    )
    assert result.returncode == 0, result.stderr
    assert "reached the end" in result.stdout


def test_steps_may_take_a_multiple_of_their_median() -> None:
    result = run(
        """
    for _ in range(12):
        time.sleep(0.1)
        watched.step_done()
    assert 1.5 < watched.limit < 4, watched.limit
    time.sleep(1)
    watched.step_done()
""".strip()
    )
    assert result.returncode == 0, result.stderr
