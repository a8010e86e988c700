"""Whether driver, firmware, CANN and network of an Ascend host fit the installed MindSpore."""

import re
from dataclasses import dataclass

from infra.base.cann import release as release_part
from infra.doctor.ascend_tools import Ascend, Port, firmware_allowed
from infra.doctor.cann import Needs, check_cann
from infra.doctor.results import CheckResult, Status

_MINDCV = "https://github.com/mindspore-lab/mindcv/blob/main/configs/sknet/README.md"
_TRANSFORMERS = "https://www.mindspore.cn/mindformers/docs/en/r1.9.0/installation.html"
# MindSpore 2.10's own operators are compiled with CANN 9.1.0, as its wheel says in
# lib/plugin/ascend/custom_ascendc_910b/version.info. This page names the driver of CANN 9.1.0.
_CANN_9_1 = (
    "https://www.hiascend.com/document/detail/en/CANNCommunityEdition/910/softwareinst/"
    "releasenote/9.1.0/release-notes.md"
)

HEALTHY = "OK"
"""npu-smi's word for a device without faults."""


@dataclass(frozen=True, slots=True)
class Release:
    """Versions that were published together: one row of a table in `source`."""

    mindspore: str
    driver: str
    """Version of the driver, and of the package that contains the firmware."""
    cann: str
    source: str
    firmware: str | None = None
    """The firmware's own version, if it was published."""


RELEASES = (
    Release("2.5.0", "24.1.0", "8.0.0.beta1", _MINDCV, firmware="7.5.0.3.220"),
    Release("2.6.0rc1", "25.0.RC1", "8.1.RC1", _TRANSFORMERS),
    Release("2.7.0", "25.2.0", "8.2.RC1", _TRANSFORMERS),
    Release("2.7.1", "25.3.RC1", "8.3.RC1", _TRANSFORMERS),
    Release("2.7.2", "25.5.0", "8.5.0", _TRANSFORMERS),
    Release("2.9.0", "26.0.RC1", "9.0.0", _TRANSFORMERS),
    Release("2.10.0", "26.0.RC1", "9.1.0", _CANN_9_1),
)

COMPATIBLE_DRIVERS = {
    "8.5": ("25.0", "25.2", "25.3", "25.5", "25.7", "26.0", "26.1"),
    "9.0": ("25.0", "25.2", "25.3", "25.5", "25.7", "26.0", "26.1"),
    "9.1": ("25.2", "25.3", "25.5", "25.7", "26.0", "26.1"),
}
"""Releases of the driver that work with a release of CANN, from the page in `_CANN_9_1`."""


def check_ascend(facts: Ascend, needs: Needs) -> list[CheckResult]:
    """Judge the host's devices, versions and network.

    Args:
        facts: Everything that was found on this host.
        needs: What MindSpore and this project ask of CANN.
    """
    release = release_of(needs.mindspore) if needs.mindspore else None
    return [
        _check_devices(facts),
        _check_release(needs.mindspore, release),
        _check_driver(facts, release),
        *_check_firmware(facts, release),
        *check_cann(facts.cann, needs),
        *_check_network(facts),
    ]


def release_of(mindspore: str) -> Release | None:
    """Return the versions that were published with this MindSpore."""
    return next((each for each in RELEASES if each.mindspore == mindspore), None)


def same_release(one: str, other: str) -> bool:
    """Tell whether two names mean the same release.

    Tables and version files write one release in different ways: in another case (24.1.RC3,
    24.1.rc3), or with and without the community edition's suffix (8.0.RC2.beta1, 8.0.RC2).
    """
    return _canonical(one) == _canonical(other)


def _canonical(version: str) -> str:
    return re.sub(r"[.-]beta\.?\d+$", "", version.strip().lower())


def _check_devices(facts: Ascend) -> CheckResult:
    check, needed = "npu-smi", "npu-smi works, and every device is OK"
    devices = facts.devices
    if devices is None:
        advice = "install driver and firmware; in a container, mount npu-smi and /dev/davinci*"
        return CheckResult(check, Status.FAIL, facts.trouble, needed, advice)
    if not devices:
        advice = "run npu-smi info as the user who will train (group HwHiAiUser)"
        return CheckResult(check, Status.FAIL, "no device is listed", needed, advice)
    faulty = [each for each in devices if each.health != HEALTHY]
    if faulty:
        named = ", ".join(f"{each.card}.{each.chip} {each.health}" for each in faulty)
        advice = "npu-smi info -t health -i CARD; exclude it with ASCEND_RT_VISIBLE_DEVICES"
        found = f"{len(faulty)} of {len(devices)} devices are not OK: {named}"
        return CheckResult(check, Status.FAIL, found, needed, advice)
    names = ", ".join(sorted({each.name for each in devices}))
    return CheckResult(check, Status.OK, f"{len(devices)} x {names}", needed)


