"""A training that hangs ends with the stacks of all its threads; a slow one continues."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

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


SLEEP = "time.sleep(50)"
# It holds Python's lock, so that no Python thread can run.
NATIVE_SLEEP = "ctypes.PyDLL(None).sleep(50)"
WORK_BETWEEN_STEPS = """
    with watched.paused():
        time.sleep(3)
    watched.step_done()
""".strip()
WAITING = """
    for _ in range(6):
        time.sleep(0.3)
        watched.postpone()
    watched.step_done()
    assert watched.limit == 0.5, watched.limit
""".strip()
SLOW_STEPS = """
    for _ in range(12):
        time.sleep(0.1)
        watched.step_done()
    assert 1.5 < watched.limit < 4, watched.limit
    time.sleep(1)
    watched.step_done()
""".strip()

Ended = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def ended() -> dict[str, Ended]:
    """How the program ended with each of the bodies; all run at once, since they only sleep."""

    def run(body: str) -> Ended:
        command = [sys.executable, "-c", PROGRAM.format(body=body)]
        return subprocess.run(command, capture_output=True, text=True, timeout=600)

    bodies = (SLEEP, NATIVE_SLEEP, WORK_BETWEEN_STEPS, WAITING, SLOW_STEPS)
    with ThreadPoolExecutor() as threads:
        return dict(zip(bodies, threads.map(run, bodies), strict=True))


@pytest.mark.parametrize(
    ("body", "printed"),
    [
        (SLEEP, "error: no step within 0 s; where all threads are:"),
        (NATIVE_SLEEP, "Timeout (0:00:01.9"),
    ],
    ids=["Python's lock is free", "native code has the lock"],
)
def test_a_hang_ends_with_stacks(ended: dict[str, Ended], body: str, printed: str) -> None:
    result = ended[body]
    assert result.returncode == 1
    assert printed in result.stderr
    assert "in stand_still" in result.stderr
    assert "reached the end" not in result.stdout


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(WORK_BETWEEN_STEPS, id="work between steps"),
        pytest.param(WAITING, id="waiting for what is being fetched"),
        pytest.param(SLOW_STEPS, id="steps of a multiple of their median"),
    ],
)
def test_what_may_take_long_does_not_end_the_training(ended: dict[str, Ended], body: str) -> None:
    result = ended[body]
    assert result.returncode == 0, result.stderr
    assert "reached the end" in result.stdout
