"""Hosts that share nothing: no file of one is seen elsewhere, each has a way to the server."""

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.fault_proxy import Fault
from tests.private_hosts import CACHE, PrivateHost, PrivateNetwork, private_network
from tests.processes import ROOT

pytestmark = pytest.mark.slow

CONTENT = bytes(500_000)
MORE_THAN_CACHE = (1 << 20) + 1
DOWNLOAD = "import sys, urllib.request; print(len(urllib.request.urlopen(sys.argv[1]).read()))"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Of a server of this machine."""
    directory = tmp_path_factory.mktemp("served")
    (directory / "file").write_bytes(CONTENT)
    handler = partial(SimpleHTTPRequestHandler, directory=directory)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def net(port: int) -> Iterator[PrivateNetwork]:
    with private_network(port, cache_megabytes=1) as made:
        yield made


@pytest.fixture
def add(net: PrivateNetwork) -> Iterator[Callable[[], PrivateHost]]:
    """Makes hosts that end with the test."""
    made: list[PrivateHost] = []

    def add_one() -> PrivateHost:
        made.append(net.add())
        return made[-1]

    yield add_one
    for host in made:
        net.remove(host)


def on(host: PrivateHost, *words: object) -> str:
    """Run a command on the host and return what it printed."""
    return subprocess.run(host.command(*words), check=True, capture_output=True, text=True).stdout


def sees(host: PrivateHost, path: Path) -> bool:
    return subprocess.run(host.command("test", "-e", path), check=False).returncode == 0


def download(host: PrivateHost) -> float:
    """Get the served file; return the seconds."""
    began = time.monotonic()
    printed = on(host, sys.executable, "-c", DOWNLOAD, f"{host.endpoint}/file")
    assert int(printed) == len(CONTENT)
    return time.monotonic() - began


def test_a_file_of_a_host_is_seen_nowhere_else(
    add: Callable[[], PrivateHost], tmp_path: Path
) -> None:
    one, other = add(), add()
    shared = (Path("/dev/shm"), Path("/var/tmp"))  # noqa: S108 (of this machine, by all its users)
    for place in (*shared, tmp_path, Path(tempfile.gettempdir()), one.home, CACHE):
        path = place / f"{tmp_path.name}-{one.namespace}"
        on(one, "sh", "-c", 'mkdir -p "$1" && touch "$2"', "sh", place, path)
        assert sees(one, path)
        assert not sees(other, path)
        assert not path.exists()


def test_a_host_sees_the_installation_and_can_change_nothing_of_this_machine(
    add: Callable[[], PrivateHost], tmp_path: Path
) -> None:
    host = add()
    own = tmp_path / "own"
    own.write_text("of this machine")
    assert not sees(host, own)
    assert on(host, sys.executable, "-c", "import tests; print(tests.__path__[0])") == (
        f"{ROOT / 'tests'}\n"
    )
    for place in (ROOT, Path(sys.prefix), Path("/")):
        with pytest.raises(subprocess.CalledProcessError):
            on(host, "touch", place / host.namespace)
    host.copy(own)
    assert on(host, "cat", own) == "of this machine"


def test_a_host_is_replaced_by_an_empty_one(
    add: Callable[[], PrivateHost], net: PrivateNetwork, recipe: Path
) -> None:
    lost = net.add()
    lost.copy(recipe)
    with subprocess.Popen(lost.command("sleep", "infinity")) as running:
        net.remove(lost)
        running.wait(5)
    new = add()
    assert not sees(new, recipe)
    assert new.address != lost.address


def test_the_cache_of_a_host_is_a_disk_of_its_own_that_can_be_full(
    add: Callable[[], PrivateHost],
) -> None:
    host = add()
    for directory, fits in ((CACHE, False), (host.home, True)):
        command = host.command("head", "--bytes", MORE_THAN_CACHE, "/dev/zero")
        with host.at(directory / "file").open("wb") as file:
            ended = subprocess.run(command, stdout=file, stderr=subprocess.PIPE, check=False)
        assert (ended.returncode == 0) == fits


def test_the_requests_of_each_host_are_counted_apart(
    add: Callable[[], PrivateHost], net: PrivateNetwork
) -> None:
    one, other = add(), add()
    of_one, of_other = (net.proxy(host).inject("/file") for host in (one, other))
    download(one)
    assert [len(each.requests) for each in (of_one, of_other)] == [1, 0]
    assert [each.num_bytes for each in (of_one, of_other)] == [len(CONTENT), 0]
    net.proxy(other).inject("/file", Fault.RESET_BEFORE)
    with pytest.raises(subprocess.CalledProcessError):
        download(other)
    download(one)
    with net.refusing(other), pytest.raises(subprocess.CalledProcessError):
        download(other)
    download(other)


def test_what_the_server_sends_is_limited(port: int) -> None:
    with private_network(port) as net:
        host = net.add()
        net.limit_server(8 * 200_000)
        # The cable lets a burst of 128 KiB pass at once.
        assert download(host) > (len(CONTENT) - (128 << 10)) / 200_000
