"""A process worker that leaves in time: told to go, it waits until its flow runs have saved.

Prefect's own process worker kills (SIGKILL) the processes of its flow runs when it gets SIGTERM or
Ctrl-C: the steps since the newest checkpoint are lost, and the runs stay Running. This one takes
its place in `prefect worker start`, because the package is one of Prefect's collections
(`prefect.collections` in pyproject.toml). It passes SIGTERM on and ends after its runs, which save
and go back to the queue (`infra.prefect.leaving`), where another worker finds them.
"""

import os
import signal
import warnings
from contextlib import suppress

import anyio
import httpx
from anyio.abc import TaskStatus
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import PrefectException
from prefect.workers import process

from infra.prefect.leaving import will_go_on

POLL_SECONDS = 0.5
ANSWER_SECONDS = 2.0
"""Seconds to wait for an answer of the server, which Prefect's client would ask for minutes."""
BEGIN_SECONDS = 60.0
"""Seconds in which a run that is starting gets to where it handles SIGTERM."""


class _Process:
    """The process of one flow run, whose id is known once it has started."""

    def __init__(self, task_status: TaskStatus[int]) -> None:
        self.has_ended = False
        self.is_told_to_go = False
        self._task_status = task_status
        self._pid: int | None = None

    def started(self, value: int | None = None) -> None:
        """Take the process id, as `ProcessWorker.run` reports it."""
        self._pid = value
        if value is not None:
            self._task_status.started(value)

    def tell_to_go(self) -> None:
        """Send SIGTERM to it, if it lives."""
        self.is_told_to_go = True
        if self._pid is not None and not self.has_ended:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGTERM)


with warnings.catch_warnings():
    # Prefect warns that this class takes the place of its own.
    warnings.simplefilter("ignore", UserWarning)

    class ProcessWorker(process.ProcessWorker):
        """A process worker that ends after its flow runs."""

        type = "process"

        async def run(
            self,
            flow_run: FlowRun,
            configuration: process.ProcessJobConfiguration,
            task_status: TaskStatus[int] | None = None,
        ) -> process.ProcessWorkerResult:
            """Run a flow run in a process to its end, even if this worker has to go meanwhile."""
            running = _Process(task_status or anyio.TASK_STATUS_IGNORED)
            async with anyio.create_task_group() as group:
                group.start_soon(self._tell_to_go_in_time, flow_run, running)
                with anyio.CancelScope(shield=True):
                    result = await super().run(flow_run, configuration, running)
                    running.has_ended = True
                    if running.is_told_to_go and await self._is_in(flow_run, "PENDING", "CRASHED"):
                        state = will_go_on("its worker had to leave before the run began")
                        await self.client.set_flow_run_state(flow_run.id, state, force=True)
                group.cancel_scope.cancel()
            return result

        async def _tell_to_go_in_time(self, flow_run: FlowRun, running: _Process) -> None:
            """Wait to be cancelled, as the worker does when it has to go; then tell the process."""
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.move_on_after(BEGIN_SECONDS, shield=True):
                    while not running.has_ended and await self._is_pending(flow_run):
                        await anyio.sleep(POLL_SECONDS)
                running.tell_to_go()

        async def _is_pending(self, flow_run: FlowRun) -> bool:
            """Tell whether a run is Pending; False if the server can't say."""
            with suppress(httpx.HTTPError, PrefectException), anyio.move_on_after(ANSWER_SECONDS):
                return await self._is_in(flow_run, "PENDING")
            return False

        async def _is_in(self, flow_run: FlowRun, *types: str) -> bool:
            state = (await self.client.read_flow_run(flow_run.id)).state
            return state is not None and state.type.value in types
