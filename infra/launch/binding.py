"""Whether msrun can give each rank its own cores (`--bind_core=True`), and which cores ranks have.

msrun needs the program taskset and a file of control groups in version 1, from which it takes the
cores of this host; without either it binds nothing and says so only in a warning, which the log
level of ranks hides. It asks npu-smi, lspci and lscpu which cores are near which device, and shares
the cores out evenly if one of them fails (`process_entity/_bind.py` and
`runtime/thread_bind_core.py` of MindSpore 2.10).
"""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from infra.base.ranges import show_ranges

CPUSET = Path("/sys/fs/cgroup/cpuset/cpuset.cpus")
"""Where MindSpore looks for this host's cores: version 1 of control groups."""

BINDING_PROGRAM = "taskset"
AFFINITY_PROGRAMS = ("npu-smi", "lspci", "lscpu")
"""Programs that tell which cores are near which device."""


def missing_programs(names: Iterable[str], path: str | None = None) -> list[str]:
    """Return the programs that are not found; `path` replaces PATH."""
    return [name for name in names if shutil.which(name, path=path) is None]


def binding_obstacle(path: str | None = None, cpuset: Path = CPUSET) -> str | None:
    """Return why msrun can't bind ranks to cores; None if it can.

    Args:
        path: Directories to search instead of those of PATH.
        cpuset: The file that lists the cores.
    """
    if missing_programs([BINDING_PROGRAM], path):
        return f"there is no {BINDING_PROGRAM}"
    try:
        cores = cpuset.read_text("utf-8").strip()
    except (OSError, ValueError):
        return f"there is no {cpuset}: MindSpore reads version 1 of control groups only"
    return None if cores else f"{cpuset} is empty"


def report_binding(cores: Mapping[int, Iterable[int]], obstacle: str | None) -> list[str]:
    """Return lines that say which cores the ranks have.

    Args:
        cores: The cores on which each rank may run.
        obstacle: Why msrun bound no rank; None if it could.
    """
    if obstacle:
        shared = show_ranges({core for each in cores.values() for core in each})
        return [f"bind_core has no effect, all ranks share the cores {shared}: {obstacle}"]
    return [f"rank {rank} has the cores {show_ranges(own)}" for rank, own in cores.items()]
