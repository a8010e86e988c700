"""One command of a flow, started again and again, and what is left of it when it is interrupted."""

import os
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import psutil
from prefect.settings import PREFECT_API_URL

from tests.tiny_pipeline import ROOT, processes_marked

# When is a stage at work? Its program runs, and has written the first of this.
AT_WORK = {
    "convert": ".work/shards/*/logs/convert-*/*",
    "train": ".work/checkpoint/*/checkpoints/step-*",
    "validate": ".work/evaluation/*/logs/validate-*/*",
}
MARK = "SKNET_TEST_ID"
# Tests that a shell runs in the background would hand on that SIGINT is ignored.
WITH_SIGINT = ["env", "--default-signal=INT"]
SECONDS_TO_START = 90
SECONDS_TO_VANISH = 15


class Runs:
    """Starts one command again and again, each time in a session of its own, marked."""

    def __init__(self, command: list[str], log: Path) -> None:
        self.mark = uuid.uuid4().hex
        self._command = command
        self._log = log
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, *, own_server: bool = False) -> subprocess.Popen[bytes]:
        """With the harness's server, which is there already, or with a temporary one as at home."""
        env = {**os.environ, MARK: self.mark}
        if not own_server:
            api = PREFECT_API_URL.value()
            assert api, "the flow harness has no server"
            env["PREFECT_API_URL"] = api
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [*WITH_SIGINT, *self._command],
                cwd=ROOT,
                env=env,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    @property
    def last(self) -> subprocess.Popen[bytes]:
        """The one that was started last."""
        return self._started[-1]

    def end(self) -> None:
        """Kill what is left of it."""
        for process in self.living():
            process.kill()
        for started in self._started:
            started.wait()

    def living(self) -> list[psutil.Process]:
        return processes_marked(MARK, self.mark)

    def programs(self) -> set[str]:
        """Names of the files that the processes run."""
        names = set()
        for process in self.living():
            try:
                names |= {Path(word).name for word in process.cmdline()}
            except psutil.Error:
                continue
        return names

    def signal_in(
        self,
        stage: str,
        store: Path,
        number: int,
        *,
        own_server: bool = False,
        as_terminal: bool = False,
    ) -> int:
        """Run until the stage is at work, signal the flow's process, return its exit code.

        The process alone, or all of its group, as a terminal does.
        """
        process = self.start(own_server=own_server)
        wait_for(
            lambda: (
                process.poll() is not None
                or (any(store.glob(AT_WORK[stage])) and f"{stage}.py" in self.programs())
            ),
            SECONDS_TO_START,
            self.said,
        )
        assert process.poll() is None, f"ended before it could be stopped:\n{self.said()}"
        if as_terminal:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        code = process.wait(SECONDS_TO_VANISH)
        wait_for(lambda: not self.living(), SECONDS_TO_VANISH, lambda: str(self.living()))
        return code

    def said(self) -> str:
        return self._log.read_text("utf-8")


def wait_for(
    condition: Callable[[], bool], seconds: float, explain: Callable[[], str], pause: float = 0.05
) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s:\n{explain()}"
        time.sleep(pause)
