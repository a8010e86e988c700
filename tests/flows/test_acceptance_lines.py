"""The lines of the acceptance: published figures are compared where they apply, and only there."""

from dataclasses import replace
from typing import Any

import pytest

from flows.acceptance.checks import CHECKS
from flows.acceptance.figures import Figure, Line, Setting, bound_text, failures
from flows.acceptance.lines import lines_of

PUBLISHED = Setting(device_target="Ascend", cards=8, hosts=2, miniature=False)
MINIATURE = Setting(device_target="CPU", cards=2, hosts=1, miniature=True)
TIMES = ("ms", "s", "images/s", "times that of one host")


def line(setting: Setting, name: str) -> Line:
    return next(line for line in lines_of(setting) if line.name == name)


def test_every_line_has_a_check_and_needs_only_earlier_lines() -> None:
    names = [line.name for line in lines_of(PUBLISHED)]
    assert sorted(names) == sorted(CHECKS)
    for each in lines_of(PUBLISHED):
        assert set(each.needs) <= set(names[: names.index(each.name)])


def test_with_eight_cards_and_two_hosts_every_line_is_run_and_judged() -> None:
    for each in lines_of(PUBLISHED):
        assert each.not_run == ""
        assert any(figure.bound is not None for figure in each.figures)
        assert all(figure.source for figure in each.figures if figure.bound is not None)


def test_steps_and_compilation_are_compared_with_what_mindcv_published() -> None:
    step, speed = line(PUBLISHED, "step-time").figures
    (compilation,) = line(PUBLISHED, "compile-time").figures
    assert (step.compare, speed.compare, compilation.compare) == (46.83, 10933.16, 134.0)
    assert step.source == "MindCV, 8x Ascend 910*: configs/sknet/README.md"
    assert bound_text(step) == "at most 49.17 ms"
    assert bound_text(speed) == "at least 10,386.50 images/s"
    assert bound_text(compilation) == "at most 140.70 s"


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        (MINIATURE, "not for CPU"),
        (replace(MINIATURE, device_target="Ascend", cards=8), "not for digits"),
        (replace(PUBLISHED, cards=4), "not for 4 cards"),
    ],
)
def test_nothing_is_compared_with_figures_of_another_setting(setting: Setting, reason: str) -> None:
    for name in ("step-time", "compile-time"):
        assert line(setting, name).not_run.endswith(reason)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"device_target": "CPU"}, "cores are bound by the NUMA node of each card"),
        ({"cards": 1}, "a single rank has all cores"),
        (
            {"binding_obstacle": "there is no taskset"},
            "bind_core has no effect on this host: there is no taskset",
        ),
    ],
)
def test_bound_cores_are_compared_only_where_cores_are_bound(
    changes: dict[str, Any], reason: str
) -> None:
    assert line(replace(PUBLISHED, **changes), "bind-core").not_run == reason


@pytest.mark.parametrize("device_target", ["CPU", "Ascend"])
def test_in_miniature_no_time_has_a_bound(device_target: str) -> None:
    for each in lines_of(replace(MINIATURE, device_target=device_target, hosts=2)):
        for figure in each.figures:
            assert figure.unit not in TIMES or (figure.bound, figure.compare) == (None, None)
    not_run = {each.name for each in lines_of(MINIATURE) if each.not_run}
    assert {"step-time", "compile-time", "compile-cache", "data-wait"} < not_run


@pytest.mark.parametrize(
    ("limit", "good", "bad"),
    [("at most", 105.0, 105.01), ("at least", 95.0, 94.99), ("exactly", 100.0, 100.01)],
)
def test_a_figure_holds_up_to_its_bound(limit: str, good: float, bad: float) -> None:
    figure = Figure(name="speed", unit="ms", compare=100.0, limit=limit, tolerance=0.05)
    assert figure.holds(good) is True
    assert figure.holds(bad) is False
    assert figure.holds(None) is None
    assert replace(figure, compare=None).holds(bad) is None


def test_a_line_fails_with_each_figure_that_does_not_hold() -> None:
    kill = line(PUBLISHED, "kill")
    end, processes, steps, differing, compared = (figure.name for figure in kill.figures)
    assert (
        failures(kill, {end: 9.0, processes: 0.0, steps: 0.0, differing: 0.0, compared: 2.0}) == []
    )
    assert failures(kill, {end: 31.5, processes: 1.0, steps: 0.0, differing: 0.0}) == [
        "time from SIGKILL to the end of the job: 31.50, expected at most 30 s",
        "processes left: 1, expected exactly 0",
    ]


def test_a_line_fails_with_what_is_not_known_unless_its_sentence_allows_it() -> None:
    kill = line(PUBLISHED, "kill")
    end, processes, steps, differing, compared = (figure.name for figure in kill.figures)
    known = {end: 9.0, processes: 0.0, steps: 0.0, differing: None, compared: None}
    assert kill.proves.endswith("if the line bits passed.")
    assert failures(kill, known) == []
    assert failures(kill, {**known, steps: None}) == [f"{steps}: not known, expected exactly 0"]
    assert failures(line(PUBLISHED, "step-time"), {"speed": 11_000.0}) == [
        "median step: not known, expected at most 49.17 ms"
    ]


def test_a_line_without_any_judgement_fails() -> None:
    reported = replace(line(PUBLISHED, "data"), figures=(Figure(name="training images"),))
    assert failures(reported, {"training images": 5.0}) == ["no figure is judged"]
