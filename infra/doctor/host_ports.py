"""Whether Linux may give the ports by which HCCL connects hosts to other programs.

HCCL listens on 32 ports of each host, from 60000 on. They are inside the range from which Linux
takes a port for any program that asks for none in particular, unless they are reserved:
https://www.hiascend.com/document/detail/en/canncommercial/850/maintenref/envvar/envref_07_0074.html
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from infra.base.ranges import show_ranges
from infra.doctor.results import CheckResult, Status

SETTINGS = Path("/proc/sys/net/ipv4")
FIRST_PORT = 60000
NUM_PORTS = 32
"""Ports that HCCL takes since CANN 8.2; 16 before."""


@dataclass(frozen=True, slots=True)
class HostPorts:
    """Ports of this host."""

    wanted: frozenset[int]
    """Ports that HCCL will listen on; none if Linux chooses them (`auto`)."""
    local: frozenset[int] | None
    """Ports of the kernel's range for programs that ask for none; None if that can't be read."""
    reserved: frozenset[int] = frozenset()
    """Ports that it doesn't give away all the same."""


def gather_host_ports(
    environment: Mapping[str, str], directory: Path = SETTINGS
) -> HostPorts | None:
    """Read the kernel's settings, and HCCL's from the environment.

    Args:
        environment: The environment of the ranks.
        directory: The kernel's settings.

    Returns:
        The ports; None if HCCL's settings have another form than its documentation gives.
    """
    try:
        wanted = _wanted(environment)
    except ValueError:
        return None
    try:
        low, high = map(int, (directory / "ip_local_port_range").read_text("ascii").split())
        reserved = _ports((directory / "ip_local_reserved_ports").read_text("ascii").strip())
    except (OSError, ValueError):
        return HostPorts(wanted, None)
    return HostPorts(wanted, frozenset(range(low, high + 1)), reserved)


def check_host_ports(facts: HostPorts | None) -> list[CheckResult]:
    """Judge the ports; they matter for one host, too."""
    check = "HCCL's TCP ports"
    if facts is None:
        found = "HCCL_HOST_SOCKET_PORT_RANGE or HCCL_IF_BASE_PORT is no list of ports"
        needed = "60000-60050, 60000,60050-60100 or auto; a number"
        return [CheckResult(check, Status.FAIL, found, needed, "correct the variable")]
    if facts.local is None:
        return [CheckResult(check, Status.WARN, "the kernel's settings can't be read")]
    at_risk = facts.wanted & (facts.local - facts.reserved)
    shown = show_ranges(facts.wanted) or "chosen by Linux"
    return [
        CheckResult.judge(
            check,
            not at_risk,
            found=f"{show_ranges(at_risk)}: Linux gives them to any program" if at_risk else shown,
            needed="reserved for HCCL",
            # The setting replaces the one before, so what is reserved already must be in it.
            advice="sysctl -w net.ipv4.ip_local_reserved_ports="
            + show_ranges(facts.wanted | facts.reserved),
            otherwise=Status.WARN,
        )
    ]


def _wanted(environment: Mapping[str, str]) -> frozenset[int]:
    chosen = environment.get("HCCL_HOST_SOCKET_PORT_RANGE", "")
    if chosen == "auto":
        return frozenset()
    if chosen:
        return _ports(chosen)
    first = int(environment.get("HCCL_IF_BASE_PORT") or FIRST_PORT)
    return frozenset(range(first, first + NUM_PORTS))


def _ports(text: str) -> frozenset[int]:
    """Parse ports and ranges, such as `8080,60000-60031`.

    Raises:
        ValueError: The text has another form.
    """
    ports: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        ports.update(range(int(first), int(last or first) + 1))
    if any(not 0 < port <= 65535 for port in ports):
        raise ValueError(text)
    return frozenset(ports)
