"""Ascend hosts, from outputs that others recorded; replayed by programs of the same names."""

import dataclasses
import platform
import shlex
from pathlib import Path

import ascend_recorded as recorded
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.doctor.ascend import RELEASES, check_ascend, release_of, same_release
from infra.doctor.ascend_tools import (
    Ascend,
    Device,
    firmware_allowed,
    gather,
    parse_address,
    parse_link,
    parse_npu_smi,
    parse_ping,
    parse_version_file,
)
from infra.doctor.findings import Finding


def test_npu_smi_lists_each_chip_of_a_card() -> None:
    shown = parse_npu_smi(recorded.NPU_SMI_TWO_CHIPS)
    assert shown.version == "26.0.rc2"
    assert shown.devices == (
        Device(0, 0, "Ascend910", "OK"),
        Device(0, 1, "Ascend910", "OK"),
    )


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (recorded.NPU_SMI_ONE_CARD, ["910B4"]),
        (recorded.NPU_SMI_WITH_PROCESSES, ["xxx", "xxx"]),
        ("", []),
    ],
)
def test_npu_smi_lists_devices_and_not_processes(text: str, names: list[str]) -> None:
    assert [device.name for device in parse_npu_smi(text).devices] == names


def test_a_masked_bus_address_hides_no_device() -> None:
    assert len(parse_npu_smi(recorded.NPU_SMI_MASKED_BUS).devices) == 2


def test_version_files_are_read_by_name() -> None:
    assert parse_version_file(recorded.DRIVER_24_1_0)["version"] == "24.1.0"
    assert parse_version_file(recorded.FIRMWARE_7_5_0_1_129)["package_version"] == "24.1.rc3"
    assert parse_version_file(recorded.CANN_8_5_0)["version"] == "8.5.0"


def test_hccn_tool_is_read() -> None:
    assert parse_link(recorded.LINK_UP) == "UP"
    assert parse_link("link status: DOWN\n") == "DOWN"  # its other value, by Ascend's own code
    assert parse_address(recorded.ADDRESS) == "10.10.100.10"
    assert parse_ping(recorded.PING_ANSWERED) == (3, 3)
    assert parse_ping(recorded.PING_LOSING) == (3, 2)


@given(st.text())
def test_no_output_breaks_a_parser(text: str) -> None:
    for parse in (parse_npu_smi, parse_version_file, parse_link, parse_address, parse_ping):
        parse(text)
    firmware_allowed(text, text)


@pytest.mark.parametrize(
    ("driver", "firmware", "allowed"),
    [
        (recorded.DRIVER_24_1_RC1, recorded.FIRMWARE_7_1_0_11_220, True),
        (recorded.DRIVER_24_1_RC3, recorded.FIRMWARE_7_5_0_1_129, True),
        (recorded.DRIVER_24_1_RC1, recorded.FIRMWARE_7_5_0_1_129, False),
    ],
)
def test_a_driver_says_itself_which_firmware_it_works_with(
    driver: str, firmware: str, allowed: bool
) -> None:
    ranges = parse_version_file(driver)["compatible_version_fw"]
    assert firmware_allowed(parse_version_file(firmware)["version"], ranges) is allowed


