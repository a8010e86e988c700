"""Converting on three hosts, one of which is lost, gives the shards of an uninterrupted run."""

import threading
from pathlib import Path

import pytest
from prefect import flow

from infra.artifacts import open_store
from tasks.convert import ConversionSettings, convert
from tasks.programs import LaunchSettings
from tasks.results import TaskResult
from tasks.stage import stage
from tests.ray_clusters import cluster_of
from tests.waiting import wait_for

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("flow_harness")]


def converted(images: Path, store: Path, launch: LaunchSettings) -> TaskResult:
    @flow(name="stage-and-convert")
    def run() -> TaskResult:
        dataset = stage(str(images), str(store)).result()
        settings = ConversionSettings()
        return convert(str(images), dataset, str(store), settings, 2, launch).result()

    return run()


def test_a_lost_host_changes_no_byte(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = converted(images, tmp_path / "here", LaunchSettings())
    store = tmp_path / "there"

    def num_shards_being_written() -> int:
        return len([*store.glob(".work/shards/*/shards/.conversion/*.mindrecord.*/")])

    with cluster_of(3) as cluster:
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)

        def lose_a_host_while_all_write() -> None:
            wait_for(lambda: num_shards_being_written() >= 3, pause=0.01)
            cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)

        killer = threading.Thread(target=lose_a_host_while_all_write, daemon=True)
        killer.start()
        there = converted(images, store, LaunchSettings(launcher="ray:auto"))
        killer.join(10)
        assert not killer.is_alive(), "the conversion ended before a host was lost"
    assert (there.status, there.key, there.digest) == ("built", here.key, here.digest)
    assert not list((store / ".work").rglob("*.mindrecord"))
    assert open_store(str(store)).verify("shards", there.key) == ()
