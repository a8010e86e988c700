"""acceptance.json and the page: what a person and a program find there."""

import json
from pathlib import Path

import pytest

from flows.acceptance import results
from flows.acceptance.figures import Line, Setting
from flows.acceptance.lines import lines_of
from flows.acceptance.results import Acceptance, LineResult
from sknet.errors import UserError
from tests.refusals import refusal

SETTING = Setting(device_target="Ascend", cards=8, hosts=1, miniature=False)
LINES = lines_of(SETTING)
INPUTS = {"mindspore": "2.10.0", "CANN": "9.1.0"}


def line(name: str) -> Line:
    return next(line for line in LINES if line.name == name)


def ended(name: str, measured: dict[str, float | None], **changes: object) -> LineResult:
    values = {
        "wrong": [],
        "notes": "",
        "minutes": 1.25,
        "log": f"lines/{name}/worker_0.log",
        "inputs": INPUTS,
        **changes,
    }
    return results.ended(line(name), measured, **values)


@pytest.fixture
def record() -> Acceptance:
    versions = {"mindspore": "2.10.0", "CANN": "9.1.0", "driver": "26.0|RC1", "firmware": ""}
    planned = results.planned(None, SETTING, LINES, data="/data/imagenet", versions=versions)
    slow = ended("step-time", {"median step": 50.0, "speed": 10_500.0})
    good = ended("bits", {"checkpoints that differ": 0.0, "compared checkpoints": 2.0})
    return planned.with_line(slow).with_line(good)


def test_before_anything_is_run_all_lines_are_empty() -> None:
    planned = results.planned(None, SETTING, LINES, data="shards", versions={})
    assert [result.name for result in planned.lines] == [each.name for each in LINES]
    for result in planned.lines:
        assert (result.status, result.reason) == ("not run", "not reached yet")
        assert (result.minutes, result.log, result.ended, result.inputs) == (None,) * 4
        assert all(figure.measured is None for figure in result.figures)
        assert all(figure.holds is None for figure in result.figures)


def test_the_document_has_what_a_program_needs(record: Acceptance, tmp_path: Path) -> None:
    record.write_to(tmp_path)
    document = json.loads((tmp_path / "acceptance.json").read_bytes())
    assert list(document) == [
        *("cards", "data", "device_target", "format_version", "hosts", "lines", "miniature"),
        "versions",
    ]
    (slow,) = (each for each in document["lines"] if each["name"] == "step-time")
    assert slow["status"] == "fail"
    assert slow["reason"] == "median step: 50, expected at most 49.17 ms"
    assert (slow["minutes"], slow["log"]) == (1.25, "lines/step-time/worker_0.log")
    assert slow["inputs"] == INPUTS
    assert slow["figures"][0] == {
        "name": "median step",
        "unit": "ms",
        "measured": 50.0,
        "compare": 46.83,
        "source": "MindCV, 8x Ascend 910*: configs/sknet/README.md",
        "limit": "at most 49.17 ms",
        "holds": False,
    }
    assert slow["figures"][1]["holds"] is True
    assert Acceptance.read_or_none(tmp_path) == record
    assert document["versions"]["firmware"] == ""


def test_the_page_has_every_line_its_figures_and_what_they_are_compared_with(
    record: Acceptance,
) -> None:
    page = results.page(record)
    rows = page.splitlines()
    for each in LINES:
        assert sum(row.startswith(f"| {each.name} | ") for row in rows) >= 1
        assert each.proves in page
    assert "1 pass, 1 fail, 17 not run; in all 2.5 minutes" in page
    assert (
        "| step-time | median step, ms | 50 | 46.83 | MindCV, 8x Ascend 910\\*: "
        "configs/sknet/README.md | at most 49.17 ms | **fails** |"
    ) in rows
    assert "| bits | compared checkpoints | 2 | 2 | this project | exactly 2 | holds |" in rows
    assert "| driver | 26.0\\|RC1 |" in rows


def test_a_line_is_current_until_an_input_changes(record: Acceptance) -> None:
    bits, kill = record.line("bits"), record.line("kill")
    assert bits.is_current(INPUTS)
    assert record.line("step-time").is_current(INPUTS)
    assert not kill.is_current(INPUTS)
    now = {"mindspore": "2.11.0", "driver": "26.0"}
    assert not bits.is_current(now)
    assert bits.changed(now) == [
        "CANN: 9.1.0 → nothing",
        "driver: nothing → 26.0",
        "mindspore: 2.10.0 → 2.11.0",
    ]


def test_a_line_that_could_not_be_measured_fails_with_the_reason_and_its_log() -> None:
    result = ended("kill", {}, wrong=["ended as failed: rank 3 exited with 1"], log="worker_3")
    assert (result.status, result.reason) == (
        "fail",
        "ended as failed: rank 3 exited with 1",
    )
    assert results.summary(result) == (
        "fail     kill             1.2 min  ended as failed: rank 3 exited with 1; see worker_3"
    )


def test_a_line_that_passed_shows_its_figures_in_the_terminal(record: Acceptance) -> None:
    assert results.summary(record.line("bits")) == (
        "pass     bits             1.2 min  checkpoints that differ 0 (exactly 0); "
        "compared checkpoints 2 (exactly 2)"
    )


def test_lines_of_an_earlier_call_are_kept(record: Acceptance) -> None:
    record = record.with_line(results.not_run(line("losses"), "needs line data: fail"))
    again = results.planned(record, SETTING, LINES, data="/data/imagenet", versions={})
    assert again.lines == record.lines


def test_why_a_line_was_not_run_does_not_count_in_another_setting(record: Acceptance) -> None:
    record = record.with_line(results.not_run(line("hosts"), "--hosts is 1"))
    two_hosts = Setting(device_target="Ascend", cards=8, hosts=2, miniature=False)
    again = results.planned(record, two_hosts, LINES, data="/data/imagenet", versions={})
    assert again.line("hosts").reason == "not reached yet"


@pytest.mark.parametrize("content", ["", "{}", '{"format_version": 2}'])
def test_a_document_of_another_kind_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "acceptance.json").write_text(content)
    assert "is no valid Acceptance" in refusal(lambda: Acceptance.read_or_none(tmp_path))


def test_a_document_that_can_not_be_written_is_one_line(record: Acceptance, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(UserError, match="can't be written: No such file or directory"):
        record.write_to(missing)
