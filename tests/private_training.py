"""Trainings on hosts that share nothing but an S3 server; Ray carries commands only."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from infra.artifacts import open_store
from infra.artifacts.transfer import push
from infra.s3.server import RunningServer
from sknet.data.block_order import BlockOrder
from sknet.recipe import Recipe, load_recipe
from sknet.records import Shards
from sknet.records.data import SHARDS_FILE
from sknet.records.training import METRICS_FILE
from tests.fault_proxy import Injection
from tests.private_hosts import DISK_MEGABYTES, PrivateHost, PrivateNetwork, private_network
from tests.ray_clusters import QUICK, RayHosts
from tests.store_roots import S3Root
from tests.tiny_pipeline import train_command
from tests.waiting import HANG_SECONDS, wait_for

SCRATCH = Path("/tmp")  # noqa: S108 (of each host alone)


class PrivateCluster(RayHosts):
    """Private hosts that run Ray."""

    head: PrivateHost
    workers: list[PrivateHost]

    def __init__(
        self,
        network: PrivateNetwork,
        num_workers: int,
        environment: Mapping[str, str],
        num_cpus: int,
    ) -> None:
        self.network = network
        made = [network.add() for _ in range(1 + num_workers)]
        super().__init__(made, SCRATCH, {**QUICK, **environment}, num_cpus)

    @property
    def hosts(self) -> list[PrivateHost]:
        return [self.head, *self.workers]

    def replace(self, lost: PrivateHost) -> None:
        """Kill all that runs on a worker, forget its files, and let an empty one join instead."""
        self.network.remove(lost)
        new = self.network.add()
        self.workers = [new if host == lost else host for host in self.workers]
        self.join(new)

    def count(self, name: str) -> dict[PrivateHost, Injection]:
        """Count each host's requests whose paths contain the name, from now on."""
        return {host: self.network.proxy(host).inject(name) for host in self.hosts}


@contextmanager
def private_cluster(
    server: RunningServer,
    num_workers: int,
    environment: Mapping[str, str] | None = None,
    *,
    num_cpus: int = 1,
    cache_megabytes: int = DISK_MEGABYTES,
) -> Iterator[PrivateCluster]:
    """A head and workers.

    Args:
        server: The S3 server of this machine.
        num_workers: Number of workers.
        environment: For Ray's own processes, and thus for ranks.
        num_cpus: Number of ranks for which a worker has room.
        cache_megabytes: Size of the disk of SKNET_CACHE on each host.
    """
    with private_network(server.port, cache_megabytes=cache_megabytes) as network:
        yield PrivateCluster(network, num_workers, environment or {}, num_cpus)


@dataclass(frozen=True)
class Data:
    """Images and a recipe in the order by blocks, and a local store that has their shards."""

    recipe: Path
    images: Path
    store: Path
    num_shards: int
    """Of each split."""

    @property
    def choices(self) -> Recipe:
        return load_recipe(str(self.recipe))

    def command(self, store: Path | str, ranks: int, *more: str) -> list[str]:
        """Return the command of the flow."""
        shards = ("--shards", str(self.num_shards))
        return train_command(self.recipe, self.images, store, ranks, *shards, *more)

    def push(self, root: S3Root) -> None:
        """Copy what comes before training into a store on S3."""
        local, remote = open_store(str(self.store)), open_store(root.uri)
        for kind in ("dataset", "shards"):
            for manifest in local.list(kind):
                push(local, manifest, remote)

    @property
    def shards(self) -> Shards:
        store = open_store(str(self.store), create=False)
        (manifest,) = store.list("shards")
        return Shards.read(store.load("shards", manifest.key).path(SHARDS_FILE))

    def sizes(self, split: str) -> dict[str, int]:
        """Return name → size of each file of a split."""
        sizes = {}
        for file in self.shards.files_of(split):
            sizes |= {file.name: file.size, file.index_name: file.index_size}
        return sizes

    def files_of_host(self, number: int, num_hosts: int, epoch: int) -> set[str]:
        """Return the names of the training files that a host reads in an epoch."""
        recipe, files = self.choices, self.shards.files_of("train")
        order = BlockOrder.of(
            [file.num_samples for file in files],
            parts=recipe.shuffle_parts,
            window=recipe.shuffle_window,
            batch=recipe.global_batch_size or 0,
            seed=recipe.seed,
            epoch=epoch,
        )
        own = recipe.shuffle_parts // num_hosts
        steps = order.num_samples // order.batch
        read = order.shards_of(number * own, (number + 1) * own, 0, steps)
        return {name for each in read for name in (files[each].name, files[each].index_name)}


