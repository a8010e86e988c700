"""The environment in which ranks run: timeouts (infra.launch.timeouts), log level, threads.

| variable | value | why |
|---|---|---|
| GLOG_v | 3 | errors only: a job prints about 60 warnings about its cluster; 2 to diagnose |
| PYTHONUNBUFFERED | 1 | a rank's lines reach its log, and the silence watchdog, at once |
| OMP_NUM_THREADS | cores / ranks | all ranks share this host's cores |

What the process environment or the job sets wins over this table.

msrun adds, for each rank: MS_ROLE (MS_WORKER; MS_SCHED for the scheduler, which runs the same
program up to `init()`), MS_WORKER_NUM, MS_NODE_ID, MS_SCHED_HOST, MS_SCHED_PORT, MS_TOPO_TIMEOUT,
RANK_ID, RANK_SIZE and DEVICE_ID. A single worker runs without msrun, hence without these: a
program is distributed exactly if MS_ROLE is set.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from infra.launch.timeouts import timeout_variables

_DEFAULTS = {
    **timeout_variables(),
    "GLOG_v": "3",
    "PYTHONUNBUFFERED": "1",
}


# What the caller sets of these holds on the other hosts of its job too.
TRAVELLING = (*timeout_variables(), "GLOG_v", "OMP_NUM_THREADS", "ONEDNN_MAX_CPU_ISA")


def travelling_environment() -> dict[str, str]:
    """The caller's choices for ranks on other hosts."""
    return {name: os.environ[name] for name in TRAVELLING if name in os.environ}


def rank_environment(workers: int, additions: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of each of `workers` ranks on this host."""
    cores = len(os.sched_getaffinity(0))
    defaults = {**_DEFAULTS, "OMP_NUM_THREADS": str(max(1, cores // workers))}
    environment = {**defaults, **os.environ, **additions}
    # msrun starts the ranks with the `python3` of PATH, which must be the one running now
    interpreter_dir = str(Path(sys.executable).parent)
    environment["PATH"] = os.pathsep.join([interpreter_dir, environment.get("PATH", os.defpath)])
    return environment
