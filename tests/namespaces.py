"""Hosts of a test's own: network namespaces on a bridge, each with an address and its processes.

They share the file system and the clock, as hosts with a shared directory do.
"""

import os
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import pytest

from tests.programs import require


@dataclass(frozen=True)
class Host:
    """One namespace."""

    namespace: str
    address: str
    outer_link: str
    """The end of its cable that lies in the bridge."""

    def command(self, *words: object) -> list[str]:
        """The command, to be run on this host."""
        return ["ip", "netns", "exec", self.namespace, *map(str, words)]

    def processes(self) -> list[psutil.Process]:
        """All that run on this host."""
        found = []
        for pid in _run("ip", "netns", "pids", self.namespace).split():
            try:
                found.append(psutil.Process(int(pid)))
            except psutil.NoSuchProcess:
                continue
        return found

    def marked(self, environment: Mapping[str, str]) -> list[psutil.Process]:
        """The living processes on this host with these variables."""
        found = []
        for process in self.processes():
            try:
                alive = process.status() != psutil.STATUS_ZOMBIE
                if alive and environment.items() <= process.environ().items():
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def cut(self) -> None:
        """Pull the cable."""
        _run("ip", "link", "set", self.outer_link, "down")

    def mend(self) -> None:
        """Plug it in again."""
        _run("ip", "link", "set", self.outer_link, "up")


@contextmanager
def hosts(count: int) -> Iterator[list[Host]]:
    """So many hosts, gone afterwards with all that runs on them. Skips where that isn't allowed."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    require("ip")
    name = uuid.uuid4().hex[:6]
    bridge = f"br{name}"
    made: list[Host] = []
    try:
        try:
            _run("ip", "link", "add", bridge, "type", "bridge")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr}")
        _run("ip", "link", "set", bridge, "up")
        for number in range(1, count + 1):
            host = Host(f"sk{name}-{number}", f"10.77.0.{number}", f"v{name}{number}")
            _run("ip", "netns", "add", host.namespace)
            made.append(host)
            inner = ("peer", "name", "eth0", "netns", host.namespace)
            _run("ip", "link", "add", host.outer_link, "type", "veth", *inner)
            _run("ip", "link", "set", host.outer_link, "master", bridge, "up")
            within = ("ip", "-n", host.namespace)
            _run(*within, "addr", "add", f"{host.address}/24", "dev", "eth0")
            _run(*within, "link", "set", "eth0", "up")
            _run(*within, "link", "set", "lo", "up")
        yield made
    finally:
        for host in made:
            _end_all(host)
            _run("ip", "netns", "del", host.namespace)
        subprocess.run(["ip", "link", "del", bridge], check=False, capture_output=True)


def _end_all(host: Host) -> None:
    deadline = time.monotonic() + 20
    while processes := host.processes():
        assert time.monotonic() < deadline, processes
        for process in processes:
            try:
                process.kill()
                process.wait(0.2)
            except (psutil.NoSuchProcess, psutil.TimeoutExpired):
                continue


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
