"""Concurrent writers, a server that is killed and restarted, and the use of memory."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.s3 import ABSENT, Bucket, Limits, PreconditionError, S3Error
from infra.s3.server import start, stop
from tests.fault_proxy import running_proxy

PART = 5 << 20
LARGE = 24 << 20


def test_one_of_sixteen_writers_wins_and_the_others_learn_its_etag(location: str) -> None:
    barrier = threading.Barrier(16)

    def write(number: int) -> str:
        bucket = Bucket(location)
        bucket.get("nothing", max_bytes=1)
        barrier.wait()
        try:
            bucket.put("key", f"writer {number}".encode(), expected=ABSENT)
        except PreconditionError as error:
            return str(error.etag)
        return "won"

    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(write, range(16)))
    stored = Bucket(location).get("key", max_bytes=100)
    assert stored is not None
    winner = int(stored.content.split()[1])
    assert outcomes == ["won" if number == winner else stored.etag for number in range(16)]


class Server:
    """A server that can be killed and restarted at the same address with the same data."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.running = start(directory, bucket="objects")

    def kill(self) -> None:
        process = self.running.process
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        process.wait(30)

    def restart(self) -> None:
        running = start(self._directory)
        assert running.environment == self.running.environment
        self.running = running

    def stop(self) -> None:
        stop(self._directory)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.running.environment.items():
            patch.setenv(name, value)
        yield server
    server.stop()


@pytest.mark.slow
def test_transfers_survive_a_server_that_is_killed_and_restarted(
    server: Server, tmp_path: Path
) -> None:
    content = random.Random(1).randbytes(LARGE)
    sha256 = hashlib.sha256(content).hexdigest()
    path = tmp_path / "file"
    path.write_bytes(content)
    limits = Limits(part_bytes=PART, threads=2)

    def up() -> None:
        bucket = Bucket("s3://objects/killed", limits=limits)
        bucket.upload(path, "key", size=LARGE, sha256=sha256, expected=ABSENT)

    def down() -> None:
        bucket = Bucket("s3://objects/killed", limits=limits)
        bucket.download("key", tmp_path / "fetched", size=LARGE, sha256=sha256)

    with running_proxy(server.running.port) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{proxy.port}")
        for act, method in ((up, "PUT"), (down, "GET")):
            injection = proxy.inject("killed/key")
            with ThreadPoolExecutor(1) as pool:
                acting = pool.submit(act)
                # Wait until the second part is requested.
                while sum(asked.method == method for asked in injection.requests) < 2:
                    assert not acting.done()
                    time.sleep(0.001)
                server.kill()
                assert not acting.done()
                server.restart()
                acting.result()
    assert (tmp_path / "fetched").read_bytes() == content


@pytest.mark.slow
def test_a_server_that_stays_away_is_reported_within_the_budget(
    server: Server, tmp_path: Path
) -> None:
    Bucket("s3://objects/away").check()
    bucket = Bucket("s3://objects/away", budget=2)
    (tmp_path / "file").write_bytes(b"content")
    server.kill()

    def fails(call: Callable[[], object]) -> float:
        started = time.monotonic()
        # The budget may end while an attempt waits for an answer.
        with pytest.raises(
            S3Error, match=r"s3://objects/away.*(Could not connect|no complete answer).*tried"
        ):
            call()
        return time.monotonic() - started

    calls: tuple[Callable[[], object], ...] = (
        lambda: bucket.get("key", max_bytes=10),
        lambda: bucket.put("key", b"content", expected=ABSENT),
        lambda: bucket.delete(["key"]),
        lambda: bucket.download("key", tmp_path / "fetched", size=7, sha256="0" * 64),
    )
    try:
        with ThreadPoolExecutor(len(calls)) as pool:
            for seconds in pool.map(fails, calls):
                assert 0.5 < seconds < 60  # the default budget is 120 s
        assert not (tmp_path / "fetched").exists()
    finally:
        server.restart()


UPLOAD_AND_DOWNLOAD = """
import resource, sys
from pathlib import Path
from infra.s3 import ANY, Bucket
bucket, path, size, sha256 = Bucket(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
bucket.upload(path, "large", size=size, sha256=sha256, expected=ANY)
bucket.download("large", path.with_name("fetched"), size=size, sha256=sha256)
assert bucket.sha256("large", size=size) == sha256
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_size_of_a_file(bucket: Bucket, tmp_path: Path) -> None:
    peaks = []
    for size in (1 << 20, 150 << 20):
        path = tmp_path / "file"
        block = random.Random(size).randbytes(1 << 20)
        digest = hashlib.sha256()
        with path.open("wb") as file:
            for number in range(size >> 20):
                content = number.to_bytes(4) + block[4:]
                digest.update(content)
                file.write(content)
        arguments = (bucket.location, path, str(size), digest.hexdigest())
        ended = subprocess.run(
            [sys.executable, "-c", UPLOAD_AND_DOWNLOAD, *arguments],
            stdout=subprocess.PIPE,
            check=True,
        )
        peaks.append(int(ended.stdout) << 10)
        (tmp_path / "fetched").unlink()
    bucket.delete(["large"])
    assert peaks[1] - peaks[0] < 40 << 20
