"""A Prefect plugin: `prefect deployment run NAME` for a deployment named like its flow.

Prefect's command line wants `NAME/NAME`; plugins are set up before it reads its arguments.
Enabled by `prefect.toml` in this repository's root, elsewhere by PREFECT_PLUGINS_ENABLED=true.
"""

import sys

import prefect
from prefect.plugins import HookContext

COMMAND = ["deployment", "run"]


def with_full_name(arguments: list[str]) -> list[str]:
    """`deployment run X …` becomes `deployment run X/X …`; all else stays."""
    if arguments[:2] != COMMAND or len(arguments) < 3:
        return arguments
    name = arguments[2]
    if name.startswith("-") or "/" in name:
        return arguments
    return [*COMMAND, f"{name}/{name}", *arguments[3:]]


@prefect.plugins.register_hook
def setup_environment(*, ctx: HookContext) -> None:
    """Called by Prefect at import."""
    del ctx
    sys.argv[1:] = with_full_name(sys.argv[1:])
