"""`python -m infra.s3`, which starts and stops an S3 server on this machine."""

import contextlib
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import grpc
import httpx
import pytest
from botocore.exceptions import ClientError

from infra.s3.server import RunningServer, ServerError, free_ports, start, stop
from tests.documented import documented

CONTENT = b"what only its owner may read"
REQUESTS = [
    ("GET", "artifacts/kept"),
    ("PUT", "artifacts/new"),
    ("DELETE", "artifacts/kept"),
    ("GET", "artifacts?list-type=2"),
    ("PUT", "new-bucket"),
    ("POST", "?Action=CreateUser&UserName=me"),
    ("GET", "buckets/artifacts/kept"),
    ("PUT", "buckets/artifacts/new"),
    ("DELETE", "buckets/artifacts/kept"),
    ("DELETE", "buckets/artifacts?recursive=true"),
    ("GET", "dir/assign"),
    ("GET", "dir/status"),
    ("POST", "submit"),
    ("GET", "col/delete?collection=artifacts"),
    ("GET", "1,01"),
    ("PUT", "1,01"),
    ("DELETE", "1,01"),
]


class Address(NamedTuple):
    """Where a process listens."""

    ip: str
    port: int


@dataclass(frozen=True)
class Protected:
    """A running server with one object."""

    directory: Path
    running: RunningServer

    def client(self, access_key: str = "", secret_key: str = "") -> Any:
        """Return a client of the server's user, or of another."""
        keys = (access_key, secret_key) if access_key else self.keys
        return client_of(self.running.port, *keys)

    @property
    def keys(self) -> tuple[str, str]:
        return self.running.access_key, self.running.secret_key

    @property
    def listening(self) -> list[Address]:
        """All TCP ports on which its process listens."""
        assert self.running.process is not None
        connections = self.running.process.net_connections("tcp")
        return [Address(*each.laddr) for each in connections if each.status == "LISTEN"]

    @property
    def sockets(self) -> list[Path]:
        """All sockets of its process in the file system."""
        assert self.running.process is not None
        connections = self.running.process.net_connections("unix")
        return [Path(each.laddr) for each in connections if each.laddr]

    def check_untouched(self) -> None:
        client = self.client()
        (only,) = client.list_objects_v2(Bucket="artifacts")["Contents"]
        assert only["Key"] == "kept"
        assert client.get_object(Bucket="artifacts", Key="kept")["Body"].read() == CONTENT
        assert len(client.list_buckets()["Buckets"]) == 1


def client_of(port: int, access_key: str, secret_key: str) -> Any:
    return boto3.session.Session().client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name="us-east-1",
    )


def field(number: int, value: bytes) -> bytes:
    """Return a field of bytes of a Protocol Buffers message."""
    return bytes([number << 3 | 2, len(value)]) + value


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / ".s3"
    stop(tmp_path / ".s3")


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "infra.s3", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def documented_command(start: str, directory: Path) -> subprocess.CompletedProcess[str]:
    words = documented(start, {".s3": directory}, page="infra/s3/README.md")
    return command(*words[3:])


def environment_of(directory: Path) -> dict[str, str]:
    lines = (directory / "environment").read_text().splitlines()
    return dict(line.removeprefix("export ").split("=", 1) for line in lines)


@pytest.mark.slow
def test_the_documented_commands_start_and_stop_a_server_that_keeps_its_data(
    directory, monkeypatch
):
    started = documented_command("python -m infra.s3 start", directory)
    assert started.returncode == 0, started.stderr
    assert f". {directory}/environment" in started.stdout
    for name, value in environment_of(directory).items():
        monkeypatch.setenv(name, value)
    boto3.session.Session().client("s3").put_object(Bucket="artifacts", Key="kept", Body=b"1")
    # A second start finds it running; after stop and start, data and credentials are the same.
    again = command("start", "--directory", str(directory), "--bucket", "another")
    assert again.stdout.startswith("S3 on")
    buckets = boto3.session.Session().client("s3").list_buckets()["Buckets"]
    assert [bucket["Name"] for bucket in buckets] == ["another", "artifacts"]
    before = environment_of(directory)
    stopped = documented_command("python -m infra.s3 stop", directory)
    assert stopped.stdout == "stopped\n"
    assert command("stop", "--directory", str(directory)).stdout == "no server runs there\n"
    assert start(directory).environment == before
    answer = boto3.session.Session().client("s3").get_object(Bucket="artifacts", Key="kept")
    assert answer["Body"].read() == b"1"


@pytest.fixture(scope="module")
def protected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Protected]:
    """A server with one object, started by somebody who has AWS keys for other services."""
    directory = tmp_path_factory.mktemp("protected")
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ACCESS_KEY_ID", "of-another-service")
            patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
            result = Protected(directory, start(directory, bucket="artifacts"))
        result.client().put_object(Bucket="artifacts", Key="kept", Body=CONTENT)
        yield result
        sockets = result.sockets
    finally:
        stop(directory)
    assert result.running.process is None
    assert not any(path.exists() for path in sockets)


