"""Checks of Ascend hosts: shell scripts print published outputs of the tools that they replace."""

import dataclasses
import shlex
import shutil
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from infra.base.ascend import parse_version_file
from infra.base.cann import accepted_versions
from infra.base.cann import release as release_part
from infra.doctor.ascend import (
    COMPATIBLE_DRIVERS,
    RELEASES,
    check_ascend,
    release_of,
    same_release,
)
from infra.doctor.ascend_tools import (
    Ascend,
    Device,
    firmware_allowed,
    gather,
    parse_address,
    parse_link,
    parse_npu_smi,
    parse_ping,
)
from infra.doctor.cann import Needs
from infra.doctor.cann_tools import Cann
from infra.doctor.results import CheckResult
from tests.infra.ascend_trees import CannTree, sourced, write
from tests.infra.doctor import ascend_outputs as outputs


def test_npu_smi_lists_each_chip_of_a_card() -> None:
    assert parse_npu_smi(outputs.NPU_SMI_TWO_CHIPS) == (
        Device(0, 0, "Ascend910", "OK"),
        Device(0, 1, "Ascend910", "OK"),
    )


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (outputs.NPU_SMI_ONE_CARD, ["910B4"]),
        (outputs.NPU_SMI_WITH_PROCESSES, ["xxx", "xxx"]),
        ("", []),
    ],
)
def test_npu_smi_lists_devices_and_not_processes(text: str, names: list[str]) -> None:
    assert [device.name for device in parse_npu_smi(text)] == names


def test_a_masked_bus_address_hides_no_device() -> None:
    assert len(parse_npu_smi(outputs.NPU_SMI_MASKED_BUS)) == 2


def test_version_files_are_read_by_name() -> None:
    assert parse_version_file(outputs.DRIVER_24_1_0)["version"] == "24.1.0"
    assert parse_version_file(outputs.FIRMWARE_7_5_0_1_129)["package_version"] == "24.1.rc3"
    assert parse_version_file(outputs.CANN_8_5_0)["version"] == "8.5.0"


def test_hccn_tool_is_read() -> None:
    assert parse_link(outputs.LINK_UP) == "UP"
    assert parse_link("link status: DOWN\n") == "DOWN"  # the other value in Ascend's own code
    assert parse_address(outputs.ADDRESS) == "10.10.100.10"
    assert parse_ping(outputs.PING_ANSWERED) == (3, 3)
    assert parse_ping(outputs.PING_LOSING) == (3, 2)


@given(st.text())
def test_no_output_breaks_a_parser(text: str) -> None:
    for parse in (parse_npu_smi, parse_version_file, parse_link, parse_address, parse_ping):
        parse(text)
    firmware_allowed(text, text)


