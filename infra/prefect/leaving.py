"""A flow run whose host has to leave goes back to the queue of its pool, and on from there."""

import prefect
import rich.console
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import Pause
from prefect.states import Scheduled
from prefect.utilities.engine import propose_state_sync


def will_go_on(reason: str) -> State[None]:
    """Return the state of a run that another worker, or the restarted one, is to take up."""
    return Scheduled(name="Stopped, will go on", message=f"{reason}; the next free worker goes on")


def outlive_the_worker() -> None:
    """Let this process's run go on if its worker is killed, and with it the reader of its output.

    Rich, with which Prefect writes logs, would end the process. Runs of commands stay as they are.
    """
    if _deployed_run() is not None:
        # In the class, because Prefect makes a console for each handler, which mypy can't approve.
        rich.console.Console.on_broken_pipe = _be_quiet  # type: ignore[assignment,method-assign]


def put_back() -> None:
    """Put this process's flow run back into the queue of its pool, if a worker can find it there.

    Returns without doing so for a run of a command, and for one that somebody cancels meanwhile, or
    whose next state is chosen by `prefect flow-run execute`, as on Kubernetes.

    Raises:
        Pause: It was put back. By this, Prefect ends the process and leaves the run's state alone.
    """
    run = _deployed_run()
    if run is None:
        return
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(run.id).state
        if state is None or not state.is_running():
            return
        scheduled = will_go_on("its worker or its host had to leave (SIGTERM)")
        state = propose_state_sync(client, scheduled, flow_run_id=run.id)
    raise Pause("the run was put back into its queue", state=state)


def _deployed_run() -> FlowRun | None:
    context = prefect.context.FlowRunContext.get()
    run = None if context is None else context.flow_run
    return run if run is not None and run.deployment_id is not None else None


def _be_quiet(console: rich.console.Console) -> None:
    console.quiet = True
