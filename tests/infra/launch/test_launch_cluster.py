"""Mapping on a real Ray cluster of three nodes: results, errors, nodes that are lost or leave."""

import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from infra.launch.cluster import ClusterError, map_on_cluster
from tests.infra.launch.mapped_functions import NoSuchColourError, report_and_wait, square
from tests.ray_clusters import RAY, cluster_of
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


# The last two tests of the cluster, which has one node less after each.
@pytest.mark.alone
def test_items_of_a_lost_node_are_done_by_the_others(cluster: Any, tmp_path: Path) -> None:
    victim = next(iter(cluster.worker_nodes))
    with go_on_after(
        lambda: cluster.remove_node(victim, allow_graceful=False), victim.node_id, tmp_path
    ):
        starts = starts_of_items(cluster, tmp_path)
    lost = [number for number, node in starts if node == victim.node_id]
    assert len(lost) == 1
    assert sum(number == lost[0] for number, _ in starts) == 2


@pytest.mark.alone
def test_a_node_that_has_to_leave_finishes_its_item_and_gets_no_other(
    cluster: Any, tmp_path: Path
) -> None:
    (leaving,) = cluster.worker_nodes
    options = (f"--address={cluster.address}", f"--node-id={leaving.node_id}")
    reason = ("--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=maintenance")
    drain = (RAY, "drain-node", *options, *reason)
    with go_on_after(lambda: subprocess.run(drain, check=True), leaving.node_id, tmp_path):
        starts = starts_of_items(cluster, tmp_path)
    assert sorted(number for number, _ in starts) == list("012345")
    assert [node for _, node in starts].count(leaving.node_id) == 1


@contextmanager
def go_on_after(event: Callable[[], object], node_id: str, directory: Path) -> Iterator[None]:
    """Let `event` happen when the node works on an item, and all items wait until it has."""

    def happen() -> None:
        wait_for(lambda: list(directory.glob(f"*.{node_id}.*")))
        event()
        (directory / "go-on").touch()

    thread = threading.Thread(target=happen)
    thread.start()
    yield
    thread.join()


def starts_of_items(cluster: Any, directory: Path) -> list[tuple[str, str]]:
    """Map over six items; return the number and the node of each start of an item."""
    function = partial(report_and_wait, directory)
    results = map_on_cluster(function, range(6), address=cluster.address, on_tick=ignore_tick)
    assert sorted(results) == list(range(6))
    names = (path.name for path in directory.iterdir() if path.name != "go-on")
    return [(number, node) for number, node, _ in (name.split(".") for name in names)]