@pytest.mark.slow
def test_only_the_owner_can_read_its_files_and_use_its_sockets(protected):
    assert protected.sockets
    for path in (*protected.directory.iterdir(), *protected.sockets):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


@pytest.mark.slow
def test_all_its_ports_are_on_loopback(protected):
    ports = {connection.port for connection in protected.listening}
    # S3, master, volume server and filer, each with HTTP and gRPC.
    assert ports == {protected.running.port + n for n in (0, 1, 2, 3, 10000, 10001, 10002, 10003)}
    assert {connection.ip for connection in protected.listening} == {"127.0.0.1"}


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_every_port_refuses_http_without_credentials(protected, scheme):
    """The paths are those of S3, the filer, the master and the volume server."""
    answers = []
    for address in protected.listening:
        root = f"{scheme}://{address.ip}:{address.port}"
        for method, path in REQUESTS:
            with contextlib.suppress(httpx.TransportError):
                answer = httpx.request(
                    method,
                    f"{root}/{path}",
                    content=CONTENT,
                    verify=False,  # noqa: S501 (a stranger doesn't ask who answers)
                    timeout=10,
                )
                answers.append((answer.status_code, method, f"{root}/{path}"))
                assert answer.is_error, answers[-1]
                assert CONTENT not in answer.content
    assert bool(answers) == (scheme == "http")  # where TLS is spoken, the connection ends
    protected.check_untouched()


@pytest.mark.slow
def test_every_port_refuses_grpc_without_credentials(protected):
    """An unprotected filer executes these: on 4.48 without certificates, all three succeed."""
    directory, name = field(1, b"/buckets/artifacts"), b"kept"
    calls = {
        "LookupDirectoryEntry": directory + field(2, name),
        "CreateEntry": directory + field(2, field(1, b"new")),
        "DeleteEntry": directory + field(2, name) + b"\x20\x01",
    }
    for address in protected.listening:
        with grpc.insecure_channel(f"{address.ip}:{address.port}") as channel:
            for method, request in calls.items():
                call = channel.unary_unary(f"/filer_pb.SeaweedFiler/{method}")
                with pytest.raises(grpc.RpcError) as refused:
                    call(request, timeout=10)
                # UNIMPLEMENTED would say that a part without this method listened.
                assert refused.value.code() == grpc.StatusCode.UNAVAILABLE, (address, method)
    protected.check_untouched()


@pytest.mark.slow
def test_the_keys_of_another_service_are_no_keys_of_this_one(protected):
    with pytest.raises(ClientError, match="InvalidAccessKeyId"):
        protected.client("of-another-service", "secret").list_buckets()


@pytest.mark.slow
def test_in_the_foreground_it_has_the_users_of_its_environment_and_ends_with_its_process(tmp_path):
    """As compose runs it, but on loopback."""
    names = {"AWS_ACCESS_KEY_ID": "compose-key", "AWS_SECRET_ACCESS_KEY": "compose-secret"}
    port = free_ports()
    words = ["run", "--directory", str(tmp_path), "--bucket", "artifacts", "--port", str(port)]
    process = subprocess.Popen(
        [sys.executable, "-m", "infra.s3", *words],
        env={**os.environ, **names},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"s3://artifacts on 127.0.0.1:{port}\n"
        running = RunningServer.model_validate_json((tmp_path / "server.json").read_bytes())
        buckets = client_of(port, *names.values()).list_buckets()["Buckets"]
        assert [bucket["Name"] for bucket in buckets] == ["artifacts"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert running.process is None


@pytest.mark.slow
def test_in_the_foreground_it_leaves_a_running_server_alone(protected):
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s"}
    ended = command("run", "--directory", str(protected.directory), **keys)
    assert ended.returncode == 1
    assert ended.stderr == (
        f"error: a server runs in {protected.directory} already: stop it first\n"
    )
    protected.check_untouched()


def test_in_the_foreground_it_needs_a_user():
    ended = command("run", "--directory", "/proc/s3", AWS_SECRET_ACCESS_KEY="")
    assert ended.returncode == 2
    assert ended.stderr == (
        "error: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY must be set: the server's user has "
        "them\n"
    )


@pytest.mark.parametrize("content", [b"", b"{", b'{"pid": "1"}'])
def test_a_damaged_server_file_is_reported_in_one_line(tmp_path, content):
    (tmp_path / "server.json").write_bytes(content)
    with pytest.raises(ServerError, match=r"server.json can't be read .*: remove it"):
        start(tmp_path)
    ended = command("stop", "--directory", str(tmp_path))
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1


def test_a_directory_that_cannot_be_written_is_reported_in_one_line():
    ended = command("start", "--directory", "/proc/s3")
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1


def test_another_process_with_the_pid_of_a_dead_server_is_not_stopped(tmp_path):
    dead = RunningServer(pid=os.getpid(), started=0.0, port=1, access_key="a", secret_key="s")
    (tmp_path / "server.json").write_text(dead.model_dump_json())
    assert not stop(tmp_path)
