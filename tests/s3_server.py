"""A real S3 server (SeaweedFS) on loopback, for the time of a test session."""

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sysconfig
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 60


@dataclass(frozen=True)
class S3Server:
    """Where it listens and who may use it; `environment` has the AWS settings for both."""

    port: int
    access_key: str
    secret_key: str
    directory: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            # No settings of whoever runs the tests.
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }


@contextlib.contextmanager
def running_s3(directory: Path) -> Iterator[S3Server]:
    """Uses four ports in a row, and the same 10,000 higher."""
    server = S3Server(_free_ports(), secrets.token_hex(8), secrets.token_hex(16), directory)
    config = directory / "s3.json"
    credentials = {"accessKey": server.access_key, "secretKey": server.secret_key}
    actions = ["Admin", "Read", "List", "Tagging", "Write"]
    identity = {"name": "tests", "credentials": [credentials], "actions": actions}
    config.write_text(json.dumps({"identities": [identity]}))
    with (directory / "server.log").open("wb") as log:
        process = subprocess.Popen(
            _command(server, config),
            env={**os.environ, "GOMEMLIMIT": "400MiB", "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait(server.port, process)
            yield server
        finally:
            # It takes 15 s to end by itself.
            process.kill()
            process.wait()


def _command(server: S3Server, config: Path) -> list[str]:
    port = server.port
    return [
        *(str(Path(sysconfig.get_path("scripts")) / "weed"), "-logtostderr=true", "server"),
        *(f"-dir={server.directory}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
        *(f"-master.port={port + 1}", "-master.volumeSizeLimitMB=64", "-master.telemetry=false"),
        *("-master.electionTimeout=1s", "-master.heartbeatInterval=100ms"),
        *(f"-volume.port={port + 2}", "-volume.max=0", "-volume.preStopSeconds=0"),
        *("-filer", f"-filer.port={port + 3}", "-s3", f"-s3.port={port}", f"-s3.config={config}"),
        *("-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false"),
        "-s3.allowDeleteBucketNotEmpty=false",
    ]


def _free_ports() -> int:
    for port in range(20000 + os.getpid() % 5000, 30000, 4):
        wanted = [base + offset for base in (port, port + 10000) for offset in range(4)]
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for number in wanted:
                stack.enter_context(socket.socket()).bind(("127.0.0.1", number))
            return port
    raise RuntimeError("no free ports")


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the S3 server ended with {process.returncode}")
        with contextlib.suppress(OSError):
            if urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz").status == 200:
                return
        time.sleep(0.1)
    raise RuntimeError("the S3 server didn't start")
