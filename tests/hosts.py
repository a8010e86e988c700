"""Hosts for tests: network namespaces on a bridge, each with an address and its own processes.

They share the file system and the clock, as hosts with a shared directory do.
"""

import os
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import pytest

from tests.processes import is_marked
from tests.system_programs import require
from tests.waiting import wait_for


@dataclass(frozen=True)
class Host:
    """One namespace."""

    namespace: str
    address: str
    outer_link: str
    """The end of its cable that is plugged into the bridge."""

    def command(self, *words: object) -> list[str]:
        """Return the command that runs `words` on this host."""
        return ["ip", "netns", "exec", self.namespace, *map(str, words)]

    def processes(self) -> list[psutil.Process]:
        """Return all processes that run on this host."""
        found = []
        for pid in _run("ip", "netns", "pids", self.namespace).split():
            try:
                found.append(psutil.Process(int(pid)))
            except psutil.NoSuchProcess:
                continue
        return found

    def marked(self, environment: Mapping[str, str]) -> list[psutil.Process]:
        """Return the living processes on this host with these variables."""
        return [process for process in self.processes() if is_marked(process, environment)]

    def cut(self) -> None:
        """Unplug the cable."""
        _run("ip", "link", "set", self.outer_link, "down")

    def mend(self) -> None:
        """Plug the cable in again."""
        _run("ip", "link", "set", self.outer_link, "up")


@contextmanager
def hosts(count: int) -> Iterator[list[Host]]:
    """Make hosts, and remove them with all that runs on them.

    Skips the test where that is not allowed.
    """
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
            _kill_all(host)
            _run("ip", "netns", "del", host.namespace)
        subprocess.run(["ip", "link", "del", bridge], check=False, capture_output=True)


def _kill_all(host: Host) -> None:
    """Kill until nothing is left: a process may start others meanwhile."""

    def none_left() -> bool:
        processes = host.processes()
        for process in processes:
            try:
                process.kill()
                process.wait(0.2)
            except (psutil.NoSuchProcess, psutil.TimeoutExpired):
                continue
        return not processes

    wait_for(none_left, lambda: str(host.processes()))


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
