"""A run of the pipeline that is to be hit, as a command or through a deployment."""

import os
import subprocess
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

import psutil

from tests.prefect_services import FINAL, PrefectServer, PrefectWorker
from tests.runs import MARK
from tests.tiny_pipeline import ROOT, Trained, processes_marked, train_command

SECONDS_TO_BE_SEEN = 120
SECONDS_TO_END = 300
SECONDS_WITHOUT_PROCESS = 30
CRASHED_UNTOLD = "RUNNING without a process"

# The line of its log after which a stage is at work.
BEGINS = {
    "stage": "Beginning flow run",
    "convert": "convert: at work on",
    "train": "train: at work on",
    "validate": "validate: at work on",
    "promote": "validate: built in",
    "report": "promote: built",
}
ENDS = {stage: f"{stage}: built" for stage in BEGINS}


class HitRun(ABC):
    """Everything that a run starts carries its mark."""

    def __init__(self, log: Path, environment: Mapping[str, str]) -> None:
        self.mark = uuid.uuid4().hex
        self.environment = {**environment, MARK: self.mark}
        self._log = log
        self._from = log.stat().st_size if log.exists() else 0
        self.starts = 0

    @abstractmethod
    def start(self) -> None:
        """The same command, whether for the first time or again."""

    @abstractmethod
    def is_over(self) -> bool:
        """Whether it has ended, well or not."""

    @abstractmethod
    def ended_as(self) -> str:
        """Its exit code or state; `0` or `COMPLETED` if well."""

    @abstractmethod
    def flow(self) -> psutil.Process:
        """The process of the flow itself."""

    @property
    def is_done(self) -> bool:
        return self.is_over() and self.ended_as() in ("0", "COMPLETED")

    def said(self) -> str:
        with self._log.open("rb") as log:
            log.seek(self._from)
            return log.read().decode("utf-8", "replace")

    def living(self) -> list[psutil.Process]:
        return processes_marked(MARK, self.mark)

    def end(self) -> None:
        for process in self.living():
            process.kill()

    def ranks(self) -> dict[int, psutil.Process]:
        return {
            int(each.environ()["RANK_ID"]): each
            for each in self._of_role("MS_WORKER")
            if "train.py" in " ".join(each.cmdline())
        }

    def schedulers(self) -> list[psutil.Process]:
        return self._of_role("MS_SCHED")

    def converters(self) -> list[psutil.Process]:
        """Those that the conversion has spawned to write shards."""
        return [
            each
            for program in self.living()
            if "convert.py" in " ".join(program.cmdline()[:3])
            for each in program.children()
            if any("spawn_main" in word for word in each.cmdline())
        ]

    def _of_role(self, role: str) -> list[psutil.Process]:
        return [each for each in self.living() if each.environ().get("MS_ROLE") == role]


class CommandRun(HitRun):
    """`python -m flows.train_sknet …`, against a server."""

    def __init__(
        self, trained: Trained, store: str, log: Path, api: str, environment: Mapping[str, str]
    ) -> None:
        super().__init__(log, {"PREFECT_API_URL": api, **environment})
        self._command = train_command(trained.recipe, trained.images, store, 2)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.starts += 1
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env={**os.environ, **self.environment},
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def is_over(self) -> bool:
        assert self._process is not None
        return self._process.poll() is not None

    def ended_as(self) -> str:
        assert self._process is not None
        return str(self._process.returncode)

    def flow(self) -> psutil.Process:
        assert self._process is not None
        return psutil.Process(self._process.pid)

    def end(self) -> None:
        super().end()
        if self._process is not None:
            self._process.wait()


class DeploymentRun(HitRun):
    """A run of train-sknet/train-sknet, by a worker."""

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
        self._state = ""
        self._seen = 0.0

    def start(self) -> None:
        """The first time a new run; then a retry of it, or a new one if it doesn't take one."""
        self.starts += 1
        if self.run and self._state in ("CRASHED", "FAILED", CRASHED_UNTOLD):
            self._server.prefect("flow-run", "retry", self.run)
        else:
            self.run = self._server.run(self._parameters, self.environment)
        self._state = ""

    def is_over(self) -> bool:
        state = self._server.state_of(self.run)
        if state != "RUNNING" or self.living():
            self._seen = time.monotonic()
        elif time.monotonic() - self._seen > SECONDS_WITHOUT_PROCESS:
            # Its process went while there was no server to tell. See infra/prefect's automation.
            self._server.mark_crashed(self.run)
            self._state = CRASHED_UNTOLD
            return True
        self._state = state if state in FINAL else ""
        return bool(self._state)

    def ended_as(self) -> str:
        return self._state

    def flow(self) -> psutil.Process:
        living = self.living()
        (flow,) = [each for each in living if each.parent() not in living]
        return flow
