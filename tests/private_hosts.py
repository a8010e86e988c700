"""Hosts that share nothing but a network and a server: each has directories of its own.

A host is a network namespace with a mount namespace. There, empty directories in memory cover those
of this machine in which programs write, and all others can only be read. So the installation is the
same everywhere, and a file that one host writes can be seen by no other, nor by this machine.

They still share the kernel, the clock and the numbers of processes.

The server is one of this machine. Each host reaches it through a proxy of its own on the network,
which counts the host's requests and can give them a fault.
"""

import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fault_proxy import FaultProxy
from tests.hosts import Host, Network, network
from tests.processes import ROOT
from tests.system_programs import require

CACHE = Path("/tmp/cache")  # noqa: S108 (of each host alone)
"""SKNET_CACHE of a host, on a disk of its own."""
DISK_MEGABYTES = 1024
"""Size of each directory that a host has for itself; it takes the memory that it holds."""


@dataclass(frozen=True)
class PrivateHost(Host):
    """A host with directories of its own."""

    anchor: int
    """A process that lives in both namespaces for as long as the host."""
    home: Path
    endpoint: str
    """The S3 server's address for this host."""

    @property
    def environment(self) -> Mapping[str, str]:
        return {
            "HOME": str(self.home),
            "TMPDIR": "/tmp",  # noqa: S108 (of this host alone)
            "SKNET_CACHE": str(CACHE),
            "PREFECT_HOME": str(self.home / "prefect"),
            "AWS_ENDPOINT_URL_S3": self.endpoint,
        }

    def command(self, *words: object) -> list[str]:
        # The working directory of nsenter is one of this machine.
        entered = ["nsenter", "--mount", "--net", "--target", str(self.anchor), "--"]
        return [*entered, "env", f"--chdir={ROOT}", *map(str, words)]

    def at(self, path: Path) -> Path:
        """Return where this machine sees a path of the host, for as long as the host lives."""
        return Path(f"/proc/{self.anchor}/root") / path.relative_to("/")

    def copy(self, source: Path) -> None:
        """Copy a file or directory of this machine to the same path on the host."""
        target = self.at(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copyfile(source, target)


class PrivateNetwork:
    """Private hosts that reach one server of this machine."""

    def __init__(self, made: Network, port: int, cache_megabytes: int) -> None:
        """Begin with no host.

        Args:
            made: The network.
            port: The server's port on this machine.
            cache_megabytes: Size of the disk of SKNET_CACHE on each host.
        """
        self._network, self._port, self._cache_megabytes = made, port, cache_megabytes
        self._server = made.add()
        self._anchors: dict[PrivateHost, subprocess.Popen[str]] = {}
        self._proxies: dict[PrivateHost, FaultProxy] = {}

    def add(self) -> PrivateHost:
        """Make an empty host."""
        host = self._network.add()
        anchor = _anchor(host, self._cache_megabytes)
        proxy = FaultProxy(self._port, self._server.listen())
        private = PrivateHost(
            namespace=host.namespace,
            address=host.address,
            outer_link=host.outer_link,
            anchor=anchor.pid,
            home=Path.home(),
            endpoint=f"http://{self._server.address}:{proxy.port}",
        )
        self._anchors[private], self._proxies[private] = anchor, proxy
        return private

    def remove(self, host: PrivateHost) -> None:
        """Kill all that runs on a host, and forget its files."""
        self._network.remove(host)
        self._anchors.pop(host).communicate()
        self._proxies.pop(host).close()

    def proxy(self, host: PrivateHost) -> FaultProxy:
        """Return the way of a host to the server."""
        return self._proxies[host]

    def limit_server(self, bits_per_second: int) -> None:
        """Let the server send so much to all hosts together; hosts reach each other as before."""
        self._server.limit_upload(bits_per_second)

    @contextmanager
    def refusing(self, host: PrivateHost) -> Iterator[None]:
        """Refuse the connections of a host to the server in this context.

        Earlier injections into its requests end.
        """
        old = self._proxies[host]
        old.close()
        yield
        self._proxies[host] = FaultProxy(self._port, self._server.listen(old.port))

    def close(self) -> None:
        """Remove all hosts."""
        for host in [*self._anchors]:
            self.remove(host)


@contextmanager
def private_network(
    port: int, *, cache_megabytes: int = DISK_MEGABYTES
) -> Iterator[PrivateNetwork]:
    """Make a network for private hosts; the arguments are those of `PrivateNetwork`.

    Skips the test where that is not allowed.
    """
    for program in ("nsenter", "unshare", "mount"):
        require(program)
    with network() as made:
        private = PrivateNetwork(made, port, cache_megabytes)
        try:
            yield private
        finally:
            private.close()


def _anchor(host: Host, cache_megabytes: int) -> subprocess.Popen[str]:
    """Give a host its directories, and return the process that keeps them."""
    process = subprocess.Popen(
        host.command("unshare", "--mount", "sh", "-euc", _script(cache_megabytes)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        pytest.skip(f"no mount namespaces here: {process.communicate()[1]}")
    return process


def _script(cache_megabytes: int) -> str:
    """Return what makes the directories and then sleeps.

    Directories of the installation that would be covered are kept open meanwhile, and shown again.
    """
    used = [Path("/tmp"), Path("/var/tmp"), Path.home(), _scratch()]  # noqa: S108 (covered on the host)
    covered = _outermost(used)
    installed = _outermost([ROOT, Path(sys.prefix), Path(sys.base_prefix)])
    kept = [path for path in installed if any(path.is_relative_to(each) for each in covered)]
    disk = f"mount -t tmpfs -o size={DISK_MEGABYTES}m tmpfs"
    lines = ["mount --make-rprivate /"]
    lines += [f"exec {number}<{_quoted(path)}" for number, path in enumerate(kept, 3)]
    own = (*covered, Path("/dev/shm"))  # noqa: S108 (of the host alone)
    lines += [f"{disk} {_quoted(path)}" for path in own]
    for number, path in enumerate(kept, 3):
        lines += [
            f"mkdir -p {_quoted(path)}",
            f"mount --no-canonicalize --bind /proc/self/fd/{number} {_quoted(path)}",
            f"mount -o remount,bind,ro {_quoted(path)}",
            f"exec {number}<&-",
        ]
    lines += [f"mkdir -p {_quoted(path)}" for path in used]  # some may be below others
    lines += [
        "mount -o remount,bind,ro /",
        f"mkdir {CACHE}",
        f"mount -t tmpfs -o size={cache_megabytes}m tmpfs {CACHE}",
        "echo ready",
        "exec sleep infinity",
    ]
    return "\n".join(lines)


def _scratch() -> Path:
    return Path(tempfile.gettempdir())


def _outermost(paths: list[Path]) -> list[Path]:
    """Return the directories that are below none of the others."""
    found = {path.resolve() for path in paths if path.is_dir()}
    return sorted(path for path in found if not found & {*path.parents})


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
