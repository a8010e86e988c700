"""One point carried out: a run starts, something of it is killed, what died is started again."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from infra.artifacts import LocalStore, open_store
from infra.artifacts.transfer import push
from infra.s3 import server as s3_server
from tests.crashes.points import TASKS, Point
from tests.flow_runs import CommandRun, DeploymentRun, FlowRun
from tests.prefect_services import PAUSE, PrefectServer, PrefectWorker
from tests.store_roots import S3Root
from tests.tiny_pipeline import Trained, digests, train_command
from tests.waiting import wait_for

MAX_STARTS = 4
MAX_TRIES = 3
SECONDS_TO_VANISH = 60
"""Processes that a run leaves behind for longer count as left."""
KIND_OF = {
    "stage": "dataset",
    "convert": "shards",
    "train": "checkpoint",
    "validate": "evaluation",
    "promote": "evaluation",
    "report": "evaluation",
}
# The line of the log after which a task is at work.
BEGINS = {
    "stage": "Beginning flow run",
    "convert": "convert: building",
    "train": "train: building",
    "validate": "validate: building",
    "promote": "validate: built in",
    "report": "promote: built",
}
ENDS = {task: f"{task}: built" for task in BEGINS}


class MissedError(Exception):
    """The task was over before its victim could be killed."""


@dataclass(frozen=True)
class Testbed:
    """The servers, the worker and the uninterrupted run that all points share."""

    __test__ = False  # no class of tests, though its name begins so

    trained: Trained
    server: PrefectServer
    worker: PrefectWorker
    s3_directory: Path | None = None
    """Of the S3 server; None without one."""

    def usual_seconds(self, task: str) -> float:
        """Return how long the task takes when nothing happens."""
        return self.trained.of(task).seconds

    def stop_s3(self) -> None:
        assert self.s3_directory is not None
        assert s3_server.stop(self.s3_directory)

    def start_s3(self) -> None:
        """Start the S3 server again, with its content and at the same port."""
        assert self.s3_directory is not None
        before = os.environ["AWS_ENDPOINT_URL_S3"]
        assert s3_server.start(self.s3_directory).environment["AWS_ENDPOINT_URL_S3"] == before


@dataclass(frozen=True)
class Observed:
    """What happened at a point."""

    moment: float
    """Seconds from the start of the task to the kill."""
    ends: tuple[str, ...]
    """Exit code or state of each start of the run."""
    retried: bool
    """Whether the flow itself retried the task."""
    seconds: float
    """From the kill until the run was done."""
    left: tuple[str, ...]
    """Processes of the run that outlived it."""


@dataclass(frozen=True)
class Verdict:
    """What a store holds after the run, compared with that of an uninterrupted run."""

    equal: bool
    """Whether the digests of all deterministic artifacts are equal."""
    same_production: bool
    damages: tuple[str, ...]
    """Damages found by a full verification."""
    leftovers: tuple[str, ...]
    """Remains of interrupted commits and builds that a repair does not remove."""
    processes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return self == Verdict(True, True, (), (), ())

    def faults(self) -> str:
        return "; ".join(f"{name}: {value}" for name, value in asdict(self).items())


@dataclass(frozen=True)
class Result:
    """A point that was carried out."""

    point: Point
    observed: Observed
    verdict: Verdict


@contextmanager
def own_s3_server(directory: Path) -> Iterator[None]:
    """An S3 server that can be killed; this process's AWS settings have its address."""
    with pytest.MonkeyPatch.context() as patch:
        try:
            for name, value in s3_server.start(directory).environment.items():
                patch.setenv(name, value)
            yield
        finally:
            s3_server.stop(directory)


def carry_out(point: Point, testbed: Testbed, directory: Path) -> Result:
    """Carry a point out, earlier in the task if the task was over too soon.

    How long a task takes depends on what else the machine does.

    Raises:
        MissedError: The task was over too soon each time.
    """
    for number in range(MAX_TRIES):
        sooner = replace(point, fraction=point.fraction / 3**number)
        own = directory / str(number)
        own.mkdir()
        try:
            return _carry_out_once(sooner, testbed, own)
        except MissedError as error:
            missed = error
    raise missed


def _carry_out_once(point: Point, testbed: Testbed, directory: Path) -> Result:
    uri, environment = _store_before(point, testbed, directory)
    observed = _observe(point, testbed, directory, uri, environment)
    # The run's host has its own cache; the store is read with that one.
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        return Result(point, observed, _judge(uri, testbed.trained, observed))


