"""Training on several hosts, some of which are lost or leave, gives the bytes of a run on one host.

Each host is a network namespace with a Ray node of its own; the flow runs on the head. Measured
seconds are printed: pytest -s.
"""

import re
import subprocess
import sys
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
from tests.waiting import HANG_SECONDS, wait_for

pytestmark = [pytest.mark.long, pytest.mark.alone]

CHECKPOINTS = ".work/checkpoint/*/checkpoints/step-*"
SECONDS_TO_NOTICE = 30
"""Promised limit from a loss to the end of the gang on all hosts."""


class Training:
    """A flow on the head that trains with two ranks on two of the hosts."""

    def __init__(self, cluster: RayHosts, trained: Trained, store: Path, log: IO[str]) -> None:
        self.hosts, self.store = cluster.workers, store
        copy_shards(trained.store, store)
        options = ("--launcher", "ray:auto", "--hosts", "2", "--wait-for-hosts", "20")
        command = train_command(trained.recipe, trained.images, store, 2, *options)
        self.process = cluster.start_on_head(*command, stdout=log, stderr=subprocess.STDOUT)
        self._log = Path(log.name)

    def output(self) -> str:
        return self._log.read_text("utf-8")

    def wait_for_checkpoint(self) -> None:
        def is_due() -> bool:
            return self.process.poll() is not None or any(self.store.glob(CHECKPOINTS))

        wait_for(is_due, self.output)
        assert self.process.poll() is None, self.output()

    def ranks(self) -> dict[int, tuple[Host, psutil.Process]]:
        return {
            int(process.environ()["RANK_ID"]): (host, process)
            for host in self.hosts
            for process in host.marked({"MS_ROLE": "MS_WORKER"})
        }


@pytest.fixture
def log(tmp_path: Path) -> Iterator[IO[str]]:
    with (tmp_path / "flow.log").open("w") as file:
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
        pytest.param(cut_link, 1, id="link of another host"),
        pytest.param(kill_rank, 1, id="rank killed"),
        pytest.param(freeze_rank, 1, id="rank frozen"),
    ],
)
def test_a_loss_while_training_changes_no_byte(
    lose: Callable[[Host, psutil.Process], None],
    number: int,
    trained: Trained,
    tmp_path: Path,
    log: IO[str],
) -> None:
    with ray_hosts(3, QUICK) as cluster:
        training = Training(cluster, trained, tmp_path / "store", log)
        training.wait_for_checkpoint()
        ranks = training.ranks()
        assert set(ranks) == {0, 1}, training.output()
        began = time.monotonic()
        lose(*ranks[number])
        _, left = psutil.wait_procs(
            [process for _, process in ranks.values()], timeout=SECONDS_TO_NOTICE
        )
        assert left == []
        print(f"{lose.__name__} of rank {number}: {time.monotonic() - began:.1f} s")
        assert training.process.wait(HANG_SECONDS) == 0, training.output()
        print(f"  and done {time.monotonic() - began:.1f} s after it")
        assert training.ranks() == {}
    assert "Retry 1/3" in training.output()
    assert digests(training.store) == digests(trained.store)


def test_a_host_that_leaves_costs_no_step_and_changes_no_byte(
    trained: Trained, tmp_path: Path, log: IO[str]
) -> None:
    with ray_hosts(3, QUICK) as cluster:
        training = Training(cluster, trained, tmp_path / "store", log)
        training.wait_for_checkpoint()
        leaving, _ = training.ranks()[1]
        leave = cluster.start_on(leaving, sys.executable, "-m", "infra.launch.leave")
        assert leave.wait(HANG_SECONDS) == 0, training.output()
        assert leaving.marked({"MS_ROLE": "MS_WORKER"}) == []
        assert training.process.wait(HANG_SECONDS) == 0, training.output()
    (last_step,) = re.findall(
        r"all ranks have stopped \(after step (\d+) of 12, with", training.output()
    )
    assert f"resuming from step-{int(last_step):08}: " in training.output()
    assert "Retry" not in training.output()
    assert digests(training.store) == digests(trained.store)


def test_training_resumes_on_the_remaining_hosts(
    trained: Trained, tmp_path: Path, log: IO[str]
) -> None:
    with ray_hosts(2, QUICK) as cluster:
        training = Training(cluster, trained, tmp_path / "store", log)
        training.wait_for_checkpoint()
        lost, _ = training.ranks()[1]
        lost.cut()
        assert training.process.wait(HANG_SECONDS) == 0, training.output()
    assert "1 of 2 hosts, 1 ranks each" in training.output()
    store = open_store(str(training.store))
    (manifest,) = store.list("checkpoint")
    state = Checkpoint.read(store.load("checkpoint", manifest.key).path("state.json"))
    assert [layout.world_size for layout in state.layouts] == [2, 1]
    assert manifest.key == trained.of("train").key


def test_three_hosts_train_like_three_ranks_on_one(
    trained: Trained, tmp_path: Path, log: IO[str]
) -> None:
    batch = ("--set", "global_batch_size=12")
    on_one = train_command(trained.recipe, trained.images, tmp_path / "one", 3, *batch)
    ended = subprocess.run(on_one, check=True, capture_output=True, text=True)
    assert "train      built" in ended.stdout
    with ray_hosts(3, QUICK) as cluster:
        command = train_command(trained.recipe, trained.images, tmp_path / "three", 3, *batch)
        options = ("--launcher", "ray:auto", "--hosts", "3")
        process = cluster.start_on_head(*command, *options, stdout=log, stderr=log)
        assert process.wait(HANG_SECONDS) == 0, Path(log.name).read_text("utf-8")
    assert digests(tmp_path / "three") == digests(tmp_path / "one")
