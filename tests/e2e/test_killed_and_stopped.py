"""Whatever of it is killed or stopped, a run ends with the bytes of an undisturbed one.

Six points, one for each victim but the flow itself, which test_kill_and_resume.py kills in three
stages. `make crash-matrix` draws as many as there is time for.
"""

import shutil
import signal
from pathlib import Path

import pytest

from tests.crashes.fixtures import hit, scene
from tests.crashes.points import STAGES_OF, VICTIMS, Point, draw
from tests.crashes.runs import DeploymentRun
from tests.crashes.scene import SECONDS_TO_VANISH, Scene
from tests.prefect_services import eventually
from tests.tiny_pipeline import copy_shards, digests

__all__ = ["scene"]  # a fixture

SECONDS_TO_WORK = 150
# Drawn by hand, so that all kinds of run and store are met in little time.
POINTS = [
    Point(1, "converter", "convert", 0.1, "command", "directory", 1, 0),
    Point(2, "rank", "train", 0.3, "deployment", "directory", 1, 0),
    Point(3, "scheduler", "train", 0.2, "command", "directory", 0, 0),
    Point(4, "worker", "validate", 0.2, "deployment", "directory", 0, 1),
    Point(5, "Prefect server", "train", 0.3, "command", "directory", 0, 4),
    Point(6, "S3 server", "validate", 0.3, "command", "S3", 0, 4),
]


def test_a_seed_draws_every_victim_in_turn_and_always_the_same_points() -> None:
    points = draw(7, 50)
    assert points == draw(7, 50)
    assert points[:20] == draw(7, 20)
    assert points != draw(8, 50)
    for start in range(0, 49, len(VICTIMS)):
        assert {point.victim for point in points[start : start + len(VICTIMS)]} == set(VICTIMS)
    assert all(point.stage in STAGES_OF[point.victim] for point in points)
    assert {point.form for point in points} == {"command", "deployment"}
    assert {point.place for point in points} == {"directory", "S3"}


@pytest.mark.slow
@pytest.mark.alone  # what dies when is a matter of how long the stages usually take
@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.name)
def test_a_run_of_which_something_is_killed_ends_like_an_undisturbed_one(
    point: Point, scene: Scene, tmp_path: Path
) -> None:
    result = hit(point, scene, tmp_path)
    assert result.verdict.sound, result.verdict.faults()


def run_at_work(scene: Scene, store: Path, stage: str) -> DeploymentRun:
    """A run of the deployment that has just begun to convert, or has its first checkpoint."""
    run = DeploymentRun(scene.trained, str(store), scene.server, scene.worker, {})
    run.start()

    def is_at_work() -> bool:
        if stage == "convert":
            return bool(run.converters())
        return any(store.glob(".work/checkpoint/*/checkpoints/step-*")) and len(run.ranks()) == 2

    eventually(lambda: is_at_work() or run.is_over(), SECONDS_TO_WORK, run.said)
    assert not run.is_over(), run.said()
    return run


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("missing", ["shards", "checkpoint"])
def test_a_cancelled_run_leaves_no_process_and_the_next_one_goes_on_from_it(
    missing: str, scene: Scene, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    for kind in {"dataset", "shards", "checkpoint", "evaluation"} - {missing}:
        shutil.copytree(scene.trained.store / kind, store / kind)
    run = run_at_work(scene, store, "convert" if missing == "shards" else "train")
    assert len(run.schedulers()) == (missing == "checkpoint")

    scene.server.prefect("flow-run", "cancel", run.run)

    eventually(lambda: not run.living(), SECONDS_TO_VANISH, lambda: str(run.living()))
    eventually(run.is_over, SECONDS_TO_WORK, run.said)
    assert run.ended_as() == "CANCELLED"
    assert not any(store.glob(f"{missing}/*"))
    run.start()
    eventually(run.is_over, SECONDS_TO_WORK, run.said)
    assert run.is_done, run.said()
    assert ("resuming from step-" in run.said()) == (missing == "checkpoint")
    assert digests(store) == digests(scene.trained.store)
    eventually(lambda: not run.living(), SECONDS_TO_VANISH, lambda: str(run.living()))


@pytest.mark.slow
@pytest.mark.long
def test_a_stopped_worker_leaves_no_process_and_the_next_one_finishes_the_work(
    scene: Scene, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    copy_shards(scene.trained.store, store)
    run = run_at_work(scene, store, "train")

    scene.worker.process.send_signal(signal.SIGTERM)

    eventually(lambda: not run.living(), SECONDS_TO_VANISH, lambda: str(run.living()))
    eventually(lambda: not scene.worker.is_alive, SECONDS_TO_VANISH, run.said)
    assert any(store.glob(".work/checkpoint/*/checkpoints/step-*"))
    assert not any(store.glob("checkpoint/*"))
    scene.worker.start()
    eventually(run.is_over, SECONDS_TO_WORK, run.said)
    run.start()
    eventually(run.is_over, SECONDS_TO_WORK, run.said)
    assert run.is_done, run.said()
    assert "resuming from step-" in run.said()
    assert digests(store) == digests(scene.trained.store)
