"""Mapping a function on a real Ray cluster of three nodes: results, errors, and a lost node."""

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from infra.launch.cluster import ClusterError, map_on_cluster
from tests.infra.launch.mapped_functions import NoSuchColourError, report_and_wait, square
from tests.ray_clusters import cluster_of
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with cluster_of(3) as running:
        yield running


def ignore_tick() -> None:
    pass


@pytest.mark.slow
@pytest.mark.parametrize("address", ["ray://127.0.0.1:1", "ray://nowhere", "auto"])
def test_missing_cluster_is_named(address: str) -> None:
    with pytest.raises(ClusterError) as caught:
        list(map_on_cluster(square, [1], address=address, on_tick=ignore_tick))
    assert str(caught.value).startswith(f"no Ray cluster at {address!r}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.alone
def test_every_item_has_a_result(cluster: Any) -> None:
    ticks: list[None] = []
    results = map_on_cluster(
        square, iter(range(20)), address=cluster.address, on_tick=lambda: ticks.append(None)
    )
    assert sorted(results) == [number * number for number in range(20)]
    assert ticks


@pytest.mark.alone
def test_error_of_the_function_is_raised_as_it_is(cluster: Any) -> None:
    results = map_on_cluster(square, [3, -7, 4], address=cluster.address, on_tick=ignore_tick)
    with pytest.raises(NoSuchColourError) as caught:
        list(results)
    assert type(caught.value) is NoSuchColourError
    assert str(caught.value) == "-7 is no colour"


# The last test of the cluster, which has one node less afterwards.
@pytest.mark.alone
def test_items_of_a_lost_node_are_done_by_the_others(cluster: Any, tmp_path: Path) -> None:
    victim = next(iter(cluster.worker_nodes))

    def remove_when_it_works() -> None:
        wait_for(lambda: list(tmp_path.glob(f"*.{victim.node_id}.*")))
        cluster.remove_node(victim, allow_graceful=False)
        (tmp_path / "go-on").touch()

    remover = threading.Thread(target=remove_when_it_works)
    remover.start()
    function = partial(report_and_wait, tmp_path)
    results = map_on_cluster(function, range(6), address=cluster.address, on_tick=ignore_tick)
    assert sorted(results) == list(range(6))
    remover.join()
    starts = [path.name.split(".") for path in tmp_path.iterdir() if path.name != "go-on"]
    lost = [number for number, node, _ in starts if node == victim.node_id]
    assert len(lost) == 1
    assert sum(number == lost[0] for number, _, _ in starts) == 2
