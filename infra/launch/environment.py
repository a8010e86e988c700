"""The environment in which ranks run: timeouts, log level, threads.

| variable | value | why |
|---|---|---|
| MS_NODE_TIMEOUT | 15 s | until the scheduler gives a silent rank up (MindSpore: 30) |
| MS_HEARTBEAT_RETRY_TIMEOUT | 10 s | must be less than MS_NODE_TIMEOUT |
| MS_CPU_COMM_OP_TIMEOUT | 600 s | the default of 30 s ends a job whose rank 0 saves or evaluates |
| GLOG_v | 3 | errors only: a job prints about 60 warnings about its cluster; 2 to diagnose |
| PYTHONUNBUFFERED | 1 | a rank's lines reach its log, and the silence watchdog, at once |
| OMP_NUM_THREADS | cores / ranks | all ranks share this host's cores |

On Ascend the collectives are HCCL's, whose defaults are kept: HCCL_EXEC_TIMEOUT (1836 s) takes
the place of MS_CPU_COMM_OP_TIMEOUT, HCCL_CONNECT_TIMEOUT (120 s) bounds the link set-up.

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

_DEFAULTS = {
    "MS_NODE_TIMEOUT": "15",
    "MS_HEARTBEAT_RETRY_TIMEOUT": "10",
    "MS_CPU_COMM_OP_TIMEOUT": "600",
    "GLOG_v": "3",
    "PYTHONUNBUFFERED": "1",
}


def rank_environment(workers: int, additions: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of each of `workers` ranks on this host."""
    cores = len(os.sched_getaffinity(0))
    defaults = {**_DEFAULTS, "OMP_NUM_THREADS": str(max(1, cores // workers))}
    environment = {**defaults, **os.environ, **additions}
    # msrun starts the ranks with the `python3` of PATH, which must be the one running now
    interpreter_dir = str(Path(sys.executable).parent)
    environment["PATH"] = os.pathsep.join([interpreter_dir, environment.get("PATH", os.defpath)])
    return environment
