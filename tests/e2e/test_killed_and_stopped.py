"""Whatever is killed or stopped, a run ends with the bytes of an uninterrupted one.

test_kill_and_resume.py and test_s3_store.py kill the flow itself. Here are the two victims that
other tests do not kill; `make crash-matrix` draws all victims at random moments.
"""

import re
import shutil
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.crashes.experiment import Testbed, carry_out
from tests.crashes.points import TASKS_OF, VICTIMS, Point, draw
from tests.flow_runs import DeploymentRun
from tests.prefect_services import PAUSE, prefect_command, shipped_settings
from tests.processes import Service
from tests.tiny_pipeline import copy_shards, digests
from tests.waiting import wait_for

pytestmark = pytest.mark.xdist_group("prefect server")

SERVER = Point(1, "Prefect server", "train", 0.3, "deployment", "directory", 0, 4)
WORKER = Point(2, "worker", "validate", 0.2, "deployment", "directory", 0, 1)


def test_a_seed_draws_every_victim_in_turn_and_always_the_same_points() -> None:
    points = draw(7, 50)
    assert points == draw(7, 50)
    assert points[:20] == draw(7, 20)
    assert points != draw(8, 50)
    for start in range(0, 49, len(VICTIMS)):
        assert {point.victim for point in points[start : start + len(VICTIMS)]} == set(VICTIMS)
    assert all(point.task in TASKS_OF[point.victim] for point in points)
    assert {point.form for point in points} == {"command", "deployment"}
    assert {point.store for point in points} == {"directory", "S3"}


@pytest.mark.long
@pytest.mark.parametrize("point", [SERVER, WORKER], ids=lambda point: point.name)
def test_a_run_of_which_something_is_killed_ends_like_an_uninterrupted_one(
    point: Point, testbed: Testbed, tmp_path: Path
) -> None:
    result = carry_out(point, testbed, tmp_path)
    assert result.verdict.passed, result.verdict.faults()


def run_at_work(testbed: Testbed, store: Path, task: str) -> DeploymentRun:
    """Start a run of the deployment; return once it converts, or has its first checkpoint."""
    run = DeploymentRun(testbed.trained, str(store), testbed.server, testbed.worker, {})
    run.start()
    wait_until_at_work(run, store, task)
    return run


def wait_until_at_work(run: DeploymentRun, store: Path, task: str) -> None:
    def is_at_work() -> bool:
        if task == "convert":
            return bool(run.converters())
        return any(store.glob(".work/checkpoint/*/checkpoints/step-*")) and len(run.ranks()) == 2

    wait_for(lambda: is_at_work() or run.is_over(), run.output, pause=PAUSE)
    assert not run.is_over(), run.output()


@pytest.mark.long
@pytest.mark.parametrize("missing", ["shards", "checkpoint"])
def test_a_cancelled_run_leaves_no_process_and_the_next_one_resumes(
    missing: str, testbed: Testbed, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    for kind in {"dataset", "shards", "checkpoint", "evaluation"} - {missing}:
        shutil.copytree(testbed.trained.store / kind, store / kind)
    run = run_at_work(testbed, store, "convert" if missing == "shards" else "train")
    assert len(run.schedulers()) == (missing == "checkpoint")

    testbed.server.prefect("flow-run", "cancel", run.run)

    run.wait_until_gone()
    wait_for(run.is_over, run.output, pause=PAUSE)
    assert run.ended_as() == "CANCELLED"
    assert not any(store.glob(f"{missing}/*"))
    run.start()
    wait_for(run.is_over, run.output, pause=PAUSE)
    assert run.is_done, run.output()
    assert ("resuming from step-" in run.output()) == (missing == "checkpoint")
    assert digests(store) == digests(testbed.trained.store)
    run.wait_until_gone()


@pytest.mark.long
@pytest.mark.parametrize(
    ("host", "queued_as"), [("worker", "Stopped, will go on"), ("pod", "AwaitingRetry")]
)
def test_the_run_of_a_host_that_has_to_leave_goes_on_without_losing_a_step(
    host: str, queued_as: str, testbed: Testbed, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    copy_shards(testbed.trained.store, store)
    with ExitStack() as stack:
        if host == "worker":
            service: Service = testbed.worker
            run = run_at_work(testbed, store, "train")
        else:
            testbed.worker.stop()
            run = DeploymentRun(testbed.trained, str(store), testbed.server, testbed.worker, {})
            run.start()
            service = stack.enter_context(pod_of(run, testbed))
            wait_until_at_work(run, store, "train")

        service.process.send_signal(signal.SIGTERM)

        wait_for(lambda: not service.is_alive, run.output)
    assert not run.living(), "the host ended before its run"
    (last,) = set(re.findall(r"stopped: after step (\d+) of 12, with checkpoint", run.output()))
    left = testbed.server.get(f"flow_runs/{run.run}")
    assert (left["state_type"], left["state_name"]) == ("SCHEDULED", queued_as)
    testbed.worker.start()
    wait_for(run.is_over, run.output, pause=PAUSE)
    assert run.is_done, run.output()
    assert f"resuming from step-{int(last):08}: {last} of 12 steps" in run.output()
    assert digests(store) == digests(testbed.trained.store)


def pod_of(run: DeploymentRun, testbed: Testbed) -> Service:
    """Return what Kubernetes runs for a flow run: Prefect's command and the shipped settings."""
    environment = {**shipped_settings(), **testbed.server.environment, **run.environment}
    command = prefect_command("flow-run", "execute", run.run)
    return Service(command, testbed.worker.log, environment)
