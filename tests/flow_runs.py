"""Runs of train-sknet that a test starts, interrupts, and starts again."""

import os
import subprocess
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

import psutil
from prefect.settings import PREFECT_API_URL

from tests.prefect_services import FINAL, PrefectServer, PrefectWorker
from tests.processes import MARK, ROOT, WITH_SIGINT, processes_marked
from tests.tiny_pipeline import Trained
from tests.waiting import wait_for

# A task is at work when its program runs and the first of these files exists.
AT_WORK = {
    "convert": ".work/shards/*/logs/convert-*/*",
    "train": ".work/checkpoint/*/checkpoints/step-*",
    "validate": ".work/evaluation/*/logs/validate-*/*",
}
CRASHED_UNREPORTED = "RUNNING without a process"
SECONDS_WITHOUT_PROCESS = 30
"""A run that has had no process for so long will not end by itself."""


class FlowRun(ABC):
    """A run whose processes all carry its mark in their environment."""

    def __init__(self, log: Path, environment: Mapping[str, str]) -> None:
        self.mark = uuid.uuid4().hex
        self.environment = {**environment, MARK: self.mark}
        self._log = log
        self._from = log.stat().st_size if log.exists() else 0
        self.num_starts = 0

    @abstractmethod
    def start(self) -> None:
        """Start the same command, for the first time or again."""

    @abstractmethod
    def is_over(self) -> bool:
        """Tell whether it has ended, well or not."""

    @abstractmethod
    def ended_as(self) -> str:
        """Return its exit code or state; `0` or `COMPLETED` if it ended well."""

    @abstractmethod
    def flow(self) -> psutil.Process:
        """Return the process of the flow itself."""

    @property
    def is_done(self) -> bool:
        return self.is_over() and self.ended_as() in ("0", "COMPLETED")

    def output(self) -> str:
        """Return what this run has written into its log, which may hold earlier runs' too."""
        with self._log.open("rb") as log:
            log.seek(self._from)
            return log.read().decode("utf-8", "replace")

    def living(self) -> list[psutil.Process]:
        return processes_marked(MARK, self.mark)

    def wait_until_gone(self) -> None:
        """Wait until none of its processes is left."""
        wait_for(lambda: not self.living(), lambda: str(self.living()))

    def end(self) -> None:
        """Kill what is left of it."""
        for process in self.living():
            process.kill()

    def ranks(self) -> dict[int, psutil.Process]:
        """Return the processes that train, by rank."""
        return {
            int(process.environ()["RANK_ID"]): process
            for process in self._of_role("MS_WORKER")
            if runs_program(process, "train.py")
        }

    def schedulers(self) -> list[psutil.Process]:
        return self._of_role("MS_SCHED")

    def converters(self) -> list[psutil.Process]:
        """Return the worker processes of the conversion."""
        return [
            process
            for program in self.living()
            if runs_program(program, "convert.py")
            for process in program.children()
            if any("spawn_main" in word for word in process.cmdline())
        ]

    def _of_role(self, role: str) -> list[psutil.Process]:
        return [each for each in self.living() if each.environ().get("MS_ROLE") == role]


class CommandRun(FlowRun):
    """`python -m flows.train_sknet …`, in a session of its own."""

    def __init__(
        self, command: list[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        """Without PREFECT_API_URL in `environment`, the command starts a temporary server."""
        super().__init__(log, environment or {})
        self._command = command
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        self.num_starts += 1
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [*WITH_SIGINT, *self._command],
                cwd=ROOT,
                env={**os.environ, **self.environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started.append(process)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process that was started last."""
        return self._started[-1]

    def is_over(self) -> bool:
        return self.process.poll() is not None

    def ended_as(self) -> str:
        return str(self.process.returncode)

    def flow(self) -> psutil.Process:
        return psutil.Process(self.process.pid)

    def end(self) -> None:
        super().end()
        for process in self._started:
            process.wait()

    def wait(self) -> int:
        """Wait until it has ended; return its exit code."""
        wait_for(self.is_over, self.output)
        return self.process.returncode

    def is_running(self, program: str) -> bool:
        """Tell whether one of its processes runs this file."""
        return any(runs_program(process, program) for process in self.living())

    def kill_in(self, task: str, store: Path) -> None:
        """Start the run, kill the flow's process in a task, and wait until all others have ended.

        Args:
            task: A key of AT_WORK.
            store: Directory of the run's store.
        """
        self.start()
        wait_for(
            lambda: (
                self.is_over() or (any(store.glob(AT_WORK[task])) and self.is_running(f"{task}.py"))
            ),
            self.output,
        )
        assert not self.is_over(), f"ended before it could be killed:\n{self.output()}"
        self.process.kill()
        self.wait()
        self.wait_until_gone()


class DeploymentRun(FlowRun):
    """A run of the deployment train-sknet/train-sknet, by a worker."""

    def __init__(
        self,
        trained: Trained,
        store: str,
        server: PrefectServer,
        worker: PrefectWorker,
        environment: Mapping[str, str],
    ) -> None:
        super().__init__(worker.log, environment)
        self._server = server
        self._parameters = {
            "recipe": str(trained.recipe),
            "data": str(trained.images),
            "store": store,
            "workers": 2,
        }
        self.run = ""
        """Id of the flow run."""
        self._state = ""
        self._last_seen_alive = 0.0

    def start(self) -> None:
        """Start a new run, or retry the last one if it failed."""
        self.num_starts += 1
        if self.run and self._state in ("CRASHED", "FAILED", CRASHED_UNREPORTED):
            self._server.prefect("flow-run", "retry", self.run)
        else:
            self.run = self._server.run(
                "train-sknet/train-sknet", self._parameters, self.environment
            )
        self._state = ""

    def is_over(self) -> bool:
        state = self._server.state_of(self.run)
        if state != "RUNNING" or self.living():
            self._last_seen_alive = time.monotonic()
        elif time.monotonic() - self._last_seen_alive > SECONDS_WITHOUT_PROCESS:
            # Its process ended while the server was down; infra/prefect's automation does this.
            self._server.mark_crashed(self.run)
            self._state = CRASHED_UNREPORTED
            return True
        self._state = state if state in FINAL else ""
        return bool(self._state)

    def ended_as(self) -> str:
        return self._state

    def flow(self) -> psutil.Process:
        living = self.living()
        (flow,) = [each for each in living if each.parent() not in living]
        return flow


def harness_api() -> dict[str, str]:
    """Return the setting with which a command uses the server of `flow_harness`."""
    api = PREFECT_API_URL.value()
    assert api, "the flow harness has no server"
    return {"PREFECT_API_URL": api}


def runs_program(process: psutil.Process, name: str) -> bool:
    """Tell whether the process runs a file of this name."""
    try:
        return name in {Path(word).name for word in process.cmdline()}
    except psutil.Error:
        return False  # it has ended meanwhile
