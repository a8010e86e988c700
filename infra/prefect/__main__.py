"""Register the work pool, the deployments and the automations with a Prefect server.

Usage: ``python -m infra.prefect [--pool NAME] [--type TYPE] [--job-variable KEY=VALUE …]``. After a
change, or another version, start it again: what people changed on the server stays. It also enables
`prefect deployment run train-sknet` for this user in every directory (`infra.prefect.bare_name`).

Exit codes: 0 done, 1 the server refused or can't be reached, 2 an option is wrong.
"""

import argparse
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

from prefect.client.orchestration import get_client

from infra.prefect import automations, bare_name, deployments
from infra.prefect.pools import TEMPLATES, PoolType, check_job_variables, make_pool
from infra.prefect.registration import run


async def register(
    pool: str | None, kind: PoolType, job_variables: dict[str, Any], names: list[str]
) -> AsyncIterator[str]:
    """Register everything; yield a line for each pool, deployment and automation."""
    async with get_client() as client:
        content = await deployments.adapted(client, pool, job_variables, names)
        for name in sorted({each["work_pool"]["name"] for each in content["deployments"]}):
            done = await make_pool(client, name, kind, must_match=bool(pool))
            yield f"work pool {name}: {done}"
        for each in content["deployments"]:
            wanted = each["work_pool"]
            await check_job_variables(client, wanted["name"], wanted["job_variables"])
        for name in deployments.register(content):
            yield f"deployment {name}"
        for name in await automations.register(client, automations.described()):
            yield f"automation {name}"
    yield f"names without a slash: {bare_name.enable()}"


def job_variable(text: str) -> tuple[str, Any]:
    """Read `KEY=VALUE`, whose value is JSON or else a string; that of `env` is an object."""
    key, separator, value = text.partition("=")
    if not key or not separator:
        raise argparse.ArgumentTypeError(f"{text!r}: expected KEY=VALUE")
    try:
        read = json.loads(value)
    except ValueError:
        read = value
    if key == "env" and not isinstance(read, dict):
        raise argparse.ArgumentTypeError(f'{text!r}: expected env=\'{{"NAME": "VALUE"}}\'')
    return key, read


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    result = argparse.ArgumentParser(
        prog="python -m infra.prefect", description=__doc__.splitlines()[0], allow_abbrev=False
    )
    result.add_argument(
        "--pool",
        metavar="NAME",
        help="work pool of the deployments (default: the one they have; at first sknet-process)",
    )
    result.add_argument(
        "--type",
        choices=TEMPLATES,
        default="process",
        help="of a pool that is created; process: runs on the worker's host; kubernetes: in jobs "
        "that Volcano schedules (default: %(default)s)",
    )
    result.add_argument(
        "--job-variable",
        action="append",
        type=job_variable,
        default=[],
        metavar="KEY=VALUE",
        help="a job variable of the pool to set in all deployments, such as devices=0,1; "
        'env=\'{"NAME": "VALUE"}\' adds to the environment; may be repeated',
    )
    result.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="DEPLOYMENT",
        help="register this deployment, not all; may be repeated",
    )
    return result


if __name__ == "__main__":
    options = parser().parse_args()
    variables = dict(options.job_variable)
    sys.exit(run(lambda: register(options.pool, options.type, variables, options.only)))
