"""Run `python -m sknet.graph` in a process of its own, as MindSpore reads its settings once."""

import os
import subprocess
import sys

from tests.processes import ROOT


def run_graph(*options: object, timeout: float = 900) -> "subprocess.CompletedProcess[str]":
    """Return the ended process."""
    return subprocess.run(
        [sys.executable, "-m", "sknet.graph", *map(str, options)],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if key != "GLOG_v"},
    )
