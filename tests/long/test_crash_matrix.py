"""make crash-matrix [POINTS=50] [SEED=1]: as many points as asked for, and their table.

The table is written into docs/reliability.md after each point.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crashes.experiment import MissedError, Result, Testbed, carry_out, own_s3_server
from tests.crashes.points import Point, draw
from tests.crashes.table import markdown, write_into
from tests.prefect_services import PrefectServer, PrefectWorker
from tests.processes import ROOT
from tests.tiny_pipeline import Trained

pytestmark = [pytest.mark.long, pytest.mark.alone]

SEED = int(os.environ.get("CRASH_SEED", "1"))
NUM_POINTS = int(os.environ.get("CRASH_POINTS", "50"))
PAGE = ROOT / "docs/reliability.md"


@pytest.fixture(scope="module")
def testbed(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testbed]:
    directory = tmp_path_factory.mktemp("testbed")
    with own_s3_server(directory / "s3"), PrefectServer(directory) as server:
        server.deploy()
        with PrefectWorker(server) as worker:
            yield Testbed(trained, server, worker, directory / "s3")


@pytest.fixture(scope="module")
def results() -> list[Result]:
    return []


@pytest.fixture(scope="module")
def missed() -> list[Point]:
    return []


@pytest.mark.parametrize("point", draw(SEED, NUM_POINTS), ids=lambda point: point.name)
def test_a_run_that_is_hit_there_ends_like_an_uninterrupted_one(
    point: Point, testbed: Testbed, tmp_path: Path, results: list[Result], missed: list[Point]
) -> None:
    try:
        results.append(carry_out(point, testbed, tmp_path))
    except MissedError as error:
        missed.append(point)
        pytest.skip(str(error))
    write_into(PAGE, markdown(results, missed, SEED))
    verdict = results[-1].verdict
    assert verdict.passed, verdict.faults()
