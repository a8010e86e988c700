"""make crash-matrix [POINTS=50] [SEED=1]: as many points as asked for, and their table.

docs/reliability.md gets the table, after each point anew.
"""

import os
from pathlib import Path

import pytest

from tests.crashes.fixtures import hit, scene
from tests.crashes.points import Point, draw
from tests.crashes.scene import MissedError, Scene
from tests.crashes.table import Result, markdown, write_into
from tests.tiny_pipeline import ROOT

__all__ = ["scene"]  # a fixture

pytestmark = [pytest.mark.long, pytest.mark.alone, pytest.mark.slow]

SEED = int(os.environ.get("CRASH_SEED", "1"))
NUM_POINTS = int(os.environ.get("CRASH_POINTS", "50"))
PAGE = ROOT / "docs/reliability.md"


@pytest.fixture(scope="module")
def results() -> list[Result]:
    return []


@pytest.fixture(scope="module")
def missed() -> list[Point]:
    return []


@pytest.mark.parametrize("point", draw(SEED, NUM_POINTS), ids=lambda point: point.name)
def test_a_run_that_is_hit_there_ends_like_an_undisturbed_one(
    point: Point, scene: Scene, tmp_path: Path, results: list[Result], missed: list[Point]
) -> None:
    try:
        results.append(hit(point, scene, tmp_path))
    except MissedError as error:
        missed.append(point)
        pytest.skip(str(error))
    write_into(PAGE, markdown(results, missed, SEED))
    verdict = results[-1].verdict
    assert verdict.sound, verdict.faults()
