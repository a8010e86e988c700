"""Programs of ranks, and callers of the launcher, for tests."""

import sys
import textwrap
from collections.abc import Callable

import psutil

from infra.launch import Job

Alive = Callable[[], set[psutil.Process]]
MakeJob = Callable[..., Job]

SUPERVISOR = [sys.executable, "-m", "infra.launch.supervisor"]

# Ranks without MindSpore, which start at once; msrun starts its scheduler with the same program.
RANK = """
import json, os, sys, time
from pathlib import Path
if os.environ.get("MS_ROLE") == "MS_SCHED":
    sys.exit()
rank = int(os.environ.get("RANK_ID", 0))
def report(status, message=""):
    if rank == 0:
        Path(sys.argv[1]).write_text(json.dumps({"status": status, "message": message}))
"""

# The same, but the scheduler stays, as MindSpore's does in init() until all ranks have ended.
RANK_WITH_SCHEDULER = RANK.replace("sys.exit()", "time.sleep(6000)", 1)

MINDSPORE_RANK = """
import json, os, sys, time
from pathlib import Path
import mindspore as ms
from mindspore import ops
from mindspore.communication import get_group_size, get_rank, init
ms.set_device("CPU")
init()
rank = get_rank()
total = ops.AllReduce()(ms.Tensor([rank + 1.0], ms.float32)).asnumpy()[0]
print(f"sum {total:g} of {get_group_size()} ranks")
"""


class Interruption(BaseException):
    """Not an Exception, like KeyboardInterrupt and the cancellations of an orchestrator."""


def caller_of(job: Job) -> str:
    """Return a program that runs the job and prints its lines and its outcome."""
    return textwrap.dedent(f"""
        from pathlib import {type(job.program).__name__}
        from infra.launch import Job, run
        try:
            result = run({job!r}, on_line=lambda line: print(line, flush=True))
            print(result.status, result.message, sep="\\n", flush=True)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
    """)
