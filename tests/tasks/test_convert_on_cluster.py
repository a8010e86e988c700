"""The task `convert` on three hosts, one of which is lost: the shards of an undisturbed one."""

import threading
import time
from pathlib import Path

import pytest
from prefect import flow

from infra.artifacts import open_store
from tasks.convert import ConversionSettings, convert, stage
from tasks.programs import LaunchSettings
from tasks.results import StageResult, results_of
from tests.ray_cluster import cluster_of

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.usefixtures("flow_harness")]


def converted(images: Path, store: Path, launch: LaunchSettings) -> StageResult:
    @flow(name="convert-alone")
    def run() -> list[StageResult]:
        dataset = stage(str(images), str(store))
        return results_of(
            convert(str(images), dataset, str(store), ConversionSettings(), 2, launch)
        )

    (result,) = run()
    return result


def shards_being_written(store: Path) -> list[Path]:
    return list(store.glob(".work/shards/*/shards/.conversion/*.mindrecord.*/"))


def test_lost_host_changes_no_byte(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = converted(images, tmp_path / "here", LaunchSettings())
    store = tmp_path / "there"
    with cluster_of(3) as cluster:
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        lost: list[Path] = []

        def lose_a_host_while_all_write() -> None:
            deadline = time.monotonic() + 60
            while len(shards := shards_being_written(store)) < 3 and time.monotonic() < deadline:
                time.sleep(0.01)
            cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
            lost.extend(shards)

        killer = threading.Thread(target=lose_a_host_while_all_write, daemon=True)
        killer.start()
        there = converted(images, store, LaunchSettings(launcher="ray:auto"))
        killer.join(10)
        assert len(lost) >= 3
    assert (there.status, there.key, there.digest) == ("built", here.key, here.digest)
    assert not list((tmp_path / "there/.work").rglob("*.mindrecord"))
    assert open_store(str(store)).verify("shards", there.key) == ()
