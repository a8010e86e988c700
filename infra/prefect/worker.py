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
from anyio.abc import TaskStatus
from prefect.client.schemas.objects import FlowRun
from prefect.workers import process

from infra.prefect.leaving import will_go_on


class _Process:
    """The process of one flow run, whose id is known once it has started."""

    def __init__(self, task_status: TaskStatus[int]) -> None:
        self.is_told_to_go = False
        self.has_ended = False
        self._task_status = task_status
        self._pid: int | None = None

    def started(self, value: int | None = None) -> None:
        """Take the process id, as `ProcessWorker.run` reports it."""
        self._pid = value
        if value is not None:
            self._task_status.started(value)
        if self.is_told_to_go:
            self._terminate()

    async def wait_until_the_worker_must_go(self) -> None:
        """Wait to be cancelled, as the worker does with all its runs; then tell the process."""
        try:
            await anyio.sleep_forever()
        finally:
            if not self.has_ended:
                self.is_told_to_go = True
                self._terminate()

    def _terminate(self) -> None:
        if self._pid is not None:
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
                group.start_soon(running.wait_until_the_worker_must_go)
                with anyio.CancelScope(shield=True):
                    result = await super().run(flow_run, configuration, running)
                    running.has_ended = True
                    if running.is_told_to_go:
                        await self._put_back_if_it_had_not_begun(flow_run)
                group.cancel_scope.cancel()
            return result

        async def _put_back_if_it_had_not_begun(self, flow_run: FlowRun) -> None:
            """Put a run back into the queue whose process could not handle SIGTERM yet."""
            state = (await self.client.read_flow_run(flow_run.id)).state
            if state is not None and (state.is_pending() or state.is_crashed()):
                reason = "its worker had to leave before the run began"
                await self.client.set_flow_run_state(flow_run.id, will_go_on(reason), force=True)
