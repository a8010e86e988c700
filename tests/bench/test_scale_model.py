"""docs/internals/scale.md follows from kept figures, and unit costs stay the same as a data set grows."""

import importlib
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.scale_costs import CASES, HOSTS, costs, num_shards, open_files
from tests.bench.scale_limits import limits
from tests.bench.scale_model import LAWS, PAGE, UNITS, page
from tests.documented import commands
from tests.processes import ROOT

FEW, MANY = 4_000, 40_000
# Bytes don't depend on what else the machine does.
EXACT = {
    "index_file_bytes_per_sample": 1.5,
    "index_memory_bytes_per_sample": 1.02,
    "ledger_file_bytes_per_sample": 1.5,
    "manifest_bytes_per_file": 1.05,
    "manifest_values_per_file": 1.05,
    "shards_record_bytes_per_shard": 1.05,
}
# Of CPU time; what grew with the square of the samples would be ten times as much.
TIMED = [
    "stage_seconds_per_sample",
    "restage_seconds_per_sample",
    "index_read_seconds_per_sample",
    "plan_seconds_per_sample",
    "order_seconds_per_position",
    "manifest_write_seconds_per_file",
    "manifest_read_seconds_per_file",
]


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, float]]:
    """Unit costs of few samples and of ten times as many."""
    found = {}
    for count in (FEW, MANY):
        path = tmp_path_factory.mktemp("units") / "units.json"
        command = [sys.executable, "-m", "tests.bench.scale_units", "--samples", str(count)]
        subprocess.run([*command, "--shards", "0", "--json", path], cwd=ROOT, check=True)
        found[count] = json.loads(path.read_text("utf-8"))["units"]
    return found


def test_the_page_follows_from_the_figures_that_are_kept() -> None:
    assert PAGE.read_text("utf-8") == page(), "run python -m tests.bench.scale_model"


@pytest.mark.slow
@pytest.mark.parametrize("name", EXACT)
def test_bytes_of_a_sample_stay(grown: dict[int, dict[str, float]], name: str) -> None:
    few, many = grown[FEW][name], grown[MANY][name]
    assert many <= few * EXACT[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", TIMED)
def test_time_of_a_sample_stays(grown: dict[int, dict[str, float]], name: str) -> None:
    assert grown[MANY][name] < 4 * grown[FEW][name]


@pytest.mark.slow
def test_a_position_of_a_billion_costs_what_one_of_few_does(
    grown: dict[int, dict[str, float]],
) -> None:
    units = grown[MANY]
    few, many = (units[f"order_seconds_per_position{of}"] for of in ("", "_of_a_billion"))
    assert many < 4 * few


def test_more_hosts_take_no_longer_and_shorten_what_is_shared() -> None:
    units = json.loads(UNITS.read_text("utf-8"))["units"]
    for case in CASES:
        few, _, many = (costs(case, hosts, units) for hosts in HOSTS)
        seconds = {
            one.stage: (one.seconds, other.seconds) for one, other in zip(few, many, strict=True)
        }
        assert all(later <= first for first, later in seconds.values())
        shorter = {stage for stage, (first, later) in seconds.items() if later < first}
        assert shorter == {"convert", "an epoch of training"}


def test_training_takes_what_the_published_speed_says() -> None:
    units = json.loads(UNITS.read_text("utf-8"))["units"]
    (epoch,) = [c for c in costs(CASES[1], 1, units) if c.stage == "an epoch of training"]
    assert epoch.seconds == pytest.approx((14e6 - 500e3) / 11_168, rel=0.01)


def test_imagenet_in_automatic_shards_needs_more_open_files_than_a_shell_allows() -> None:
    units = json.loads(UNITS.read_text("utf-8"))["units"]
    assert num_shards(CASES[0]) == 522
    assert open_files(CASES[0], units) > 1024


def test_limits_come_in_the_order_in_which_they_are_met() -> None:
    found = limits(json.loads(UNITS.read_text("utf-8"))["units"])
    assert [images for images, _, _ in found] == sorted(images for images, _, _ in found)
    assert found[0][1].startswith("open files")


def test_the_kept_runs_show_the_laws_over_a_factor_of_ten_at_least() -> None:
    runs = json.loads(LAWS.read_text("utf-8"))["runs"]
    assert runs[-1]["samples"] >= 10 * runs[0]["samples"]
    for name in EXACT:
        assert runs[-1][name] <= EXACT[name] * runs[0][name]


def test_the_commands_of_the_page_write_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = importlib.import_module("tests.bench.scale_model")
    monkeypatch.setattr(model, "PAGE", tmp_path / "scale.md")
    given = [
        model.parser().parse_args(shlex.split(command)[3:])
        for command in commands("docs/internals/scale.md")
    ]
    assert [arguments.laws != [] for arguments in given] == [False, True]
    model.main(given[0])
    assert (tmp_path / "scale.md").read_bytes() == PAGE.read_bytes()
