"""A Prefect server and a worker for tests, which can be killed and started again."""

import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.processes import MARK, ROOT, Service
from tests.waiting import HANG_SECONDS, wait_for

FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
# As the README has them.
SERVER = ("server", "start", "--host", "127.0.0.1")
WORKER = ("worker", "start", "--pool", "sknet-process")
SHIPPED = ROOT / "infra/prefect/settings.env"
PAUSE = 0.3
"""Seconds between two questions to a server, which has other work to do."""


class PrefectServer(Service):
    """A server whose database outlives it; its clients and what they start carry its mark."""

    def __init__(self, directory: Path, settings: Mapping[str, str] | None = None) -> None:
        """Choose a free port.

        Args:
            directory: For the log, the database and Prefect's home.
            settings: Environment of the server alone.
        """
        port = free_port()
        self.api = f"http://127.0.0.1:{port}/api"
        self.mark = uuid.uuid4().hex
        self.environment = {
            "PREFECT_HOME": str(directory / "prefect"),
            "PREFECT_API_URL": self.api,
            "SKNET_HOME": str(ROOT),
            MARK: self.mark,
        }
        command = prefect_command(*SERVER, "--port", port)
        super().__init__(
            command, directory / "server.log", {**self.environment, **(settings or {})}
        )

    def start(self) -> None:
        super().start()
        wait_for(self.answers, self.log_tail, pause=PAUSE)

    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.api}/health", timeout=5).is_success
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        """Kill it with the process that serves, if that is another one."""
        for process in psutil.Process(self.process.pid).children(recursive=True):
            process.kill()
        super().kill()

    def prefect(self, *words: object, directory: Path = ROOT) -> str:
        """Run `prefect …`, by default in the repository's root, where `prefect.toml` is read."""
        return self._output(*prefect_command(*words), directory=directory)

    def deploy(self) -> None:
        """Register the pool and the deployments by Prefect's own commands, without automations."""
        self.prefect("work-pool", "create", "sknet-process", "--type", "process")
        self.prefect("deploy", "--all", "--no-prompt")

    def register(self, *options: str) -> str:
        """Run `python -m infra.prefect`: the work pool, the deployments and the automations."""
        return self._output(sys.executable, "-m", "infra.prefect", *options)

    def _output(self, *command: str, directory: Path = ROOT) -> str:
        ended = subprocess.run(
            command,
            cwd=directory,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=HANG_SECONDS,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def run(
        self,
        deployment: str,
        parameters: Mapping[str, object],
        environment: Mapping[str, str] | None = None,
    ) -> str:
        """Start a run of a deployment, as `prefect deployment run` does, in a tenth of its time.

        Args:
            deployment: Name of the flow, a slash, and name of the deployment.
            parameters: Parameters of the flow.
            environment: Variables for the run's processes.

        Returns:
            The flow run's id.
        """
        found = self.get(f"deployments/name/{deployment}")
        env = {"PREFECT_PLUGINS_ENABLED": "false", **(environment or {})}
        body = {
            "parameters": parameters,
            "state": {"type": "SCHEDULED"},
            "job_variables": {"env": env},
        }
        created = self.post(f"deployments/{found['id']}/create_flow_run", body)
        return str(created["id"])

    def get(self, path: str) -> Any:
        return answer_of(self.api, "GET", path)

    def post(self, path: str, body: object) -> Any:
        return answer_of(self.api, "POST", path, body)

    def patch(self, path: str, body: object) -> None:
        answer = httpx.patch(f"{self.api}/{path}", json=body, timeout=HANG_SECONDS)
        answer.raise_for_status()

    def runs(self, deployment: str) -> list[dict[str, Any]]:
        of_deployment = {"deployments": {"name": {"any_": [deployment]}}}
        return list(self.post("flow_runs/filter", of_deployment))

    def state_of(self, run: str) -> str:
        return str(self.get(f"flow_runs/{run}")["state_type"])

    def mark_crashed(self, run: str) -> None:
        state = {"state": {"type": "CRASHED", "message": "its process is gone"}, "force": True}
        self.post(f"flow_runs/{run}/set_state", state)


class PrefectWorker(Service):
    """A worker of the process pool; the flows that it runs write into its log."""

    def __init__(self, server: PrefectServer, settings: Mapping[str, str] | None = None) -> None:
        command = prefect_command(*WORKER)
        soon = {"PREFECT_WORKER_QUERY_SECONDS": "1"}
        log = server.log.with_name("worker.log")
        super().__init__(command, log, {**server.environment, **soon, **(settings or {})})


def answer_of(api: str, method: str, path: str, body: object = None) -> Any:
    """Return the JSON that a Prefect server answers.

    While its database is busy, the server is asked again, as Prefect's own client does.
    """
    while True:
        answer = httpx.request(method, f"{api}/{path}", json=body, timeout=HANG_SECONDS)
        if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            return answer.raise_for_status().json()
        time.sleep(PAUSE)


def shipped_settings() -> dict[str, str]:
    """Return infra/prefect's settings, as `EnvironmentFile=` and `env_file:` read them."""
    lines = SHIPPED.read_text("utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def prefect_command(*words: object) -> list[str]:
    return [str(Path(sys.executable).with_name("prefect")), *map(str, words)]


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])
