"""What the commands of flows share: exit codes, and one line for an error."""

import argparse
import logging
import signal
import sys
from collections.abc import Callable

from infra.artifacts import (
    DamagedArtifactError,
    DigestConflictError,
    RefConflictError,
    StoreError,
)
from sknet.errors import UserError

EXIT_DONE, EXIT_FAILED, EXIT_USER_ERROR = 0, 1, 2


def run_flow(main: Callable[[argparse.Namespace], None], arguments: argparse.Namespace) -> int:
    """Run `main`: 0 done, 1 the work failed, 2 the input is wrong."""
    # By default SIGTERM skips Python's exit handlers, and Prefect's temporary server would live on.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main(arguments)
    except (DamagedArtifactError, DigestConflictError, RefConflictError) as error:
        return _end(str(error), EXIT_FAILED)
    except (UserError, StoreError) as error:
        return _end(str(error), EXIT_USER_ERROR)
    except KeyboardInterrupt:
        return _end("interrupted; the same command goes on from here", EXIT_FAILED)
    except Exception as error:  # noqa: BLE001 (Prefect has logged it with its traceback)
        return _end(f"{type(error).__name__}: {error}", EXIT_FAILED)
    return EXIT_DONE


def quieten() -> None:
    """Leave the terminal to the stages: no chatter, and no traceback for a user's mistake."""
    for name in ("httpx", "alembic", "docket"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_without_traceback)


def _without_traceback(record: logging.LogRecord) -> bool:
    if record.exc_info and isinstance(record.exc_info[1], UserError | StoreError):
        record.exc_info = None
    return True


def _end(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr, flush=True)
    return code
