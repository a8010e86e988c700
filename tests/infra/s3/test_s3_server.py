"""The S3 server of this machine: `python -m infra.s3`."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from infra.s3.server import ServerError, serving, start, stop
from tests.documented import documented

pytestmark = pytest.mark.slow


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


def test_its_commands_start_it_say_how_to_use_it_and_stop_it(directory, monkeypatch):
    started = documented_command("python -m infra.s3 start", directory)
    assert started.returncode == 0, started.stderr
    assert f". {directory}/environment" in started.stdout
    for name, value in environment_of(directory).items():
        monkeypatch.setenv(name, value)
    boto3.session.Session().client("s3").put_object(Bucket="artifacts", Key="kept", Body=b"1")
    # Started twice it is the same; stopped and started again it has kept data and credentials.
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


def test_its_secrets_are_for_its_owner_only_and_it_listens_on_loopback_only(directory):
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
def test_a_damaged_record_of_it_is_said_in_one_line(tmp_path, content):
    directory = tmp_path
    (directory / "server.json").write_bytes(content)
    with pytest.raises(ServerError, match=r"server.json can't be read .*: remove it"):
        start(directory)
    ended = command("stop", "--directory", str(directory))
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1


def test_a_place_that_cannot_be_written_is_said_in_one_line():
    ended = command("start", "--directory", "/proc/s3")
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1


def test_what_a_dead_process_with_its_number_was_is_not_taken_for_it(directory):
    with serving(directory) as running:
        pass
    record = running.model_copy(update={"pid": os.getpid()})
    (directory / "server.json").write_text(record.model_dump_json())
    assert not stop(directory)
