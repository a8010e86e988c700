"""Unit costs do not grow with the data set."""

import json
import subprocess
import sys

import pytest

from tests.docs.test_scale import EXACT
from tests.processes import ROOT

FEW, MANY = 4_000, 40_000
# In CPU time. A cost that grew with the square of the samples would be ten times as high.
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
    """Unit costs of few samples and of ten times as many, by the number of samples."""
    found = {}
    for count in (FEW, MANY):
        path = tmp_path_factory.mktemp("units") / "units.json"
        command = [sys.executable, "-m", "tests.bench.scale_units", "--samples", str(count)]
        subprocess.run([*command, "--shards", "0", "--json", path], cwd=ROOT, check=True)
        found[count] = json.loads(path.read_text("utf-8"))["units"]
    return found


@pytest.mark.parametrize("name", EXACT)
def test_bytes_per_sample_do_not_grow(grown: dict[int, dict[str, float]], name: str) -> None:
    few, many = grown[FEW][name], grown[MANY][name]
    assert many <= few * EXACT[name]


@pytest.mark.parametrize("name", TIMED)
def test_time_per_sample_does_not_grow(grown: dict[int, dict[str, float]], name: str) -> None:
    assert grown[MANY][name] < 4 * grown[FEW][name]


def test_a_position_costs_no_more_among_a_billion_samples(
    grown: dict[int, dict[str, float]],
) -> None:
    units = grown[MANY]
    few, many = (units[f"order_seconds_per_position{of}"] for of in ("", "_of_a_billion"))
    assert many < 4 * few
