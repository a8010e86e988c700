"""The load by others leaves out what this process and its descendants take."""

import subprocess
import sys
import time

import psutil

from infra.base.machine_load import OthersLoad

BUSY = "import time; end = time.process_time() + 1.5\nwhile time.process_time() < end: pass"


def test_own_work_is_no_load_and_that_of_others_is() -> None:
    """One program is measured by its parent, as own work, and by a process that is no relative."""
    code = (
        "import sys; from infra.base.machine_load import OthersLoad\n"
        "measured = OthersLoad(); print(flush=True); sys.stdin.read(1); print(measured.fraction())"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as stranger:
        assert stranger.stdin is not None and stranger.stdout is not None
        stranger.stdout.readline()
        own, began = OthersLoad(), time.monotonic()
        # A grandchild: what a supervisor starts is own work too.
        started = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BUSY!r}])"
        subprocess.run([sys.executable, "-c", started], check=True, timeout=60)
        by_others = own.fraction()
        seconds = time.monotonic() - began
        told, _ = stranger.communicate("x")
    share = 1.5 / (seconds * (psutil.cpu_count() or 1))
    assert float(told) - by_others > 0.6 * share
