"""What Ascend's tools and files say, read from their text. Anything may stand in it."""

import re
from dataclasses import dataclass

_CARD = re.compile(r"^\|\s*(\d+)\s+(\S+)\s*\|\s*(\S+)\s*\|")
_CHIP = re.compile(r"^\|\s*(\d+)(?:\s+\d+)?\s*\|\s*\S+:\S+\s*\|")
_VERSION = re.compile(r"\bVersion:\s*(\S+)")
_ADDRESS = re.compile(r"^\s*ipaddr:(\S+)\s*$", re.MULTILINE)
_LINK = re.compile(r"^\s*link status:\s*(\S+)", re.MULTILINE)
# Anchored at the comma: "100.00% packet loss" ends in "0.00% packet loss" too.
_LOSS = re.compile(r"(\d+) packets transmitted, (\d+) received,")
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
class NpuSmi:
    """What `npu-smi info` shows."""

    version: str | None
    devices: tuple[Device, ...]


def parse_npu_smi(text: str) -> NpuSmi:
    """Read the first table of `npu-smi info`: two lines for each chip."""
    version = _VERSION.search(text)
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
    return NpuSmi(version[1] if version else None, tuple(devices))


def parse_version_file(text: str) -> dict[str, str]:
    """Read `name=value` lines: version.info, ascend_toolkit_install.info; names in lower case."""
    lines = (line.partition("=") for line in text.splitlines())
    return {name.strip().lower(): value.strip() for name, equals, value in lines if equals}


def parse_address(text: str) -> str | None:
    """Read `hccn_tool -i N -ip -g`."""
    found = _ADDRESS.search(text)
    return found[1] if found else None


def parse_link(text: str) -> str | None:
    """Read `hccn_tool -i N -link -g`: UP or DOWN."""
    found = _LINK.search(text)
    return found[1].upper() if found else None


def parse_ping(text: str) -> tuple[int, int] | None:
    """Read `hccn_tool -i N -ping -g address A`: packets sent, and packets that came back."""
    found = _LOSS.search(text)
    return (int(found[1]), int(found[2])) if found else None


def firmware_allowed(firmware: str, ranges: str) -> bool | None:
    """Whether a driver's `compatible_version_fw=[7.0.0,7.5.99]` holds a firmware's number.

    None if either can't be read. A bound of three numbers stands for all that begin with them.
    """
    number = _NUMBERS.fullmatch(firmware)
    bounds = _RANGE.findall(ranges)
    if not number or not bounds:
        return None
    return any(_between(firmware, low, high) for low, high in bounds)


def _between(version: str, low: str, high: str) -> bool:
    numbers, least, most = ([int(n) for n in v.split(".") if n] for v in (version, low, high))
    return least <= numbers[: len(least)] and numbers[: len(most)] <= most
