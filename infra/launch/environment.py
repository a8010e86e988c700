"""The environment of the ranks, and the time limits of the launcher.

| variable | value | why |
|---|---|---|
| GLOG_v | 3 | errors only: a job prints about 60 warnings about its cluster; 2 to diagnose |
| PYTHONUNBUFFERED | 1 | a rank's lines reach its log, and the check for silence, at once |
| OMP_NUM_THREADS | cores / ranks | all ranks share this host's cores |

`TIMEOUTS` has the others. What the process environment or the job sets overrides both tables.

msrun adds, for each rank: MS_ROLE (MS_WORKER; MS_SCHED for the scheduler, which runs the same
program up to `init()`), MS_WORKER_NUM, MS_NODE_ID, MS_SCHED_HOST, MS_SCHED_PORT, MS_TOPO_TIMEOUT,
RANK_ID, RANK_SIZE and DEVICE_ID. A single rank runs without msrun, hence without these: a program
is distributed if and only if MS_ROLE is set.
"""

import ipaddress
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import psutil


@dataclass(frozen=True)
class Timeout:
    """A time limit."""

    name: str
    """A variable of the ranks' environment (upper case), an option of msrun, or one of ours."""
    seconds: float
    read_by: Literal["CPU and Ascend", "CPU", "Ascend", "launcher"]
    reason: str
    """What it limits, and why to this value; shown in docs/clusters.md."""


_TABLE = (
    Timeout(
        "MS_NODE_TIMEOUT",
        15,
        "CPU and Ascend",
        "silence of a rank after which the scheduler gives it up; MindSpore's default of 30 s is"
        " too long for ending a job within 30 s of the loss of a host; 15 s survive a network"
        " failure of 5 s",
    ),
    Timeout(
        "MS_HEARTBEAT_RETRY_TIMEOUT",
        10,
        "CPU and Ascend",
        "silence of the scheduler after which a rank gives it up; must be less than"
        " MS_NODE_TIMEOUT",
    ),
    Timeout(
        "MS_CPU_COMM_OP_TIMEOUT",
        900,
        "CPU",
        "one collective operation; with MindSpore's default of 30 s, a job ends when rank 0 saves"
        " or evaluates for longer; more than the 600 s of the ranks' watchdog, which prints where"
        " they hang",
    ),
    Timeout(
        "HCCL_CONNECT_TIMEOUT",
        600,
        "Ascend",
        "making the links between devices, which starts when the first rank has compiled; must be"
        " longer than compile times differ between ranks (134 s published); HCCL's default is 120 s"
        " of 120 to 7200 (CANN's documentation)",
    ),
    Timeout(
        "HCCL_EXEC_TIMEOUT",
        1836,
        "Ascend",
        "one collective operation, a multiple of 68; the default of newer releases of CANN"
        " (CANN's documentation), set so that it is the same in all releases; the launcher notices"
        " a loss long before",
    ),
    Timeout(
        "cluster_time_out",
        300,
        "CPU and Ascend",
        "msrun's wait for all ranks to join; imports from a slow shared disk delay them; generous,"
        " because a rank that dies before is noticed at once",
    ),
    Timeout(
        "host_silence",
        10,
        "launcher",
        "silence of a host after which the caller gives it up",
    ),
    Timeout(
        "caller_silence",
        15,
        "launcher",
        "silence of the caller after which a host ends its ranks; more than host_silence, so that"
        " the caller, who knows all hosts, acts first",
    ),
    Timeout(
        "stopped_rank",
        5,
        "launcher",
        "time for which a rank may be stopped (SIGSTOP), while the others wait for a collective"
        " operation",
    ),
    Timeout(
        "placement",
        30,
        "launcher",
        "one attempt to start on a set of hosts; for about a minute, Ray takes a host whose link"
        " is cut for alive",
    ),
    Timeout(
        "stop_grace",
        60,
        "launcher",
        "time from a request to stop until the ranks are killed: a step and a checkpoint",
    ),
)

TIMEOUTS: Mapping[str, Timeout] = MappingProxyType({row.name: row for row in _TABLE})


def seconds(name: str) -> float:
    """Return the time limit of that name."""
    return TIMEOUTS[name].seconds


def timeout_variables() -> dict[str, str]:
    """Return the time limits that ranks read from their environment."""
    return {name: f"{row.seconds:g}" for name, row in TIMEOUTS.items() if name.isupper()}


_DEFAULTS = {**timeout_variables(), "GLOG_v": "3", "PYTHONUNBUFFERED": "1"}

HOST_ADDRESS = "HCCL_IF_IP"
"""The address by which HCCL reaches this host: one of its own, so it differs between hosts."""

# If the caller sets one of these, its value holds on the other hosts of its job too.
_TRAVELLING = frozenset(
    {
        *timeout_variables(),
        *("GLOG_v", "OMP_NUM_THREADS", "ONEDNN_MAX_CPU_ISA", "MS_ALLOC_CONF"),
        *("HCCL_SOCKET_IFNAME", HOST_ADDRESS, "HCCL_IF_BASE_PORT", "HCCL_HOST_SOCKET_PORT_RANGE"),
        *("HCCL_DETERMINISTIC", "HCCL_BUFFSIZE"),
    }
)
_TRAVELLING_PREFIX = "MS_ASCEND_"


def travelling_environment() -> dict[str, str]:
    """Return the variables of this process that ranks on other hosts get too."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in _TRAVELLING or name.startswith(_TRAVELLING_PREFIX)
    }


def is_foreign_address(address: str) -> bool:
    """Tell whether no network interface of this host has the address, whatever its spelling."""
    own = {each.address for found in psutil.net_if_addrs().values() for each in found}
    return _canonical(address) not in map(_canonical, own)


def _canonical(address: str) -> str:
    try:
        return str(ipaddress.ip_address(address.partition("%")[0]))
    except ValueError:
        return address


def rank_environment(workers: int, additions: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of each of `workers` ranks on this host."""
    cores = len(os.sched_getaffinity(0))
    defaults = {**_DEFAULTS, "OMP_NUM_THREADS": str(max(1, cores // workers))}
    environment = {**defaults, **os.environ, **additions}
    # msrun starts the ranks with the `python3` of PATH, which must be the one running now.
    interpreter_dir = str(Path(sys.executable).parent)
    environment["PATH"] = os.pathsep.join([interpreter_dir, environment.get("PATH", os.defpath)])
    return environment
