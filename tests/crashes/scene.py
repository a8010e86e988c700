"""One point carried out: a run is begun, something of it dies, what died is started again."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from infra.artifacts import open_store
from infra.artifacts.transfer import push
from infra.s3 import server as s3_server
from tests.crashes.points import STAGES, Point
from tests.crashes.runs import (
    BEGINS,
    ENDS,
    SECONDS_TO_BE_SEEN,
    SECONDS_TO_END,
    CommandRun,
    DeploymentRun,
    HitRun,
)
from tests.places import S3Place
from tests.prefect_services import PrefectServer, PrefectWorker, eventually
from tests.tiny_pipeline import Trained

SECONDS_TO_VANISH = 15
MAX_STARTS = 4
KIND_OF = {
    "stage": "dataset",
    "convert": "shards",
    "train": "checkpoint",
    "validate": "evaluation",
    "promote": "evaluation",
    "report": "evaluation",
}


class MissedError(Exception):
    """The victim was gone before its moment had come."""


@dataclass(frozen=True)
class Scene:
    """What the points share."""

    trained: Trained
    server: PrefectServer
    worker: PrefectWorker
    s3_place: Path
    """Of the S3 server."""

    def usual(self, stage: str) -> float:
        """Seconds that the stage takes when nothing happens."""
        return self.trained.of(stage).seconds

    def start_s3(self) -> None:
        """Once more, with what it held and at the same port."""
        before = os.environ["AWS_ENDPOINT_URL_S3"]
        assert s3_server.start(self.s3_place).environment["AWS_ENDPOINT_URL_S3"] == before


@dataclass(frozen=True)
class Seen:
    """What a point looked like."""

    moment: float
    """Seconds after the stage's begin."""
    ends: tuple[str, ...]
    """Exit code or state of each start."""
    retried: bool
    """Whether the flow itself tried the stage again."""
    seconds: float
    """From the kill until it was done."""
    left: tuple[str, ...]
    """Processes of the run that were there 15 s after its end."""


def store_for(point: Point, scene: Scene, directory: Path) -> tuple[str, dict[str, str]]:
    """A store that has what the stages before the point's have made, and the run's environment."""
    if point.place == "directory":
        uri, environment = str(directory / "store"), {}
    else:
        place = S3Place(directory / "hosts")
        uri, environment = place.uri, place.environment("one")
    earlier = {KIND_OF[stage] for stage in STAGES[: STAGES.index(point.stage)]}
    source, target = open_store(str(scene.trained.store)), open_store(uri)
    for manifest in source.list():
        if manifest.kind in earlier:
            push(source, manifest, target)
    return uri, environment


def carry_out(
    point: Point, scene: Scene, directory: Path, store: tuple[str, dict[str, str]]
) -> Seen:
    """Raises MissedError if the stage was over before anything could be killed."""
    uri, environment = store
    run: HitRun
    if point.form == "command":
        log = directory / "run.log"
        run = CommandRun(scene.trained, uri, log, scene.server.api, environment)
    else:
        run = DeploymentRun(scene.trained, uri, scene.server, scene.worker, environment)
    try:
        run.start()
        eventually(
            lambda: BEGINS[point.stage] in run.said() or run.is_over(), SECONDS_TO_BE_SEEN, run.said
        )
        began = time.monotonic()
        time.sleep(point.share * scene.usual(point.stage))
        _require_at_work(point, run)
        restart = _kill(point, scene, run)
        killed = time.monotonic()
        before = len(run.said())
        time.sleep(point.down if restart else 0)
        if restart:
            restart()
        ends = tuple(_until_done(run, scene.worker))
        seconds = time.monotonic() - killed
        with suppress(AssertionError):
            eventually(lambda: not run.living(), SECONDS_TO_VANISH, str)
        return Seen(
            moment=round(killed - began, 1),
            ends=ends,
            retried=" will start " in run.said()[before:],
            seconds=round(seconds, 1),
            left=tuple(" ".join(process.cmdline()[:4]) for process in run.living()),
        )
    finally:
        run.end()


def _kill(point: Point, scene: Scene, run: HitRun) -> Callable[[], None] | None:
    """Kill the victim as soon as it is there; return how to start it again, if it isn't a run's."""
    match point.victim:
        case "worker":
            scene.worker.kill()
            return scene.worker.start
        case "Prefect server":
            scene.server.kill()
            return scene.server.start
        case "S3 server":
            assert s3_server.stop(scene.s3_place)
            return scene.start_s3
        case "flow":
            _until_there(point, run, lambda: [run.flow()]).kill()
        case "rank":
            _until_there(point, run, lambda: [*run.ranks().values()]).kill()
        case "scheduler":
            _until_there(point, run, run.schedulers).kill()
        case "converter":
            _until_there(point, run, run.converters).kill()
    return None


def _until_there(
    point: Point, run: HitRun, find: Callable[[], list[psutil.Process]]
) -> psutil.Process:
    while True:
        with suppress(psutil.Error):
            if found := find():
                return found[point.rank % len(found)]
        _require_at_work(point, run)
        time.sleep(0.1)


def _require_at_work(point: Point, run: HitRun) -> None:
    if ENDS[point.stage] in run.said() or run.is_over():
        raise MissedError(f"{point.stage} was over before its {point.victim} could be killed")


def _until_done(run: HitRun, worker: PrefectWorker) -> list[str]:
    """Start the run again until it is done; return how each start ended."""
    ends = []
    while True:
        eventually(run.is_over, SECONDS_TO_END, run.said)
        if not worker.is_alive:  # it gives a server up that is gone for long
            worker.start()
        ends.append(run.ended_as())
        if run.is_done:
            return ends
        assert run.starts < MAX_STARTS, f"ended as {ends}:\n{run.said()[-5000:]}"
        eventually(lambda: not run.living(), SECONDS_TO_VANISH, lambda: str(run.living()))
        run.start()
