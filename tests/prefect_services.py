"""A Prefect server and a worker of a test's own, which can be killed and started again."""

import json
import os
import re
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import httpx
import psutil

from tests.runs import MARK, WITH_SIGINT, wait_for
from tests.tiny_pipeline import ROOT, end

SECONDS_TO_START = 120
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
# As the README has them.
SERVER = ("server", "start", "--host", "127.0.0.1")
WORKER = ("worker", "start", "--pool", "sknet-process")
SHIPPED = ROOT / "infra/prefect/settings.env"


class Service:
    """A program that a test starts, at the root of the repository; a context while it runs."""

    def __init__(self, command: list[str], log: Path, environment: Mapping[str, str]) -> None:
        self._command, self._environment = command, environment
        self.log = log
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def process(self) -> subprocess.Popen[str]:
        assert self._process is not None, "it was not started"
        return self._process

    def start(self) -> None:
        with self.log.open("a") as out:
            self._process = subprocess.Popen(
                [*WITH_SIGINT, *self._command],
                cwd=ROOT,
                env={**os.environ, **self._environment},
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def said(self) -> str:
        """The end of its log."""
        return self.log.read_text("utf-8", "replace")[-5000:]

    def kill(self) -> None:
        """This process, and none of what it has started."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self._process is not None:
            end(self._process)


class PrefectServer(Service):
    """With a database that outlives it. All that it and its clients start carries its mark."""

    def __init__(self, place: Path, settings: Mapping[str, str] | None = None) -> None:
        """`settings` are of the server alone."""
        port = free_port()
        self.api = f"http://127.0.0.1:{port}/api"
        self.mark = uuid.uuid4().hex
        self.environment = {
            "PREFECT_HOME": str(place / "prefect"),
            "PREFECT_API_URL": self.api,
            "SKNET_HOME": str(ROOT),
            MARK: self.mark,
        }
        command = prefect_command(*SERVER, "--port", port)
        super().__init__(command, place / "server.log", {**self.environment, **(settings or {})})

    def start(self) -> None:
        super().start()
        wait_for(self.answers, SECONDS_TO_START, self.said)

    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.api}/health", timeout=5).is_success
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        """With the process that serves, if that is another one."""
        for process in psutil.Process(self.process.pid).children(recursive=True):
            process.kill()
        super().kill()

    def prefect(self, *words: object) -> str:
        """Run `prefect …` in the repository's root, as `prefect.toml` is read there."""
        ended = subprocess.run(
            prefect_command(*words),
            cwd=ROOT,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def deploy(self) -> None:
        self.prefect("work-pool", "create", "sknet-process", "--type", "process")
        self.prefect("deploy", "--all", "--no-prompt")

    def run(self, parameters: Mapping[str, object], environment: Mapping[str, str]) -> str:
        """Start train-sknet with these variables in its processes' environment; return its id."""
        own = {"PREFECT_PLUGINS_ENABLED": "false", **environment}
        options = [
            word
            for name, value in parameters.items()
            for word in ("--param", f"{name}={json.dumps(value)}")
        ]
        said = self.prefect(
            *("deployment", "run", "train-sknet/train-sknet", *options),
            *("--job-variable", f"env={json.dumps(own)}"),
        )
        (run,) = set(re.findall(UUID, said))
        return run

    def post(self, path: str, body: object) -> Any:
        answer = httpx.post(f"{self.api}/{path}", json=body, timeout=30)
        return answer.raise_for_status().json()

    def runs(self, deployment: str) -> list[dict[str, Any]]:
        of_deployment = {"deployments": {"name": {"any_": [deployment]}}}
        return list(self.post("flow_runs/filter", of_deployment))

    def state_of(self, run: str) -> str:
        answer = httpx.get(f"{self.api}/flow_runs/{run}", timeout=30)
        return str(answer.raise_for_status().json()["state_type"])

    def mark_crashed(self, run: str) -> None:
        state = {"state": {"type": "CRASHED", "message": "its process is gone"}, "force": True}
        httpx.post(f"{self.api}/flow_runs/{run}/set_state", json=state).raise_for_status()


class PrefectWorker(Service):
    """Of the process pool; what it runs writes into its log."""

    def __init__(self, server: PrefectServer, settings: Mapping[str, str] | None = None) -> None:
        command = prefect_command(*WORKER)
        soon = {"PREFECT_WORKER_QUERY_SECONDS": "1"}
        log = server.log.with_name("worker.log")
        super().__init__(command, log, {**server.environment, **soon, **(settings or {})})


def eventually(condition: Callable[[], bool], seconds: float, explain: Callable[[], str]) -> None:
    """As `wait_for`, for what asks a server: that has other work to do."""
    wait_for(condition, seconds, explain, pause=0.3)


def shipped_settings() -> dict[str, str]:
    """Of infra/prefect, as `EnvironmentFile=` and `env_file:` read them."""
    lines = SHIPPED.read_text("utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def prefect_command(*words: object) -> list[str]:
    return [str(Path(sys.executable).with_name("prefect")), *map(str, words)]


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])
