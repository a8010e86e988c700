"""What the commands that register something with a Prefect server share."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial
from subprocess import CalledProcessError

from httpx import HTTPError
from prefect.exceptions import PrefectException
from prefect.settings import PREFECT_API_URL

from infra.base.interrupts import run_interruptible
from infra.base.outcomes import ExitCode, UserError


def run(register: Callable[[], AsyncIterator[str]]) -> int:
    """Run `register`, print each line that it yields, and return the exit code."""
    return run_interruptible(partial(_run, register))


def _run(register: Callable[[], AsyncIterator[str]]) -> int:
    try:
        if not PREFECT_API_URL.value():
            raise UserError(
                "PREFECT_API_URL isn't set: expected the address of a Prefect server, such as "
                "http://127.0.0.1:4200/api"
            )
        asyncio.run(_print(register()))
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return ExitCode.USER_ERROR
    except CalledProcessError as error:
        sys.stderr.write(f"{error.stdout}error: `prefect deploy` has failed, see above\n")
        return ExitCode.FAILED
    except (HTTPError, PrefectException, OSError) as error:
        first = str(error).partition("\n")[0]
        sys.stderr.write(f"error: the Prefect server can't be used: {first}\n")
        return ExitCode.FAILED
    return ExitCode.DONE


async def _print(lines: AsyncIterator[str]) -> None:
    async for line in lines:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
