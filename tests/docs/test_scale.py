"""docs/internals/scale.md follows from the measured unit costs."""

import importlib
import json
import shlex
from pathlib import Path

import pytest

from tests.bench.scale_costs import CASES, HOSTS, SHARD_BYTES, costs, num_shards, open_files
from tests.bench.scale_limits import BYTES_PER_IMAGE, limits
from tests.bench.scale_model import LAWS, PAGE, UNITS, page
from tests.bench.scale_on_demand import DEFAULT_WINDOW, WINDOWS_AHEAD, on_demand
from tests.documented import commands

# Largest growth of a unit cost over a factor of ten. Bytes depend on nothing else.
EXACT = {
    "index_file_bytes_per_sample": 1.5,
    "index_memory_bytes_per_sample": 1.02,
    "scan_cache_bytes_per_sample": 1.5,
    "manifest_bytes_per_file": 1.05,
    "manifest_values_per_file": 1.05,
    "shards_record_bytes_per_shard": 1.05,
}


def test_the_page_follows_from_the_measured_figures() -> None:
    assert PAGE.read_text("utf-8") == page(), "run python -m tests.bench.scale_model"


def test_more_hosts_shorten_only_what_they_share() -> None:
    units = json.loads(UNITS.read_text("utf-8"))["units"]
    for case in CASES:
        few, _, many = (costs(case, hosts, units) for hosts in HOSTS)
        seconds = {
            one.task: (one.seconds, other.seconds) for one, other in zip(few, many, strict=True)
        }
        assert all(later <= first for first, later in seconds.values())
        shorter = {task for task, (first, later) in seconds.items() if later < first}
        assert shorter == {"convert", "an epoch of training"}


def test_training_takes_what_the_published_speed_says() -> None:
    units = json.loads(UNITS.read_text("utf-8"))["units"]
    (epoch,) = [c for c in costs(CASES[1], 1, units) if c.task == "an epoch of training"]
    assert epoch.seconds == pytest.approx((14e6 - 500e3) / 11_168, rel=0.01)


def test_imagenet_in_automatic_shards_needs_more_open_files_than_a_shell_allows() -> None:
    units = json.loads(UNITS.read_text("utf-8"))["units"]
    assert num_shards(CASES[0]) == 522
    assert open_files(CASES[0], units) > 1024


def test_the_first_step_needs_a_window_of_each_part_of_a_host_at_any_size() -> None:
    window = DEFAULT_WINDOW * BYTES_PER_IMAGE
    for case in CASES[1:]:
        one, eight, many = (on_demand(case, hosts) for hosts in HOSTS)
        # A window begins and ends within a shard.
        assert 8 * window < one.first < 8 * (window + 2 * SHARD_BYTES)
        assert eight.first == many.first
        assert window < eight.first < window + 2 * SHARD_BYTES
        split = case.val * case.bytes / case.images
        windows = (1 + WINDOWS_AHEAD) * window
        assert windows < eight.held - split < windows + 2 * SHARD_BYTES
        assert one.epoch == 8 * eight.epoch == pytest.approx(case.bytes - split)


def test_the_page_of_imagenet_says_what_four_hosts_need() -> None:
    need = on_demand(CASES[0], 4, num_shards=64)
    said = (
        f"{need.first / 1e9:.0f} GB before the first step instead of 140 GB, so "
        f"{need.first_seconds:.0f} s at 10 Gbit/s"
    )
    text = " ".join((PAGE.parents[1] / "imagenet.md").read_text("utf-8").split())
    assert said in text
    assert f"Its disk holds {need.held / 1e9:.0f} GB at a time" in text


def test_limits_come_in_the_order_in_which_they_are_met() -> None:
    found = limits(json.loads(UNITS.read_text("utf-8"))["units"])
    assert [images for images, _, _ in found] == sorted(images for images, _, _ in found)
    assert found[0][1].startswith("open files")


def test_the_measured_runs_show_linear_growth_over_a_factor_of_ten() -> None:
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