def _check_release(mindspore: str | None, release: Release | None) -> CheckResult:
    check = "published releases"
    if release is not None:
        return CheckResult(check, Status.OK, f"MindSpore {mindspore}: {release.source}")
    newest = RELEASES[-1]
    found = f"none known for MindSpore {mindspore or '(not installed)'}"
    needed = (
        f"newest known: MindSpore {newest.mindspore}, driver {newest.driver}, CANN {newest.cann}"
    )
    advice = "find its CANN on MindSpore's install page; then docs/ascend.md, 1 and 2"
    return CheckResult(check, Status.WARN, found, needed, advice)


def _check_driver(facts: Ascend, release: Release | None) -> CheckResult:
    """Compare the driver with the release, and with those that the installed CANN works with."""
    found = facts.driver.get("version")
    cann = facts.cann.toolkit or ""
    compatible = COMPATIBLE_DRIVERS.get(release_part(cann), ())
    if found and release_part(found) in compatible:
        needed = f"{', '.join(compatible)} for CANN {cann}"
        return CheckResult("driver", Status.OK, found, needed)
    return _check_version("driver", found, release.driver if release else None)


def _check_version(check: str, found: str | None, wanted: str | None) -> CheckResult:
    if not found:
        advice = "install it"
        return CheckResult(check, Status.FAIL, "no version file", wanted or "", advice)
    if wanted is None:
        return CheckResult(check, Status.WARN, found, "unknown, see published releases")
    return CheckResult.judge(
        check,
        same_release(found, wanted),
        found=found,
        needed=wanted,
        advice="MindSpore was published with another version: install it if training fails",
        otherwise=Status.WARN,
    )


def _check_firmware(facts: Ascend, release: Release | None) -> list[CheckResult]:
    """Compare the firmware with the release and with the range that the driver declares.

    Where no firmware version was published, the version of its package is compared.
    """
    number = facts.firmware.get("version")
    if release is None or release.firmware is not None:
        results = [_check_version("firmware", number, release.firmware if release else None)]
    else:
        package = facts.firmware.get("package_version", number)
        results = [_check_version("firmware (package)", package, release.driver)]
    ranges = facts.driver.get("compatible_version_fw", "")
    allowed = firmware_allowed(number, ranges) if number else None
    if allowed is not None and number is not None:
        check = "firmware for the driver"
        advice = "install the firmware of the driver's release, then reboot"
        results.append(
            CheckResult.judge(check, allowed, found=number, needed=ranges, advice=advice)
        )
    return results


def _check_network(facts: Ascend) -> list[CheckResult]:
    """Check HCCL's network between hosts: ports are up, and devices of other hosts answer."""
    check, needed = "network ports of devices", "for several hosts"
    if not facts.has_hccn_tool:
        advice = "for several hosts only: install the driver's tools, or mount them"
        return [CheckResult(check, Status.WARN, "no hccn_tool", needed, advice)]
    if not facts.ports:
        return [CheckResult(check, Status.WARN, "no device, hence no port", needed)]
    peers = [_check_peer(peer, facts.ports) for peer in facts.ports[0].pings]
    if not peers:
        advice = "--peer ADDRESS for a device of each other host: hccn_tool -i 0 -ip -g there"
        peers = [CheckResult("HCCL peers", Status.WARN, "none given", needed, advice)]
    return [_check_ports(facts.ports), *peers]


def _check_ports(ports: tuple[Port, ...]) -> CheckResult:
    down = [each for each in ports if each.link != "UP" or each.address is None]
    named = ", ".join(
        f"{each.device} {each.link or 'unknown'}{'' if each.address else ', no address'}"
        for each in down
    )
    return CheckResult.judge(
        "network ports of devices",
        not down,
        found=named or f"{len(ports)} of {len(ports)} UP",
        needed="every port UP, with an address",
        advice="check the cables, then /etc/hccn.conf",
        # A single host can train without: links inside the host connect its devices.
        otherwise=Status.WARN,
    )


def _check_peer(peer: str, ports: tuple[Port, ...]) -> CheckResult:
    cut_off = [_describe(each, peer) for each in ports if not _answered(each.pings[peer])]
    return CheckResult.judge(
        f"HCCL to {peer}",
        not cut_off,
        found=f"not from {', '.join(cut_off)}" if cut_off else f"{len(ports)} devices reach it",
        needed="all packets of every device answered",
        advice="same VLAN, netmask and gateway: hccn_tool -i N -route -g; switches",
    )


def _describe(port: Port, peer: str) -> str:
    """Return a device with the packets that it received of those that it sent."""
    packets = port.pings[peer]
    return f"{port.device} ({packets[1]}/{packets[0]})" if packets else f"{port.device} (no answer)"


def _answered(packets: tuple[int, int] | None) -> bool:
    return packets is not None and packets[0] == packets[1] > 0