def test_every_listed_release_has_its_source() -> None:
    assert all(each.source.startswith("https://") for each in RELEASES)
    assert len({each.mindspore for each in RELEASES}) == len(RELEASES)
    published = release_of("2.5.0")
    assert published is not None
    assert (published.driver, published.firmware) == ("24.1.0", "7.5.0.3.220")
    assert same_release("8.0.0", published.cann)
    assert same_release("24.1.rc3", "24.1.RC3")
    assert not same_release("8.0.1", published.cann)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host of one card as published for MindSpore 2.5.0, whose tools replay what was recorded."""
    monkeypatch.delenv("ASCEND_HOME_PATH", raising=False)
    monkeypatch.delenv("ASCEND_TOOLKIT_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    firmware = recorded.FIRMWARE_7_5_0_1_129.replace("7.5.0.1.129", "7.5.0.3.220")
    toolkit = f"ascend-toolkit/latest/{platform.machine()}-linux/ascend_toolkit_install.info"
    write(tmp_path / "driver/version.info", recorded.DRIVER_24_1_0)
    write(tmp_path / "firmware/version.info", firmware)
    write(tmp_path / toolkit, recorded.CANN_8_0_0)
    replay(tmp_path / "bin/npu-smi", {"*": recorded.NPU_SMI_ONE_CARD})
    replay_ports(tmp_path, link=recorded.LINK_UP, ping=recorded.PING_ANSWERED)
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def replay(path: Path, answers: dict[str, str], code: int = 0) -> None:
    """A program that prints one text or another, by a pattern of its arguments."""
    cases = [f"{pattern}) printf %s {shlex.quote(text)};;" for pattern, text in answers.items()]
    write(path, "\n".join(["#!/bin/sh", 'case "$*" in', *cases, "esac", f"exit {code}", ""]))
    path.chmod(0o755)


def replay_ports(host: Path, *, link: str, ping: str) -> None:
    answers = {"*-link*": link, "*-ip*": recorded.ADDRESS, "*-ping*": ping}
    replay(host / "driver/tools/hccn_tool", answers)


def judged(host: Path, mindspore: str | None = "2.5.0", *peers: str) -> dict[str, Finding]:
    return {each.check: each for each in check_ascend(gather(peers, root=host), mindspore)}


def statuses(findings: dict[str, Finding]) -> dict[str, str]:
    return {check: str(finding.status) for check, finding in findings.items()}


def test_the_published_releases_on_a_sound_host_are_all_right(host: Path) -> None:
    findings = judged(host, "2.5.0", "10.20.11.16")
    assert statuses(findings) == {
        "npu-smi": "ok",
        "published releases": "ok",
        "driver": "ok",
        "firmware": "ok",
        "firmware for the driver": "ok",
        "CANN": "ok",
        "HCCL ports": "ok",
        "HCCL to 10.20.11.16": "ok",
    }
    assert findings["npu-smi"].found == "1 of 910B4"


def test_a_mindspore_without_published_releases_is_a_warning_not_a_guess(host: Path) -> None:
    findings = judged(host, "2.10.0")
    assert statuses(findings)["published releases"] == "warn"
    assert "2.10.0" in findings["published releases"].found
    assert statuses(findings)["driver"] == statuses(findings)["CANN"] == "warn"


def test_other_releases_than_published_are_a_warning(host: Path) -> None:
    findings = judged(host, "2.7.2")
    driver = findings["driver"]
    assert (str(driver.status), driver.found, driver.needed) == ("warn", "24.1.0", "25.5.0")
    assert statuses(findings)["firmware (package)"] == "warn"
    assert statuses(findings)["CANN"] == "warn"


def test_a_firmware_that_the_driver_excludes_fails(host: Path) -> None:
    write(host / "driver/version.info", recorded.DRIVER_24_1_RC1)
    finding = judged(host)["firmware for the driver"]
    assert (str(finding.status), finding.needed) == ("fail", "[7.0.0,7.2.99]")


def test_lost_packets_fail_and_name_the_device(host: Path) -> None:
    replay_ports(host, link=recorded.LINK_UP, ping=recorded.PING_LOSING)
    finding = judged(host, "2.5.0", "10.20.11.16")["HCCL to 10.20.11.16"]
    assert (str(finding.status), finding.found) == ("fail", "not from 0 (2/3)")


def test_all_packets_lost_are_not_taken_for_none(host: Path) -> None:
    lost = "3 packets transmitted, 0 received, 100.00% packet loss\n"
    replay_ports(host, link=recorded.LINK_UP, ping=lost)
    assert statuses(judged(host, "2.5.0", "10.20.11.16"))["HCCL to 10.20.11.16"] == "fail"


def test_a_port_that_is_down_is_named(host: Path) -> None:
    replay_ports(host, link="link status: DOWN\n", ping="")
    finding = judged(host)["HCCL ports"]
    assert (str(finding.status), finding.found) == ("warn", "0 DOWN")


def test_a_device_that_is_not_healthy_fails_and_is_named(host: Path) -> None:
    ill = recorded.NPU_SMI_TWO_CHIPS.replace("| OK     ", "| Alarm  ", 1)
    replay(host / "bin/npu-smi", {"*": ill})
    finding = judged(host)["npu-smi"]
    assert (str(finding.status), finding.found) == ("fail", "of 2 devices: 0.0 Alarm")


def test_npu_smi_that_does_not_work_says_why(host: Path) -> None:
    # What it prints without a driver: vllm-project/vllm-ascend's issues have it so.
    said = "dcmi module initialize failed. ret is -8005\n"
    replay(host / "bin/npu-smi", {"*": said}, code=1)
    finding = judged(host)["npu-smi"]
    assert str(finding.status) == "fail"
    assert finding.found == "exit code 1: dcmi module initialize failed. ret is -8005"


def test_a_host_without_ascend_fails_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    facts = gather([], root=tmp_path)
    assert facts == Ascend(None, "not found", {}, {}, {}, (), False)
    assert {str(each.status) for each in check_ascend(facts, None)} == {"fail", "warn"}
    empty = dataclasses.replace(facts, npu_smi=parse_npu_smi(""))
    assert check_ascend(empty, None)[0].found == "it lists no device"
