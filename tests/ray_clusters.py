"""Ray clusters for tests: of nodes on this machine, or of hosts with addresses of their own."""

import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.hosts import Host, hosts
from tests.processes import PYTHONPATH, ROOT

PORT = 6379
OBJECT_STORE_BYTES = 80_000_000
# The head misses a host after 5 s rather than a minute, as docs/clusters.md advises.
QUICK = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "5",
}
RAY = Path(sys.executable).with_name("ray")


@contextmanager
def cluster_of(num_nodes: int) -> Iterator[Any]:
    """A `ray.cluster_utils.Cluster` on this machine, whose nodes have one CPU each.

    The first node is the head; the others can be killed.
    """
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0"}
    with warnings.catch_warnings():
        # Ray uses what Ray has deprecated.
        warnings.simplefilter("ignore")
        from ray.cluster_utils import Cluster
    before = set(psutil.Process().children(recursive=True))
    node = {
        "num_cpus": 1,
        "object_store_memory": OBJECT_STORE_BYTES,
        "include_dashboard": False,
    }
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        for _ in range(num_nodes - 1):
            cluster.add_node(**node)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        started = set(psutil.Process().children(recursive=True)) - before
        cluster.shutdown()
        _, left = psutil.wait_procs(started, timeout=60)
        for process in left:
            process.kill()
        if left:
            raise AssertionError(f"the cluster left {left} behind")


class RayHosts:
    """Hosts that run Ray: the head, where the caller runs as on a login node, and the workers."""

    def __init__(
        self,
        made: list[Host],
        directory: Path,
        environment: Mapping[str, str],
        num_cpus: int = 1,
    ) -> None:
        """Start Ray on all hosts.

        Args:
            made: The head and the workers.
            directory: Where Ray makes its directories.
            environment: For Ray's own processes.
            num_cpus: Number of ranks for which a worker has room.
        """
        self.head, *self.workers = made
        self._directory, self._environment, self._num_cpus = directory, environment, num_cpus
        self._start(
            *(self.head, "--head", f"--port={PORT}", "--num-cpus=0", "--include-dashboard=false")
        )
        with ThreadPoolExecutor() as pool:
            list(pool.map(self.join, self.workers))

    @property
    def environment(self) -> dict[str, str]:
        """For commands on the head, which find the cluster as `ray:auto`."""
        return {
            **os.environ,
            "PYTHONPATH": PYTHONPATH,
            "RAY_ADDRESS": f"{self.head.address}:{PORT}",
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    def join(self, host: Host) -> None:
        """Start Ray on a worker."""
        cpus = f"--num-cpus={self._num_cpus}"
        self._start(host, f"--address={self.head.address}:{PORT}", cpus)

    def start_on_head(self, *command: object, **options: Any) -> subprocess.Popen[str]:
        """Start a command on the head; `options` go to `Popen`."""
        return self.start_on(self.head, *command, **options)

    def start_on(self, host: Host, *command: object, **options: Any) -> subprocess.Popen[str]:
        """Start a command on a host; `options` go to `Popen`."""
        environment = {**self.environment, **host.environment, **options.pop("env", {})}
        return subprocess.Popen(
            host.command(*command), env=environment, text=True, cwd=ROOT, **options
        )

    def _start(self, host: Host, *options: str) -> None:
        # Ray makes sockets in it, whose paths must be short.
        own = self._directory / host.namespace.rpartition("-")[2]
        started = subprocess.run(
            host.command(
                RAY,
                "start",
                *options,
                f"--node-ip-address={host.address}",
                f"--temp-dir={own}",
                f"--object-store-memory={OBJECT_STORE_BYTES}",
                "--disable-usage-stats",
            ),
            env={**os.environ, "PYTHONPATH": PYTHONPATH, **host.environment, **self._environment},
            check=False,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert started.returncode == 0, started.stdout + started.stderr


@contextmanager
def ray_hosts(count: int, environment: Mapping[str, str] | None = None) -> Iterator[RayHosts]:
    """A head and `count` workers for one rank each; `environment` is for Ray's own processes."""
    directory = Path(tempfile.mkdtemp(prefix="rh"))
    try:
        with hosts(count + 1) as made:
            yield RayHosts(made, directory, environment or {})
    finally:
        shutil.rmtree(directory, ignore_errors=True)
