"""The environment in which ranks run: timeouts (infra.launch.environment), log level, threads.

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
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal


@dataclass(frozen=True)
class Timeout:
    """One wait."""

    name: str
    """A variable of the ranks' environment, an option of msrun, or a wait of this package."""
    seconds: float
    read_by: Literal["CPU and Ascend", "CPU", "Ascend", "launcher"]
    reason: str


_TABLE = (
    Timeout(
        "MS_NODE_TIMEOUT",
        15,
        "CPU and Ascend",
        "until the scheduler gives a silent rank up; MindSpore's 30 s leave no time within the 30 s"
        " in which a lost host must have ended the job, 15 s survive a break of 5 s",
    ),
    Timeout(
        "MS_HEARTBEAT_RETRY_TIMEOUT",
        10,
        "CPU and Ascend",
        "until a rank gives the scheduler up; must be less than MS_NODE_TIMEOUT",
    ),
    Timeout(
        "MS_CPU_COMM_OP_TIMEOUT",
        900,
        "CPU",
        "one collective; MindSpore's 30 s end a job whose rank 0 saves or evaluates for longer;"
        " more than the 600 s of the ranks' watchdog, which says where they stand",
    ),
    Timeout(
        "HCCL_CONNECT_TIMEOUT",
        600,
        "Ascend",
        "links between devices, which are made when the first rank has compiled: longer than the"
        " spread of compile times (134 s published); HCCL's own is 120 s of 120 to 7200 (CANN's"
        " documentation)",
    ),
    Timeout(
        "HCCL_EXEC_TIMEOUT",
        1836,
        "Ascend",
        "one collective, in multiples of 68; HCCL's own value in newer releases of CANN (its"
        " documentation), set so that it is the same in all; the launcher sees a loss long before",
    ),
    Timeout(
        "cluster_time_out",
        300,
        "CPU and Ascend",
        "msrun's option: until all ranks have joined, which slow imports on a shared disk delay;"
        " a rank that dies before is seen at once, so being generous costs nothing",
    ),
    Timeout(
        "host_silence",
        10,
        "launcher",
        "until a host that doesn't answer the caller is given up",
    ),
    Timeout(
        "caller_silence",
        15,
        "launcher",
        "until a host that the caller doesn't ask ends its ranks; more than host_silence, so that"
        " the caller, who knows all hosts, is first",
    ),
    Timeout(
        "stopped_rank",
        5,
        "launcher",
        "until a rank that is stopped (SIGSTOP) is given up: its peers would wait for a collective",
    ),
    Timeout(
        "placement",
        30,
        "launcher",
        "one try to start on a set of hosts; a cut-off host looks alive to Ray for about a minute",
    ),
    Timeout(
        "stop_grace",
        60,
        "launcher",
        "from a request to stop until the job is ended hard: a step and a checkpoint",
    ),
)

TIMEOUTS: Mapping[str, Timeout] = MappingProxyType({row.name: row for row in _TABLE})


def seconds(name: str) -> float:
    """The wait of that name."""
    return TIMEOUTS[name].seconds


def timeout_variables() -> dict[str, str]:
    """What ranks find in their environment."""
    return {name: f"{row.seconds:g}" for name, row in TIMEOUTS.items() if name.isupper()}


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
