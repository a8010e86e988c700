"""Run `python -m sknet.graph` in a process of its own, as MindSpore reads its settings once."""

import os
import subprocess
import sys

from tests.processes import ROOT

WITHOUT_REVIEW = """
import runpy, sys
from sknet.graph.platforms import REVIEWED
del REVIEWED[sys.argv.pop(1)]
runpy.run_module("sknet.graph", run_name="__main__")
"""


def run_graph(
    *options: object, not_reviewed: str = "", timeout: float = 900
) -> "subprocess.CompletedProcess[str]":
    """Return the ended process, for which a primitive counts as not reviewed."""
    command = ["-c", WITHOUT_REVIEW, not_reviewed] if not_reviewed else ["-m", "sknet.graph"]
    return subprocess.run(
        [sys.executable, *command, "--quiet", *map(str, options)],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if key != "GLOG_v"},
    )
