"""Converting on three hosts, one of which is lost, gives the shards of an uninterrupted run.

The hosts share a directory, or have a store on S3 and share nothing.
"""

import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from prefect import flow

from infra.artifacts import open_store
from tasks.convert import ConversionSettings, convert
from tasks.programs import LaunchSettings
from tasks.results import TaskResult
from tasks.stage import stage
from tests.ray_clusters import cluster_of
from tests.store_roots import S3Root
from tests.waiting import wait_for

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("flow_harness")]


def converted(images: Path, store: Path | str, launch: LaunchSettings) -> TaskResult:
    @flow(name="stage-and-convert")
    def run() -> TaskResult:
        dataset = stage(str(images), str(store)).result()
        settings = ConversionSettings()
        return convert(str(images), dataset, str(store), settings, 2, launch).result()

    return run()


def converted_by_hosts_of_which_one_is_lost(
    images: Path,
    store: Path | str,
    num_shards_at_work: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
) -> TaskResult:
    with cluster_of(3) as cluster:
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)

        def lose_a_host_while_all_write() -> None:
            wait_for(lambda: num_shards_at_work() >= 3, pause=0.01)
            cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)

        killer = threading.Thread(target=lose_a_host_while_all_write, daemon=True)
        killer.start()
        result = converted(images, store, LaunchSettings(launcher="ray:auto"))
        killer.join(10)
        assert not killer.is_alive(), "the conversion ended before a host was lost"
    return result


def test_a_lost_host_changes_no_byte(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = converted(images, tmp_path / "here", LaunchSettings())
    store = tmp_path / "there"

    def num_shards_being_written() -> int:
        return len([*store.glob(".work/shards/*/shards/.conversion/*.mindrecord.*/")])

    there = converted_by_hosts_of_which_one_is_lost(
        images, store, num_shards_being_written, monkeypatch
    )
    assert (there.status, there.key, there.digest) == ("built", here.key, here.digest)
    assert not list((store / ".work").rglob("*.mindrecord"))
    assert open_store(str(store)).verify("shards", there.key) == ()


def test_a_lost_host_changes_no_byte_of_a_store_on_s3(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3_server: object
) -> None:
    here = converted(images, tmp_path / "here", LaunchSettings())
    cache, temporary = tmp_path / "cache", tmp_path / "temporary"
    temporary.mkdir()
    # The nodes inherit where their temporary files are. Those of Ray need short paths.
    monkeypatch.setenv("RAY_TMPDIR", tempfile.gettempdir())
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setenv("SKNET_CACHE", str(cache))
    root = S3Root(tmp_path / "hosts")

    def num_shards_being_written() -> int:
        return len([*temporary.glob("sknet-shard-*/")])

    there = converted_by_hosts_of_which_one_is_lost(
        images, root.uri, num_shards_being_written, monkeypatch
    )
    assert (there.status, there.key, there.digest) == ("built", here.key, here.digest)
    assert not list(cache.rglob("*.mindrecord"))
    assert root.paths(".work/") == []
    assert open_store(root.uri).verify("shards", there.key) == ()
