"""Prefect servers and workers with chosen settings, for tests that need their own."""

import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
from test_deployment_cycle import Server, eventually, free_port, prefect_command

from tests.documented import ROOT
from tests.tiny_pipeline import end

SECONDS_TO_START = 120
SETTINGS = ROOT / "infra/prefect/settings.env"


def shipped_settings() -> dict[str, str]:
    """As `EnvironmentFile=` and `env_file:` read them."""
    lines = SETTINGS.read_text("utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@contextmanager
def prefect_server(place: Path, settings: Mapping[str, str]) -> Iterator[Server]:
    """A server on loopback, with the shipped settings and these."""
    port = free_port()
    server = Server(f"http://127.0.0.1:{port}/api", place / "prefect", uuid.uuid4().hex)
    command = prefect_command("server", "start", "--host", "127.0.0.1", "--port", port)
    environment = {**server.environment, **shipped_settings(), **settings}
    with running(command, environment, place / "server.log") as log:
        eventually(lambda: is_healthy(server), SECONDS_TO_START, log)
        yield server


@contextmanager
def prefect_worker(server: Server, place: Path) -> Iterator[Path]:
    """A worker of the pool that the deployments name; yields its log."""
    command = prefect_command("worker", "start", "--pool", "sknet-process")
    settings = {**shipped_settings(), "PREFECT_WORKER_QUERY_SECONDS": "1"}
    with running(command, {**server.environment, **settings}, place / "worker.log") as log:
        yield log


@contextmanager
def running(command: list[str], environment: Mapping[str, str], log: Path) -> Iterator[Path]:
    """A process for the time of a context."""
    with log.open("a") as out:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT, text=True
        )
    try:
        yield log
    finally:
        end(process)


def is_healthy(server: Server) -> bool:
    try:
        return httpx.get(f"{server.api}/health", timeout=5).is_success
    except httpx.TransportError:
        return False


def run_module(server: Server, name: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m NAME` against the server."""
    return subprocess.run(
        [sys.executable, "-m", name],
        cwd=ROOT,
        env={**server.environment, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