class PrivateTraining:
    """The flow on the head of a private cluster, which trains on all workers."""

    def __init__(
        self,
        cluster: PrivateCluster,
        data: Data,
        store: str,
        ranks: int,
        log: Path,
        *options: str,
    ) -> None:
        """Copy recipe and images to the head, unless they are there, and start the flow.

        Args:
            cluster: The hosts.
            data: What to train on.
            store: URI of the store.
            ranks: Number of ranks on all hosts.
            log: A new file of this machine for the flow's output.
            options: Further options of the flow.
        """
        self.cluster, self._log = cluster, log
        for path in (data.recipe, data.images):
            if not cluster.head.at(path).exists():
                cluster.head.copy(path)
        launch = ("--launcher", "ray:auto", "--hosts", str(len(cluster.workers)), "--verbose")
        command = data.command(store, ranks, *launch, *options)
        with log.open("w") as out:
            self.process = cluster.start_on_head(*command, stdout=out, stderr=subprocess.STDOUT)

    def output(self) -> str:
        return self._log.read_text("utf-8", "replace")

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Wait until a condition holds, which it must before the flow ends."""
        wait_for(lambda: condition() or self.process.poll() is not None, self.output, pause=0.2)
        assert condition(), self.output()

    def finish(self) -> None:
        """Wait until the flow has ended well."""
        assert self.process.wait(HANG_SECONDS) == 0, self.output()

    def ranks(self) -> dict[int, tuple[PrivateHost, psutil.Process]]:
        return {
            int(process.environ()["RANK_ID"]): (host, process)
            for host in self.cluster.workers
            for process in host.marked({"MS_ROLE": "MS_WORKER"})
        }

    def hosts_in_order(self) -> list[PrivateHost]:
        """Return the workers in the order of their ranks, as the newest start of ranks says it."""
        starts = re.findall(r"\d+ of \d+ hosts, \d+ ranks each: (.+)", self.output())
        addresses = [place.split()[-1] for place in starts[-1].split(", ")]
        by_address = {host.address: host for host in self.cluster.workers}
        return [by_address[address] for address in addresses]


def paths_got(injection: Injection) -> list[str]:
    """Return the names of the files that were downloaded, as often as they were asked for."""
    return [Path(asked.path).name for asked in injection.requests if asked.method == "GET"]


def metrics(store: Path | str, kind: str) -> list[dict[str, Any]]:
    """Return the lines of one kind in metrics.jsonl of the only training of a store."""
    opened = open_store(str(store), create=False)
    (log,) = opened.list("training-log")
    lines = opened.load("training-log", log.key).path(METRICS_FILE).read_text("utf-8")
    return [line for line in map(json.loads, lines.splitlines()) if line["type"] == kind]


def losses(store: Path | str) -> list[tuple[int, float]]:
    """Return the loss of each step."""
    return [(line["step"], line["loss"]) for line in metrics(store, "step")]


def checkpoints(store: Path | str) -> dict[str, str]:
    """Return key → digest of the final checkpoints in a store."""
    found = open_store(str(store), create=False).list("checkpoint")
    return {manifest.key: manifest.digest for manifest in found}
