"""Two runs side by side: a change of load or machine is not taken for one of speed."""

import pytest

from sknet.report import TrainedRun, compare_runs
from sknet.report.comparison import changes_table, conclusions
from sknet.report.speed import median_step
from tests.sknet.report.trained_runs import END, START, make_run, step_line

NUM_LINES = 20


def timed(median: float, **changes: object) -> TrainedRun:
    """Return a run whose log has steps of around a median, in milliseconds."""
    lines = [
        {**step_line(step + 1, 1.0), "ms_per_step_p50": median + step % 5}
        for step in range(NUM_LINES)
    ]
    log = [START, *lines, {**END, "ms_per_step_p50": median + 2}]
    return make_run(log=log, **{"machine": "a", "processor": "x86", "load": 0.0, **changes})


def spoken(first: TrainedRun, second: TrainedRun) -> str:
    return " ".join(conclusions(compare_runs(first, second)))


def test_steps_are_compared_by_intervals_and_never_by_a_bare_factor() -> None:
    assert "steps were shorter" in spoken(timed(600), timed(200))
    assert "steps were longer" in spoken(timed(200), timed(600))
    assert "no difference is shown, as the intervals overlap" in spoken(timed(600), timed(601))
    for second in (timed(200), timed(601)):
        assert "times as fast" not in spoken(timed(600), second)


@pytest.mark.parametrize(
    ("circumstance", "named"),
    [
        ({"machine": "b"}, "machine (a → b)"),
        ({"processor": "arm"}, "processor (x86 → arm)"),
        ({"load": 0.69}, "load by others (idle → 69 % of the cores)"),
        ({"load": None}, "load by others (idle → not recorded)"),
        ({"software": {"mindspore": "2.9"}}, "mindspore (absent → 2.9)"),
        ({"world_size": 4}, "ranks (2 → 4)"),
    ],
)
def test_what_a_speed_depends_on_is_named_where_it_differs(
    circumstance: dict[str, object], named: str
) -> None:
    said = spoken(timed(600), timed(163, **circumstance))
    assert f"measured under other circumstances: {named}" in said
    assert "other circumstances" not in spoken(timed(600), timed(163))


def test_an_unknown_load_is_said_to_be_unknown() -> None:
    said = spoken(timed(600, load=None), timed(163, load=None))
    assert "The load by other programs isn't recorded of both runs" in said
    assert "time both in turn on an idle machine" in said
    assert "isn't recorded" not in spoken(timed(600), timed(163))


def test_the_interval_of_a_median_needs_six_lines() -> None:
    # For 20 lines, order statistics 6 and 15, counted from 1, are the textbook's 95 % interval.
    interval = median_step(timed(600))
    assert interval is not None
    times = sorted(600.0 + step % 5 for step in range(NUM_LINES))
    assert interval == (602, times[5], times[15])
    assert median_step(make_run()) is None
    assert "too few log lines to tell a difference" in spoken(make_run(), make_run())


def test_the_machine_is_among_the_differences() -> None:
    table = changes_table(compare_runs(timed(600), timed(600, machine="b", load=0.5)))
    assert table[table["part"] == "machine"]["name"].tolist() == ["load by others", "machine"]
