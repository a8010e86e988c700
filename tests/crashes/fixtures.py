"""The servers and the worker that points hit, one of each for a module of tests."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from infra.s3 import server as s3_server
from tests.crashes.checks import judge
from tests.crashes.points import Point
from tests.crashes.scene import MissedError, Scene, carry_out, store_for
from tests.crashes.table import Result
from tests.prefect_services import PrefectServer, PrefectWorker
from tests.tiny_pipeline import Trained

TRIES = 3


@pytest.fixture(scope="module")
def scene(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    place = tmp_path_factory.mktemp("scene")
    server = PrefectServer(place)
    worker = PrefectWorker(server)
    s3_place = place / "s3"
    try:
        server.start()
        server.deploy()
        with pytest.MonkeyPatch.context() as patch:
            for name, value in s3_server.start(s3_place).environment.items():
                patch.setenv(name, value)
            worker.start()
            yield Scene(trained, server, worker, s3_place)
    finally:
        worker.stop()
        server.stop()
        s3_server.stop(s3_place)


def hit(point: Point, scene: Scene, directory: Path) -> Result:
    """Raises MissedError if there was nothing left to hit, though it was tried earlier and earlier.

    How long a stage takes depends on what else the machine does.
    """
    for sooner in range(TRIES):
        point = replace(point, share=point.share / 3**sooner)
        place = directory / str(sooner)
        place.mkdir()
        try:
            return _hit(point, scene, place)
        except MissedError as error:
            missed = error
    raise missed


def _hit(point: Point, scene: Scene, directory: Path) -> Result:
    store = store_for(point, scene, directory)
    seen = carry_out(point, scene, directory, store)
    # The cache of the run's host is the one in which to look.
    with pytest.MonkeyPatch.context() as patch:
        for name, value in store[1].items():
            patch.setenv(name, value)
        verdict = judge(store[0], scene.trained, seen)
    return Result(point, seen, verdict)
