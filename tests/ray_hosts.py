"""A Ray cluster whose nodes are hosts of their own: tests.namespaces.

The first host is the head and runs the caller, as a login node does; ranks run on the others.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.namespaces import Host, hosts

PORT = 6379
NO_DASHBOARD = "--include-dashboard=false"
# The head misses a host after 5 s rather than a minute, as docs/clusters.md advises.
QUICK = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "5",
}
RAY = Path(sys.executable).with_name("ray")
ROOT = Path(__file__).resolve().parents[1]


class RayHosts:
    """The head and the hosts for ranks."""

    def __init__(self, made: list[Host], directory: Path, extra: Mapping[str, str]) -> None:
        self.head, *self.workers = made
        self._directory, self._extra = directory, extra
        self._start(self.head, "--head", f"--port={PORT}", "--num-cpus=0", NO_DASHBOARD)
        for host in self.workers:
            self.join(host)

    @property
    def environment(self) -> dict[str, str]:
        """For commands on the head, which find the cluster as `ray:auto`."""
        return {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "RAY_ADDRESS": f"{self.head.address}:{PORT}",
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    def join(self, host: Host) -> None:
        """Start Ray on a host, for one rank."""
        self._start(host, f"--address={self.head.address}:{PORT}", "--num-cpus=1")

    def start_on_head(self, *command: object, **options: Any) -> subprocess.Popen[str]:
        """A command on the head."""
        environment: Mapping[str, str] = {**self.environment, **options.pop("env", {})}
        return subprocess.Popen(
            self.head.command(*command), env=environment, text=True, cwd=ROOT, **options
        )

    def _start(self, host: Host, *options: str) -> None:
        # Sockets lie in it, whose paths must be short
        own = self._directory / host.namespace[-1]
        started = subprocess.run(
            host.command(
                RAY,
                "start",
                *options,
                f"--node-ip-address={host.address}",
                f"--temp-dir={own}",
                "--object-store-memory=80000000",
                "--disable-usage-stats",
            ),
            env={**os.environ, "PYTHONPATH": str(ROOT), **self._extra},
            check=False,
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert started.returncode == 0, started.stdout + started.stderr


@contextmanager
def ray_hosts(count: int, extra: Mapping[str, str] | None = None) -> Iterator[RayHosts]:
    """A head and `count` hosts for one rank each; `extra` is Ray's environment."""
    directory = Path(tempfile.mkdtemp(prefix="rh"))
    try:
        with hosts(count + 1) as made:
            yield RayHosts(made, directory, extra or {})
    finally:
        shutil.rmtree(directory, ignore_errors=True)