def _store_before(point: Point, testbed: Testbed, directory: Path) -> tuple[str, dict[str, str]]:
    """Return a store with the artifacts of all earlier tasks, and the run's environment."""
    if point.store == "directory":
        uri, environment = str(directory / "store"), {}
    else:
        root = S3Root(directory / "hosts")
        uri, environment = root.uri, root.environment("one")
    earlier = {KIND_OF[task] for task in TASKS[: TASKS.index(point.task)]}
    source, target = open_store(str(testbed.trained.store)), open_store(uri)
    for manifest in source.list():
        if manifest.kind in earlier:
            push(source, manifest, target)
    return uri, environment


def _observe(
    point: Point, testbed: Testbed, directory: Path, uri: str, environment: dict[str, str]
) -> Observed:
    trained, server, worker = testbed.trained, testbed.server, testbed.worker
    run: FlowRun
    if point.form == "command":
        command = train_command(trained.recipe, trained.images, uri, 2, "--verbose")
        settings = {"PREFECT_API_URL": server.api, **environment}
        run = CommandRun(command, directory / "run.log", settings)
    else:
        run = DeploymentRun(trained, uri, server, worker, environment)
    try:
        run.start()
        wait_for(
            lambda: BEGINS[point.task] in run.output() or run.is_over(), run.output, pause=PAUSE
        )
        began = time.monotonic()
        time.sleep(point.fraction * testbed.usual_seconds(point.task))
        _require_at_work(point, run)
        restart = _kill(point, testbed, run)
        killed = time.monotonic()
        before = len(run.output())
        if restart:
            time.sleep(point.down)
            restart()
        ends = tuple(_until_done(run, worker))
        seconds = time.monotonic() - killed
        with suppress(AssertionError):
            wait_for(lambda: not run.living(), seconds=SECONDS_TO_VANISH, pause=PAUSE)
        return Observed(
            moment=round(killed - began, 1),
            ends=ends,
            retried=" will start " in run.output()[before:],
            seconds=round(seconds, 1),
            left=tuple(" ".join(process.cmdline()[:4]) for process in run.living()),
        )
    finally:
        run.end()


def _kill(point: Point, testbed: Testbed, run: FlowRun) -> Callable[[], None] | None:
    """Kill the victim as soon as it exists; return what starts it again if it is a service."""
    match point.victim:
        case "worker":
            testbed.worker.kill()
            return testbed.worker.start
        case "Prefect server":
            testbed.server.kill()
            return testbed.server.start
        case "S3 server":
            testbed.stop_s3()
            return testbed.start_s3
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
    point: Point, run: FlowRun, find: Callable[[], list[psutil.Process]]
) -> psutil.Process:
    while True:
        with suppress(psutil.Error):
            if found := find():
                return found[point.rank % len(found)]
        _require_at_work(point, run)
        time.sleep(0.1)


def _require_at_work(point: Point, run: FlowRun) -> None:
    if ENDS[point.task] in run.output() or run.is_over():
        raise MissedError(f"{point.task} was over before its {point.victim} could be killed")


def _until_done(run: FlowRun, worker: PrefectWorker) -> list[str]:
    """Start the run again until it is done; return how each start ended."""
    ends = []
    while True:
        wait_for(run.is_over, run.output, pause=PAUSE)
        if not worker.is_alive:  # a worker ends itself if its server is down for long
            worker.start()
        ends.append(run.ended_as())
        if run.is_done:
            return ends
        assert run.num_starts < MAX_STARTS, f"ended as {ends}:\n{run.output()[-5000:]}"
        run.wait_until_gone()
        run.start()


def _judge(store_uri: str, trained: Trained, observed: Observed) -> Verdict:
    """Read every byte of the store, and repair it."""
    store = open_store(store_uri, create=False)
    production = store.refs.get("production")
    damages = [
        f"{kind}/{key}: {damage}"
        for kind, key in store.addresses()
        for damage in store.verify(kind, key, level="full")
    ]
    now = datetime.now(UTC)
    for leftover in store.leftovers(now):
        leftover.remove()
    return Verdict(
        equal=digests(store_uri) == digests(trained.store),
        same_production=(
            production is not None and production.digest == trained.of("train").digest
        ),
        damages=tuple(damages),
        leftovers=tuple(_leftovers(store_uri, now)),
        processes=observed.left,
    )


def _leftovers(store_uri: str, now: datetime) -> list[str]:
    """Return what a repair left: known leftovers, artifacts without a manifest, unknown files."""
    store = open_store(store_uri, create=False)
    known = [leftover.name for leftover in store.leftovers(now)]
    complete = {(manifest.kind, manifest.key) for manifest in store.list()}
    incomplete = [f"{kind}/{key}" for kind, key in store.addresses() if (kind, key) not in complete]
    unknown = []
    if isinstance(store, LocalStore):
        paths = [*store.root.glob(".staging/*"), *store.root.glob(".work/*/*")]
        unknown = [str(p.relative_to(store.root)) for p in paths if p.suffix != ".lock"]
    return sorted([*known, *incomplete, *unknown])
