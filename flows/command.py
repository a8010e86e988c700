"""What the commands of flows share: exit codes, one line for an error, and calling a flow."""

import argparse
import logging
import signal
import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from prefect import Flow
from prefect.client.schemas.objects import State
from prefect.states import Cancelled

from infra.artifacts import DamagedArtifactError, DigestConflictError, RefConflictError
from infra.base.outcomes import ExitCode
from sknet.errors import UserError
from tasks.errors import JobStoppedError, RegressionError

P = ParamSpec("P")
R = TypeVar("R")


def run_flow(main: Callable[[argparse.Namespace], None], arguments: argparse.Namespace) -> int:
    """Run `main` and return the exit code: 0 done, 1 the work failed, 2 the input is wrong."""
    # By default these end the process without Python's exit handlers, and Prefect's temporary
    # server would stay.
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.default_int_handler)
    try:
        main(arguments)
    except (DamagedArtifactError, DigestConflictError, RefConflictError) as error:
        return _end(str(error), ExitCode.FAILED)
    except UserError as error:
        return _end(str(error), ExitCode.USER_ERROR)
    except RegressionError as error:
        return _end(str(error), ExitCode.FAILED)
    except JobStoppedError as error:
        return _end(f"stopped ({error}); the same command resumes from here", ExitCode.FAILED)
    except KeyboardInterrupt:
        return _end("interrupted; the same command resumes from here", ExitCode.FAILED)
    except Exception as error:  # noqa: BLE001 (Prefect has logged it with its traceback)
        return _end(f"{type(error).__name__}: {error}", ExitCode.FAILED)
    return ExitCode.DONE


def call(flow: Flow[P, R | State[R]], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a flow whose body may return a state, and return its result.

    Prefect takes a state that the body returns for the run's own. Its data is what the call returns
    or, if it is an error, raises.
    """
    result = flow(*args, **kwargs)
    if isinstance(result, State):
        raise AssertionError(f"{flow.name} returned its state {result.name}, not its result")
    return result


def stoppable(body: Callable[P, R]) -> Callable[P, R | State[R]]:
    """Return a flow's body whose run ends as Stopped if a task was asked to stop."""

    @wraps(body)
    def run(*args: P.args, **kwargs: P.kwargs) -> R | State[R]:
        try:
            return body(*args, **kwargs)
        except JobStoppedError as error:
            return Cancelled(name="Stopped", message=str(error), data=error)

    return run


def quiet_loggers() -> None:
    """Leave the terminal to the tasks: no chatter, and no traceback for a user's mistake."""
    for name in ("httpx", "alembic", "docket"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Which process waits for which, and from where work resumes.
    logging.getLogger("infra").setLevel(logging.INFO)
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_without_traceback)


def _without_traceback(record: logging.LogRecord) -> bool:
    if record.exc_info and isinstance(record.exc_info[1], UserError | JobStoppedError):
        record.exc_info = None
    return True


def _end(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr, flush=True)
    return code
