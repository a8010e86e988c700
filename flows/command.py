"""What the commands of flows share: exit codes, and one line for an error."""

import argparse
import logging
import signal
import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar, cast

from prefect.states import Cancelled

from infra.artifacts import (
    DamagedArtifactError,
    DigestConflictError,
    RefConflictError,
    StoreError,
)
from infra.base.outcomes import ExitCode
from sknet.errors import UserError
from tasks.results import JobStoppedError, RegressionError

P = ParamSpec("P")
R = TypeVar("R")


def run_flow(main: Callable[[argparse.Namespace], None], arguments: argparse.Namespace) -> int:
    """Run `main`: 0 done, 1 the work failed, 2 the input is wrong."""
    # By default these skip Python's exit handlers, and Prefect's temporary server would live on.
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.default_int_handler)
    try:
        main(arguments)
    except (DamagedArtifactError, DigestConflictError, RefConflictError) as error:
        return _end(str(error), ExitCode.FAILED)
    except (UserError, StoreError) as error:
        return _end(str(error), ExitCode.USER_ERROR)
    except RegressionError as error:
        return _end(str(error), ExitCode.FAILED)
    except JobStoppedError as error:
        return _end(f"stopped ({error}); the same command goes on from here", ExitCode.FAILED)
    except KeyboardInterrupt:
        return _end("interrupted; the same command goes on from here", ExitCode.FAILED)
    except Exception as error:  # noqa: BLE001 (Prefect has logged it with its traceback)
        return _end(f"{type(error).__name__}: {error}", ExitCode.FAILED)
    return ExitCode.DONE


def stoppable(body: Callable[P, R]) -> Callable[P, R]:
    """A flow's body, whose run ends as Stopped when a stage was asked to stop."""

    @wraps(body)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return body(*args, **kwargs)
        except JobStoppedError as error:
            # Prefect takes the state for the run's, and raises its data to the caller.
            return cast(R, Cancelled(name="Stopped", message=str(error), data=error))

    return run


def quieten() -> None:
    """Leave the terminal to the stages: no chatter, and no traceback for a user's mistake."""
    for name in ("httpx", "alembic", "docket"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Who waits for whom, and what goes on from where.
    logging.getLogger("infra").setLevel(logging.INFO)
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_without_traceback)


def _without_traceback(record: logging.LogRecord) -> bool:
    if record.exc_info and isinstance(record.exc_info[1], UserError | StoreError | JobStoppedError):
        record.exc_info = None
    return True


def _end(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr, flush=True)
    return code
