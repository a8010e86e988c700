"""What the commands of flows share: exit codes, one line for an error, and calling a flow."""

import logging
import signal
import sys
from collections.abc import Callable
from functools import partial, wraps
from typing import ParamSpec, TypeVar

from prefect import Flow
from prefect.client.schemas.objects import State
from prefect.exceptions import TerminationSignal
from prefect.settings import PREFECT_API_URL, get_current_settings
from prefect.states import Cancelled

from flows.shown_log import log_on
from infra.artifacts import DamagedArtifactError, DigestConflictError, RefConflictError
from infra.base.commands import ConsoleOptions
from infra.base.console import console, open_console, opened
from infra.base.interrupts import is_interrupted, run_interruptible, take_signals_back
from infra.base.outcomes import ExitCode
from infra.prefect.leaving import outlive_the_worker, put_back
from sknet.errors import DiskFullError, NonFiniteLossError, UserError
from tasks.errors import (
    JobFailedError,
    JobStoppedError,
    LostWorkerError,
    NotPromotedError,
    RegressionError,
    ToldToGoError,
)

EXPLAINED = (
    *(UserError, RegressionError, NonFiniteLossError, DiskFullError),
    *(JobFailedError, JobStoppedError, LostWorkerError, ToldToGoError),
)
"""Failures whose message says all; a traceback would only hide it."""

PREFECT_LOGGERS = ("prefect.flow_runs", "prefect.task_runs", "EventsWorker", "APILogWorker")
"""The loggers by which Prefect says how runs end, and what it has still to send then."""

P = ParamSpec("P")
R = TypeVar("R")


Options = TypeVar("Options", bound=ConsoleOptions)


def run_flow(main: Callable[[Options], None], arguments: Options) -> int:
    """Run `main` and return the exit code: 0 done, 1 the work failed, 2 the input is wrong."""
    return run_interruptible(partial(_run, main, arguments))


def _run(main: Callable[[Options], None], arguments: Options) -> int:
    try:
        console_here = open_console(quiet=arguments.quiet, verbose=arguments.verbose)
        with opened(console_here) as shown:
            shown.stage("start", "checking the recipe, the source and the store")
            with log_on(shown, verbose=arguments.verbose):
                main(arguments)
    except (DamagedArtifactError, DigestConflictError, RefConflictError) as error:
        return _end(str(error), ExitCode.FAILED)
    except UserError as error:
        return _end(str(error), ExitCode.USER_ERROR)
    except (RegressionError, NotPromotedError) as error:
        return _end(str(error), ExitCode.FAILED)
    except JobStoppedError as error:
        return _end(f"stopped ({error}); the same command goes on from here", ExitCode.FAILED)
    except Exception as error:
        if is_interrupted():
            raise
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


def stoppable(body: Callable[P, R | State[R]]) -> Callable[P, R | State[R]]:
    """Return a flow's body whose run ends as Stopped if a task was asked to stop.

    The run of a deployment that gets SIGTERM, without being cancelled, goes on by itself: see
    `infra.prefect.leaving`.
    """

    @wraps(body)
    def run(*args: P.args, **kwargs: P.kwargs) -> R | State[R]:
        take_signals_back()
        outlive_the_worker()
        _leave_out_what_is_no_news()
        try:
            return body(*args, **kwargs)
        except JobStoppedError as error:
            return Cancelled(name="Stopped", message=str(error), data=error)
        except (TerminationSignal, ToldToGoError):  # between tasks, or in one
            put_back()
            raise TerminationSignal(signal.SIGTERM) from None

    return run


def prepare() -> None:
    """Start the server that a flow of this command needs, if no other one is set for it."""
    for name in ("httpx", "alembic", "docket"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Which process waits for which, and from where work resumes.
    logging.getLogger("infra").setLevel(logging.INFO)
    _leave_out_what_is_no_news()
    logging.getLogger("prefect.flow_runs").addFilter(_is_not_said_by_the_command)
    if not PREFECT_API_URL.value() and get_current_settings().server.ephemeral.enabled:
        console().say("start: starting the Prefect server of this run")
        console().stage("start", "starting the Prefect server")
        from infra.prefect.temporary_server import start_temporary_server

        start_temporary_server()
    console().stage("start", "starting the flow")


def show_warning(line: str) -> None:
    """Show a warning of the command itself, as those in the log of a flow are shown."""
    console().warn(f"warning: {line}")


def _leave_out_what_is_no_news() -> None:
    for name in PREFECT_LOGGERS:
        logging.getLogger(name).addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """Tell whether Prefect shall log this; take the traceback away from what is explained.

    The flow's own failure is left out if it is explained: its state has the same message.
    """
    # An interrupted command says it in one line; what ranks say of their last step is of a task.
    is_of_task = record.name == "prefect.task_runs" and record.levelno < logging.ERROR
    if is_interrupted() and not is_of_task:
        return False
    if record.exc_info and isinstance(record.exc_info[1], EXPLAINED):
        record.exc_info = None
        return record.name != "prefect.flow_runs"
    return True


def _is_not_said_by_the_command(record: logging.LogRecord) -> bool:
    """Tell whether this is another line than the flow's failure, with which the command ends."""
    return not record.getMessage().startswith("Finished in state Failed")


def _end(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr, flush=True)
    return code
