"""`python -m infra.s3`, which starts and stops an S3 server on this machine."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from infra.s3.server import RunningServer, ServerError, serving, start, stop
from tests.documented import documented


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / ".s3"
    stop(tmp_path / ".s3")


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "infra.s3", *arguments], capture_output=True, text=True
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


@pytest.mark.slow
def test_secrets_are_readable_by_the_owner_only_and_ports_are_on_loopback_only(directory):
    with serving(directory) as running:
        for path in directory.iterdir():
            if path.is_file() and running.secret_key in path.read_text("utf-8", "replace"):
                assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        addresses = {
            connection.laddr.ip
            for connection in running.process.net_connections("tcp")
            if connection.status == "LISTEN"
        }
        assert addresses == {"127.0.0.1"}
    assert running.process is None


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