@pytest.mark.parametrize(
    ("driver", "firmware", "allowed"),
    [
        (outputs.DRIVER_24_1_RC1, outputs.FIRMWARE_7_1_0_11_220, True),
        (outputs.DRIVER_24_1_RC3, outputs.FIRMWARE_7_5_0_1_129, True),
        (outputs.DRIVER_24_1_RC1, outputs.FIRMWARE_7_5_0_1_129, False),
    ],
)
def test_a_driver_declares_which_firmware_it_works_with(
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
    """A host of one card with what was published for MindSpore 2.10.0; tools replay outputs."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    write(tmp_path / "driver/version.info", of_release(outputs.DRIVER_24_1_0, "26.0.RC1"))
    firmware = of_release(outputs.FIRMWARE_7_5_0_1_129, "26.0.RC1")
    write(tmp_path / "firmware/version.info", firmware)
    for name, value in sourced(CannTree().write(tmp_path)).items():
        monkeypatch.setenv(name, value)
    replay(tmp_path / "bin/npu-smi", {"*": outputs.NPU_SMI_ONE_CARD})
    replay_ports(tmp_path, link=outputs.LINK_UP, ping=outputs.PING_ANSWERED)
    return tmp_path


def of_release(text: str, release: str) -> str:
    """Return a version file with another version of the package."""
    for version in ("Version=24.1.0", "package_version=24.1.0", "package_version=24.1.rc3"):
        text = text.replace(version, f"{version.partition('=')[0]}={release}")
    return text


def replay(path: Path, answers: dict[str, str], code: int = 0) -> None:
    """Write a program that prints the text whose pattern matches its arguments."""
    cases = [f"{pattern}) printf %s {shlex.quote(text)};;" for pattern, text in answers.items()]
    write(path, "\n".join(["#!/bin/sh", 'case "$*" in', *cases, "esac", f"exit {code}", ""]))
    path.chmod(0o755)


def replay_ports(host: Path, *, link: str, ping: str) -> None:
    answers = {"*-link*": link, "*-ip*": outputs.ADDRESS, "*-ping*": ping}
    replay(host / "driver/tools/hccn_tool", answers)


def facts_of(host: Path, peers: Sequence[str] = ()) -> Ascend:
    return gather(peers, root=host, install_info=host / "ascend_install.info")


def check(host: Path, mindspore: str | None = "2.10.0", *peers: str) -> dict[str, CheckResult]:
    return {each.check: each for each in check_ascend(facts_of(host, peers), needs(mindspore))}


def needs(mindspore: str | None) -> Needs:
    """What MindSpore 2.10.0 asks for, under another version; packages are another test's."""
    return Needs(mindspore, ("8.2", "8.3", "8.5", "9.0", "9.1"), {}, (), "3.11.7")


def statuses(results: dict[str, CheckResult]) -> dict[str, str]:
    """Return the status of each check but those of CANN, which test_doctor_cann.py has."""
    of_cann = {name for name in results if "CANN" in name} - {"CANN"}
    return {name: str(each.status) for name, each in results.items() if name not in of_cann}


def test_a_healthy_host_with_published_versions_passes_every_check(host: Path) -> None:
    results = check(host, "2.10.0", "10.20.11.16")
    assert statuses(results) == {
        "npu-smi": "ok",
        "published releases": "ok",
        "driver": "ok",
        "firmware (package)": "ok",
        "firmware for the driver": "ok",
        "CANN": "ok",
        "network ports of devices": "ok",
        "HCCL to 10.20.11.16": "ok",
    }
    assert results["npu-smi"].found == "1 x 910B4"


def test_the_set_of_the_published_figures_needs_an_upgrade(host: Path) -> None:
    """MindSpore 2.5.0 with driver 24.1.0, firmware 7.5.0.3.220 and CANN 8.0.0.beta1."""
    write(host / "driver/version.info", outputs.DRIVER_24_1_0)
    firmware = outputs.FIRMWARE_7_5_0_1_129.replace("7.5.0.1.129", "7.5.0.3.220")
    write(host / "firmware/version.info", firmware)
    shutil.rmtree(host / "cann")
    CannTree(toolkit="8.0.0.beta1", compiler="7.6.0.1.220").write(host)
    with_its_own = statuses(check(host, "2.5.0"))
    assert with_its_own["driver"] == with_its_own["firmware"] == "ok"
    results = check(host, "2.10.0")
    assert str(results["CANN"].status) == "fail"
    assert (str(results["driver"].status), results["driver"].needed) == ("warn", "26.0.RC1")
    assert statuses(results)["firmware (package)"] == "warn"


def test_a_mindspore_without_published_releases_is_a_warning_not_a_guess(host: Path) -> None:
    results = check(host, "2.11.0")
    assert statuses(results)["published releases"] == "warn"
    assert "2.11.0" in results["published releases"].found
    assert statuses(results)["firmware"] == "warn"


def test_other_releases_than_published_are_a_warning(host: Path) -> None:
    write(host / "driver/version.info", of_release(outputs.DRIVER_24_1_0, "25.0.RC1"))
    driver = check(host, "2.7.2")["driver"]
    assert (str(driver.status), driver.found, driver.needed) == ("warn", "25.0.RC1", "25.5.0")
    assert statuses(check(host, "2.7.2"))["firmware (package)"] == "warn"


@pytest.mark.parametrize(
    ("driver", "cann", "status"),
    [
        ("25.5.1", "9.1.0", "ok"),
        ("25.0.RC1", "9.1.0", "warn"),
        ("25.0.RC1", "9.0.0", "ok"),
        ("24.1.0", "9.0.0", "warn"),
        ("26.0.RC1", "10.0.0", "ok"),  # as published with MindSpore 2.10.0
    ],
)
def test_another_driver_fits_if_cann_works_with_it(driver: str, cann: str, status: str) -> None:
    facts = Ascend((), "", {"version": driver}, {}, Cann(Path("/cann"), toolkit=cann), (), True)
    (result,) = (each for each in check_ascend(facts, needs("2.10.0")) if each.check == "driver")
    assert str(result.status) == status


def test_the_published_cann_is_one_that_the_installed_mindspore_accepts_and_its_driver_works() -> (
    None
):
    published = release_of(metadata.version("mindspore"))
    if published is not None:
        cann, driver = release_part(published.cann), release_part(published.driver)
        assert cann in (accepted_versions() or ())
        # CANN's page names the drivers of 8.5 and later.
        assert Version(cann) < Version("8.5") or driver in COMPATIBLE_DRIVERS[cann]


def test_a_firmware_that_the_driver_excludes_fails(host: Path) -> None:
    write(host / "driver/version.info", outputs.DRIVER_24_1_RC1)
    result = check(host)["firmware for the driver"]
    assert (str(result.status), result.needed) == ("fail", "[7.0.0,7.2.99]")


def test_lost_packets_fail_and_name_the_device(host: Path) -> None:
    replay_ports(host, link=outputs.LINK_UP, ping=outputs.PING_LOSING)
    result = check(host, "2.10.0", "10.20.11.16")["HCCL to 10.20.11.16"]
    assert (str(result.status), result.found) == ("fail", "not from 0 (2/3)")


def test_losing_all_packets_is_not_read_as_losing_none(host: Path) -> None:
    lost = "3 packets transmitted, 0 received, 100.00% packet loss\n"
    replay_ports(host, link=outputs.LINK_UP, ping=lost)
    assert statuses(check(host, "2.10.0", "10.20.11.16"))["HCCL to 10.20.11.16"] == "fail"


def test_a_port_that_is_down_is_named(host: Path) -> None:
    replay_ports(host, link="link status: DOWN\n", ping="")
    result = check(host)["network ports of devices"]
    assert (str(result.status), result.found) == ("warn", "0 DOWN")


def test_a_device_that_is_not_healthy_fails_and_is_named(host: Path) -> None:
    faulty = outputs.NPU_SMI_TWO_CHIPS.replace("| OK     ", "| Alarm  ", 1)
    replay(host / "bin/npu-smi", {"*": faulty})
    result = check(host)["npu-smi"]
    assert (str(result.status), result.found) == ("fail", "1 of 2 devices are not OK: 0.0 Alarm")


def test_the_error_of_a_failing_npu_smi_is_shown(host: Path) -> None:
    # Its output without a driver, from issues of vllm-project/vllm-ascend.
    error = "dcmi module initialize failed. ret is -8005\n"
    replay(host / "bin/npu-smi", {"*": error}, code=1)
    result = check(host)["npu-smi"]
    assert str(result.status) == "fail"
    assert result.found == "exit code 1: dcmi module initialize failed. ret is -8005"


def test_a_host_without_ascend_fails_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in sourced(tmp_path):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    facts = facts_of(tmp_path)
    assert facts == Ascend(None, "not found", {}, {}, Cann(), (), False)
    assert {str(each.status) for each in check_ascend(facts, needs(None))} == {"fail", "warn"}
    empty = dataclasses.replace(facts, devices=parse_npu_smi(""))
    assert check_ascend(empty, needs(None))[0].found == "no device is listed"
