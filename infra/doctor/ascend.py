"""Do driver, firmware, CANN and network of an Ascend host go together with MindSpore?"""

import re
from dataclasses import dataclass

from infra.doctor.ascend_tools import Ascend, Port, firmware_allowed
from infra.doctor.findings import Finding, Status

_MINDCV = "https://github.com/mindspore-lab/mindcv/blob/main/configs/sknet/README.md"

_TRANSFORMERS = "https://www.mindspore.cn/mindformers/docs/en/r1.9.0/installation.html"


@dataclass(frozen=True, slots=True)
class Release:
    """One line of a published table."""

    mindspore: str
    driver: str
    """Of the driver, and of the package that the firmware comes in."""
    cann: str
    source: str
    firmware: str | None = None
    """Its own number, where it was published."""


RELEASES = (
    Release("2.5.0", "24.1.0", "8.0.0.beta1", _MINDCV, firmware="7.5.0.3.220"),
    Release("2.6.0rc1", "25.0.RC1", "8.1.RC1", _TRANSFORMERS),
    Release("2.7.0", "25.2.0", "8.2.RC1", _TRANSFORMERS),
    Release("2.7.1", "25.3.RC1", "8.3.RC1", _TRANSFORMERS),
    Release("2.7.2", "25.5.0", "8.5.0", _TRANSFORMERS),
    Release("2.9.0", "26.0.RC1", "9.0.0", _TRANSFORMERS),
)


def release_of(mindspore: str) -> Release | None:
    """What was published for a MindSpore."""
    return next((each for each in RELEASES if each.mindspore == mindspore), None)


def same_release(one: str, other: str) -> bool:
    """Whether two names mean one release.

    Case differs between tables and version files (24.1.RC3, 24.1.rc3). The community edition's
    `.beta1` does too: tables of different years give 8.0.RC2.beta1 and 8.0.RC2 for one MindSpore.
    """
    return _canonical(one) == _canonical(other)


def _canonical(version: str) -> str:
    return re.sub(r"[.-]beta\.?\d+$", "", version.strip().lower())


OK, WARN, FAIL = Status.OK, Status.WARN, Status.FAIL

HEALTHY = "OK"


def check_ascend(facts: Ascend, mindspore: str | None) -> list[Finding]:
    """All of it, for the MindSpore that is installed."""
    release = release_of(mindspore) if mindspore else None
    return [
        _devices(facts),
        _release(mindspore, release),
        _version("driver", facts.driver.get("version"), release.driver if release else None),
        *_firmware(facts, release),
        _version("CANN", facts.cann.get("version"), release.cann if release else None),
        *_network(facts),
    ]


def _devices(facts: Ascend) -> Finding:
    needed = "npu-smi, and every device OK"
    if facts.npu_smi is None:
        advice = "install driver and firmware; in a container, mount npu-smi and /dev/davinci*"
        return Finding("npu-smi", FAIL, facts.trouble, needed, advice)
    devices = facts.npu_smi.devices
    if not devices:
        advice = "npu-smi info, as the user who will train (group HwHiAiUser)"
        return Finding("npu-smi", FAIL, "it lists no device", needed, advice)
    ill = [each for each in devices if each.health != HEALTHY]
    if ill:
        named = ", ".join(f"{each.card}.{each.chip} {each.health}" for each in ill)
        advice = "npu-smi info -t health -i CARD; leave it out by ASCEND_RT_VISIBLE_DEVICES"
        return Finding("npu-smi", FAIL, f"of {len(devices)} devices: {named}", needed, advice)
    names = ", ".join(sorted({each.name for each in devices}))
    return Finding("npu-smi", OK, f"{len(devices)} of {names}", needed)


def _release(mindspore: str | None, release: Release | None) -> Finding:
    check = "published releases"
    if release is not None:
        return Finding(check, OK, f"MindSpore {mindspore}: {release.source}")
    newest = RELEASES[-1]
    found = f"none known for MindSpore {mindspore or '(not installed)'}"
    needed = f"newest known: {newest.mindspore} with {newest.driver} and CANN {newest.cann}"
    advice = "ask MindSpore's install page for its CANN; then docs/ascend.md, 1 and 2"
    return Finding(check, WARN, found, needed, advice)


def _version(check: str, found: str | None, wanted: str | None) -> Finding:
    if not found:
        advice = "install it; for CANN, source its set_env.sh"
        return Finding(check, FAIL, "no version file", wanted or "", advice)
    if wanted is None:
        return Finding(check, WARN, found, "unknown, see published releases", "")
    if same_release(found, wanted):
        return Finding(check, OK, found, wanted)
    advice = "what was published together is another one; if it fails, install that"
    return Finding(check, WARN, found, wanted, advice)


def _firmware(facts: Ascend, release: Release | None) -> list[Finding]:
    """Of its own number where one was published, else of the package that it came in."""
    number = facts.firmware.get("version")
    if release is None or release.firmware is not None:
        findings = [_version("firmware", number, release.firmware if release else None)]
    else:
        package = facts.firmware.get("package_version", number)
        findings = [_version("firmware (package)", package, release.driver)]
    ranges = facts.driver.get("compatible_version_fw", "")
    allowed = firmware_allowed(number, ranges) if number else None
    if allowed is not None and number is not None:
        check = "firmware for the driver"
        advice = "" if allowed else "install the firmware of the driver's release, then reboot"
        findings.append(Finding(check, OK if allowed else FAIL, number, ranges, advice))
    return findings


def _network(facts: Ascend) -> list[Finding]:
    """HCCL's own network between hosts: every port up, and every peer answers every device."""
    if not facts.has_hccn_tool:
        advice = "several hosts only: install the driver's tools, or mount them"
        return [Finding("HCCL ports", WARN, "no hccn_tool", "for several hosts", advice)]
    if not facts.ports:
        return [Finding("HCCL ports", WARN, "no device to ask about", "for several hosts")]
    peers = [_peer(peer, facts.ports) for peer in facts.ports[0].pings]
    if not peers:
        advice = "--peer ADDRESS of a device of each other host: hccn_tool -i 0 -ip -g there"
        peers = [Finding("HCCL peers", WARN, "none given", "for several hosts", advice)]
    return [_ports(facts.ports), *peers]


def _ports(ports: tuple[Port, ...]) -> Finding:
    down = [each for each in ports if each.link != "UP" or each.address is None]
    needed = "every port UP, with an address"
    if not down:
        return Finding("HCCL ports", OK, f"{len(ports)} of {len(ports)} UP", needed)
    named = ", ".join(
        f"{each.device} {each.link or 'unknown'}{'' if each.address else ', no address'}"
        for each in down
    )
    # One host trains without: devices of a host have links of their own.
    return Finding("HCCL ports", WARN, named, needed, "cables, then /etc/hccn.conf")


def _peer(peer: str, ports: tuple[Port, ...]) -> Finding:
    lost = [_lost(each, peer) for each in ports if not _answered(each.pings[peer])]
    check, needed = f"HCCL to {peer}", "every packet of every device answered"
    if not lost:
        return Finding(check, OK, f"{len(ports)} devices reach it", needed)
    advice = "same VLAN, netmask and gateway: hccn_tool -i N -route -g; switches"
    return Finding(check, FAIL, f"not from {', '.join(lost)}", needed, advice)


def _lost(port: Port, peer: str) -> str:
    packets = port.pings[peer]
    return f"{port.device} ({packets[1]}/{packets[0]})" if packets else f"{port.device} (no answer)"


def _answered(packets: tuple[int, int] | None) -> bool:
    return packets is not None and packets[0] == packets[1] > 0
