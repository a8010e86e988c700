"""Whether HCCL's ports are kept from other programs, by the kernel's settings."""

from pathlib import Path

import pytest

from infra.doctor.host_ports import check_host_ports, gather_host_ports
from tests.infra.ascend_trees import write

DEFAULT = "32768\t60999\n"  # Linux's own


def kernel(directory: Path, given: str = DEFAULT, reserved: str = "\n") -> Path:
    write(directory / "ip_local_port_range", given)
    write(directory / "ip_local_reserved_ports", reserved)
    return directory


@pytest.mark.parametrize(
    ("given", "reserved", "variables", "status", "found"),
    [
        (DEFAULT, "\n", {}, "warn", "60000-60031: Linux gives them to any program"),
        (DEFAULT, "60000-60031\n", {}, "ok", "60000-60031"),
        (DEFAULT, "8080,60000-60031\n", {}, "ok", "60000-60031"),
        (DEFAULT, "60000-60015\n", {}, "warn", "60016-60031: Linux gives them to any program"),
        ("10000\t59999\n", "\n", {}, "ok", "60000-60031"),
        (DEFAULT, "\n", {"HCCL_IF_BASE_PORT": "20000"}, "ok", "20000-20031"),
        (
            DEFAULT,
            "60000-60031\n",
            {"HCCL_IF_BASE_PORT": "50000"},
            "warn",
            "50000-50031: Linux gives them to any program",
        ),
        (DEFAULT, "\n", {"HCCL_HOST_SOCKET_PORT_RANGE": "auto"}, "ok", "chosen by Linux"),
        (
            DEFAULT,
            "\n",
            {"HCCL_HOST_SOCKET_PORT_RANGE": "20000,60990-61010", "HCCL_IF_BASE_PORT": "20000"},
            "warn",
            "60990-60999: Linux gives them to any program",
        ),
        (DEFAULT, "\n", {"HCCL_IF_BASE_PORT": "sixty"}, "fail", None),
        (DEFAULT, "\n", {"HCCL_HOST_SOCKET_PORT_RANGE": "60000-70000"}, "fail", None),
        ("unknown\n", "\n", {}, "warn", "the kernel's settings can't be read"),
    ],
)
def test_ports_that_other_programs_may_get_are_named(
    tmp_path: Path,
    given: str,
    reserved: str,
    variables: dict[str, str],
    status: str,
    found: str | None,
) -> None:
    facts = gather_host_ports(variables, kernel(tmp_path, given, reserved))
    (result,) = check_host_ports(facts)
    assert str(result.status) == status
    assert found is None or result.found == found


def test_the_advice_reserves_what_hccl_wants_and_keeps_what_is_reserved(tmp_path: Path) -> None:
    directory = kernel(tmp_path, reserved="35357,50000-50009\n")
    (result,) = check_host_ports(gather_host_ports({}, directory))
    ports = "35357,50000-50009,60000-60031"
    assert result.advice == f"sysctl -w net.ipv4.ip_local_reserved_ports={ports}"
    reserved = result.advice.partition("=")[2]
    (after,) = check_host_ports(gather_host_ports({}, kernel(tmp_path, reserved=reserved)))
    assert str(after.status) == "ok"


def test_this_machines_kernel_can_be_read() -> None:
    facts = gather_host_ports({})
    assert facts is not None
    assert facts.local
