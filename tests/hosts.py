"""Hosts for tests: network namespaces on a bridge, each with an address and its own processes.

They share the file system and the clock, as hosts with a shared directory do.
"""

import ctypes
import os
import socket
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.processes import is_marked
from tests.system_programs import require
from tests.waiting import wait_for

CLONE_NEWNET = 0x40000000
"""Network namespaces, of sched.h."""


@dataclass(frozen=True)
class Host:
    """One namespace."""

    namespace: str
    address: str
    outer_link: str
    """The end of its cable that is plugged into the bridge."""

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that commands on this host have, and those on others not."""
        return {}

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

    def listen(self, port: int = 0) -> socket.socket:
        """Return a socket of this process that listens at a port of this host; 0: a free one."""
        with ThreadPoolExecutor(1) as pool:  # the thread that enters the namespace ends here
            return pool.submit(self._listen, port).result()

    def _listen(self, port: int) -> socket.socket:
        with Path("/run/netns", self.namespace).open() as namespace:
            # Python has os.setns from 3.12 on.
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"can't enter {self.namespace}")
        return socket.create_server((self.address, port))

    def limit_upload(self, bits_per_second: int) -> None:
        """Let the cable carry so much from this host; what comes to it is not limited."""
        require("tc")
        # The largest packet that a host sends is one of 64 KiB, before it is cut.
        shape = ("tbf", "rate", f"{bits_per_second}bit", "burst", "128kb", "latency", "400ms")
        _run("tc", "-n", self.namespace, "qdisc", "replace", "dev", "eth0", "root", *shape)

    def cut(self) -> None:
        """Unplug the cable."""
        _run("ip", "link", "set", self.outer_link, "down")

    def mend(self) -> None:
        """Plug the cable in again."""
        _run("ip", "link", "set", self.outer_link, "up")


class Network:
    """A bridge that joins hosts, which may come and go."""

    def __init__(self) -> None:
        self._name = uuid.uuid4().hex[:6]
        self._bridge = f"br{self._name}"
        self._hosts: list[Host] = []
        self._num_added = 0
        _run("ip", "link", "add", self._bridge, "type", "bridge")
        _run("ip", "link", "set", self._bridge, "up")

    def add(self) -> Host:
        """Make a host, whose address no other one of this network has had."""
        self._num_added += 1
        number = self._num_added
        host = Host(f"sk{self._name}-{number}", f"10.77.0.{number}", f"v{self._name}{number}")
        _run("ip", "netns", "add", host.namespace)
        self._hosts.append(host)
        inner = ("peer", "name", "eth0", "netns", host.namespace)
        _run("ip", "link", "add", host.outer_link, "type", "veth", *inner)
        _run("ip", "link", "set", host.outer_link, "master", self._bridge, "up")
        within = ("ip", "-n", host.namespace)
        _run(*within, "addr", "add", f"{host.address}/24", "dev", "eth0")
        _run(*within, "link", "set", "eth0", "up")
        _run(*within, "link", "set", "lo", "up")
        return host

    def remove(self, host: Host) -> None:
        """Remove a host with all that runs on it."""
        _kill_all(host)
        _run("ip", "netns", "del", host.namespace)
        self._hosts = [other for other in self._hosts if other.namespace != host.namespace]

    def close(self) -> None:
        """Remove all hosts and the bridge."""
        for host in self._hosts:
            self.remove(host)
        _run("ip", "link", "del", self._bridge)


@contextmanager
def network() -> Iterator[Network]:
    """Make a network, and remove it with its hosts.

    Skips the test where that is not allowed.
    """
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    require("ip")
    try:
        made = Network()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr}")
    try:
        yield made
    finally:
        made.close()


@contextmanager
def hosts(count: int) -> Iterator[list[Host]]:
    """Make hosts, and remove them with all that runs on them; skips as `network` does."""
    with network() as made:
        yield [made.add() for _ in range(count)]


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
