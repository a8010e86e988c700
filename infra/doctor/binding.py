"""Whether `msrun --bind_core=True` can give each rank the cores near its device."""

from dataclasses import dataclass
from pathlib import Path

from infra.doctor.results import CheckResult, Status
from infra.launch.binding import AFFINITY_PROGRAMS, CPUSET, binding_obstacle, missing_programs


@dataclass(frozen=True, slots=True)
class Binding:
    """What `--bind_core` needs and doesn't find."""

    obstacle: str | None
    """Why ranks are not bound at all; None if they are."""
    missing: tuple[str, ...]
    """Missing programs, without which the cores are shared out evenly."""


def gather_binding(path: str | None = None, cpuset: Path = CPUSET) -> Binding:
    """Look for the programs and the file that msrun uses.

    Args:
        path: Directories to search instead of those of PATH.
        cpuset: The file that lists the cores.
    """
    missing = missing_programs(AFFINITY_PROGRAMS, path)
    return Binding(binding_obstacle(path, cpuset), tuple(missing))


def check_binding(facts: Binding) -> list[CheckResult]:
    """Judge the binding; training works without it, only slower."""
    check, needed = "--bind_core", "each rank on the cores near its device"
    if facts.obstacle:
        advice = "apt-get install util-linux; with version 2 of control groups there is no cure"
        found = f"no effect: {facts.obstacle}"
        return [CheckResult(check, Status.WARN, found, needed, advice)]
    if facts.missing:
        found = f"no {', '.join(facts.missing)}: cores are shared out evenly"
        advice = "apt-get install pciutils util-linux; npu-smi comes with the driver"
        return [CheckResult(check, Status.WARN, found, needed, advice)]
    return [CheckResult(check, Status.OK, f"taskset, {', '.join(AFFINITY_PROGRAMS)}", needed)]
