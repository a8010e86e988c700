"""The flow on several hosts, of which some are lost: the bytes of an undisturbed run on one host.

Each host is a network namespace with a Ray node of its own; the flow runs on the head. Measured
seconds are printed: pytest -s.
"""

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import psutil
import pytest

from infra.artifacts import open_store
from sknet.records import Checkpoint
from tests.hosts import Host
from tests.ray_clusters import QUICK, RayHosts, ray_hosts
from tests.tiny_pipeline import Trained, copy_shards, digests, train_command

pytestmark = [pytest.mark.slow, pytest.mark.alone]

CHECKPOINTS = ".work/checkpoint/*/checkpoints/step-*"
SECONDS_TO_START = 300
SECONDS_TO_END = 400
# As promised: from the loss to the end of the gang on all hosts.
SECONDS_TO_NOTICE = 30


class Training:
    """A flow on the head, with two ranks on two of the hosts."""

    def __init__(
        self, cluster: RayHosts, trained: Trained, store: Path, said: IO[str], *more: str
    ) -> None:
        self.hosts, self.store = cluster.workers, store
        copy_shards(trained.store, store)
        options = ("--launcher", "ray:auto", "--hosts", "2", "--wait-for-hosts", "20", *more)
        command = train_command(trained.recipe, trained.images, store, 2, *options)
        self.process = cluster.start_on_head(*command, stdout=said, stderr=subprocess.STDOUT)
        self._said = Path(said.name)

    def said(self) -> str:
        return self._said.read_text("utf-8")

    def until_it_saves(self) -> None:
        self.wait(lambda: any(self.store.glob(CHECKPOINTS)), SECONDS_TO_START)

    def wait(self, condition: Callable[[], object], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.05)

    def ranks(self) -> dict[int, tuple[Host, psutil.Process]]:
        return {
            int(process.environ()["RANK_ID"]): (host, process)
            for host in self.hosts
            for process in host.marked({"MS_ROLE": "MS_WORKER"})
        }


@pytest.fixture
def said(tmp_path: Path) -> Iterator[IO[str]]:
    with (tmp_path / "said.log").open("w") as file:
        yield file


def kill_rank(host: Host, rank: psutil.Process) -> None:
    rank.kill()


def freeze_rank(host: Host, rank: psutil.Process) -> None:
    rank.suspend()


def cut_link(host: Host, rank: psutil.Process) -> None:
    host.cut()


@pytest.mark.parametrize(
    ("lose", "number"),
    [
        pytest.param(cut_link, 0, id="link of the master's host"),
        pytest.param(cut_link, 1, id="link of another host", marks=pytest.mark.long),
        pytest.param(kill_rank, 1, id="rank killed", marks=pytest.mark.long),
        pytest.param(freeze_rank, 1, id="rank frozen", marks=pytest.mark.long),
    ],
)
def test_loss_on_the_way_changes_no_byte(
    lose: Callable[[Host, psutil.Process], None],
    number: int,
    trained: Trained,
    tmp_path: Path,
    said: IO[str],
) -> None:
    with ray_hosts(3, QUICK) as cluster:
        training = Training(cluster, trained, tmp_path / "store", said)
        training.until_it_saves()
        ranks = training.ranks()
        assert set(ranks) == {0, 1}, training.said()
        began = time.monotonic()
        lose(*ranks[number])
        gone = [process for _, process in ranks.values()]
        _, left = psutil.wait_procs(gone, timeout=SECONDS_TO_NOTICE)
        assert left == []
        print(f"{lose.__name__} of rank {number}: {time.monotonic() - began:.1f} s")
        assert training.process.wait(SECONDS_TO_END) == 0, training.said()
        print(f"  and done {time.monotonic() - began:.1f} s after it")
        assert training.ranks() == {}
    assert re.search(r"Retry 1/3", training.said())
    assert digests(training.store) == digests(trained.store)


@pytest.mark.long
def test_training_goes_on_with_the_hosts_that_are_left(
    trained: Trained, tmp_path: Path, said: IO[str]
) -> None:
    with ray_hosts(2, QUICK) as cluster:
        training = Training(cluster, trained, tmp_path / "store", said)
        training.until_it_saves()
        lost, _ = training.ranks()[1]
        lost.cut()
        assert training.process.wait(SECONDS_TO_END) == 0, training.said()
    assert "1 of 2 hosts, 1 ranks each" in training.said()
    store = open_store(str(training.store))
    (manifest,) = store.list("checkpoint")
    state = Checkpoint.read(store.load("checkpoint", manifest.key).path("state.json"))
    assert [layout.world_size for layout in state.layouts] == [2, 1]
    assert manifest.key == trained.of("train").key


@pytest.mark.long
def test_three_hosts_train_like_one(
    trained: Trained, tmp_path: Path, said: IO[str], images: Path
) -> None:
    """Three ranks on three hosts against three ranks on one."""
    batch = ("--set", "global_batch_size=12")
    alone = subprocess.run(
        train_command(trained.recipe, images, tmp_path / "one", 3, *batch),
        check=True,
        capture_output=True,
        text=True,
    )
    assert "train      built" in alone.stdout
    with ray_hosts(3, QUICK) as cluster:
        command = train_command(trained.recipe, images, tmp_path / "three", 3, *batch)
        options = ("--launcher", "ray:auto", "--hosts", "3")
        process = cluster.start_on_head(*command, *options, stdout=said, stderr=said)
        assert process.wait(SECONDS_TO_END) == 0, Path(said.name).read_text()
    assert digests(tmp_path / "three") == digests(tmp_path / "one")
