"""Facts about a host with Ascend devices, from npu-smi, hccn_tool and version files."""

import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from infra.base.ascend import INSTALL_INFO, ROOT, driver_directory, read_names
from infra.doctor.cann_tools import Cann, gather_cann

TOOL_SECONDS = 60.0
"""npu-smi takes seconds on a busy host, and so does a ping whose three packets are lost."""

# Two lines of npu-smi's table describe a chip: "| 0  910B4  | OK  |", then "| 0  | 0000:00:00.0 |".
_CARD = re.compile(r"^\|\s*(\d+)\s+(\S+)\s*\|\s*(\S+)\s*\|")
_CHIP = re.compile(r"^\|\s*(\d+)(?:\s+\d+)?\s*\|\s*\S+:\S+\s*\|")
_ADDRESS = re.compile(r"^\s*ipaddr:(\S+)\s*$", re.MULTILINE)
_LINK = re.compile(r"^\s*link status:\s*(\S+)", re.MULTILINE)
# Not the percentage: "100.00% packet loss" ends in "0.00% packet loss" too.
_PACKETS = re.compile(r"(\d+) packets transmitted, (\d+) received,")
_RANGE = re.compile(r"\[([\d.]+),([\d.]+)\]")
_NUMBERS = re.compile(r"\d+(?:\.\d+)*")


@dataclass(frozen=True, slots=True)
class Device:
    """One chip that npu-smi lists; a card of the A3 series has two."""

    card: int
    chip: int
    name: str
    health: str


@dataclass(frozen=True, slots=True)
class Port:
    """The network port of one device."""

    device: int
    link: str | None
    """UP, DOWN, or None if it can't be read."""
    address: str | None
    pings: Mapping[str, tuple[int, int] | None]
    """For each address of another host's device, the packets sent and received."""


@dataclass(frozen=True, slots=True)
class Ascend:
    """Everything that was found on this host."""

    devices: tuple[Device, ...] | None
    """None if npu-smi is missing or doesn't work."""
    trouble: str
    """Why npu-smi doesn't work."""
    driver: Mapping[str, str]
    firmware: Mapping[str, str]
    cann: Cann
    ports: tuple[Port, ...]
    has_hccn_tool: bool


def gather(
    peers: Sequence[str],
    packages: Iterable[str] = (),
    *,
    root: Path = ROOT,
    install_info: Path = INSTALL_INFO,
) -> Ascend:
    """Read the version files, run npu-smi, ask hccn_tool about each device's port, and try CANN.

    Args:
        peers: Addresses of devices of other hosts, which every device here pings.
        packages: Names of the Python distributions that CANN needs.
        root: Where driver, firmware and CANN are installed.
        install_info: File in which the driver's installer says that it is in another directory.
    """
    try:
        devices: tuple[Device, ...] | None = parse_npu_smi(_run("npu-smi", "info"))
        trouble = ""
    except (OSError, subprocess.SubprocessError) as error:
        devices, trouble = None, _reason(error)
    driver = driver_directory(root, install_info)
    tool = _hccn_tool(driver)
    ports: tuple[Port, ...] = ()
    if tool is not None and devices:
        ports = _ports(tool, len(devices), peers)
    return Ascend(
        devices=devices,
        trouble=trouble,
        driver=read_names(driver / "version.info"),
        firmware=read_names(root / "firmware" / "version.info"),
        cann=gather_cann(root, packages),
        ports=ports,
        has_hccn_tool=tool is not None,
    )


def parse_npu_smi(text: str) -> tuple[Device, ...]:
    """Parse the first table of `npu-smi info`."""
    devices: list[Device] = []
    card: re.Match[str] | None = None
    for line in text.splitlines():
        if "Process id" in line:
            break
        if card is not None and (chip := _CHIP.match(line)):
            devices.append(Device(int(card[1]), int(chip[1]), card[2], card[3]))
            card = None
        else:
            card = _CARD.match(line)
    return tuple(devices)


def parse_address(text: str) -> str | None:
    """Parse the output of `hccn_tool -i N -ip -g`."""
    found = _ADDRESS.search(text)
    return found[1] if found else None


def parse_link(text: str) -> str | None:
    """Parse the output of `hccn_tool -i N -link -g` into UP or DOWN."""
    found = _LINK.search(text)
    return found[1].upper() if found else None


def parse_ping(text: str) -> tuple[int, int] | None:
    """Parse `hccn_tool -i N -ping -g address A` into the packets sent and received."""
    found = _PACKETS.search(text)
    return (int(found[1]), int(found[2])) if found else None


def firmware_allowed(firmware: str, ranges: str) -> bool | None:
    """Tell whether the driver works with a firmware.

    Args:
        firmware: The firmware's version, such as `7.5.0.3.220`.
        ranges: The driver's `compatible_version_fw`, such as `[7.0.0,7.5.99]`. A bound of three
            numbers includes every version that begins with them.

    Returns:
        None if either can't be parsed.
    """
    number = _NUMBERS.fullmatch(firmware)
    bounds = _RANGE.findall(ranges)
    if not number or not bounds:
        return None
    return any(_between(firmware, low, high) for low, high in bounds)


def _between(version: str, low: str, high: str) -> bool:
    numbers, least, most = ([int(n) for n in v.split(".") if n] for v in (version, low, high))
    return least <= numbers[: len(least)] and numbers[: len(most)] <= most


def _ports(tool: str, num_devices: int, peers: Sequence[str]) -> tuple[Port, ...]:
    """Query all devices at the same time, because each lost ping takes seconds."""
    with ThreadPoolExecutor(num_devices) as pool:
        return tuple(pool.map(partial(_port, tool, peers), range(num_devices)))


def _port(tool: str, peers: Sequence[str], device: int) -> Port:
    def ask(*words: str) -> str:
        try:
            return _run(tool, "-i", str(device), *words)
        except (OSError, subprocess.SubprocessError):
            return ""

    return Port(
        device=device,
        link=parse_link(ask("-link", "-g")),
        address=parse_address(ask("-ip", "-g")),
        pings={peer: parse_ping(ask("-ping", "-g", "address", peer)) for peer in peers},
    )


def _hccn_tool(driver: Path) -> str | None:
    return shutil.which("hccn_tool") or shutil.which(str(driver / "tools" / "hccn_tool"))


def _run(*words: str) -> str:
    ended = subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=TOOL_SECONDS,
        check=True,
    )
    return ended.stdout.decode("utf-8", "replace")


def _reason(error: OSError | subprocess.SubprocessError) -> str:
    if isinstance(error, FileNotFoundError):
        return "not found"
    if isinstance(error, subprocess.TimeoutExpired):
        return f"no answer within {TOOL_SECONDS:g} s"
    if isinstance(error, subprocess.CalledProcessError):
        output = bytes(error.stdout or b"").decode("utf-8", "replace").strip().splitlines()
        return f"exit code {error.returncode}" + (f": {output[-1]}" if output else "")
    return str(error)
