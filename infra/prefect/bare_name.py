"""A Prefect plugin: `prefect deployment run NAME`, without the name of the flow.

Prefect's command line expects `FLOW/NAME`. Prefect sets up plugins before it parses the arguments,
so this plugin can complete them. `prefect.toml` in this repository's root enables it; elsewhere,
PREFECT_PLUGINS_ENABLED=true does.
"""

import sys

import prefect
from prefect.plugins import HookContext

COMMAND = ["deployment", "run"]
FLOWS = {"nightly": "revalidate"}
"""The flows of deployments that are not named like their flow."""


def with_full_name(arguments: list[str]) -> list[str]:
    """Put the flow's name before the deployment's; return other arguments unchanged."""
    if arguments[:2] != COMMAND or len(arguments) < 3:
        return arguments
    name = arguments[2]
    if name.startswith("-") or "/" in name:
        return arguments
    return [*COMMAND, f"{FLOWS.get(name, name)}/{name}", *arguments[3:]]


@prefect.plugins.register_hook
def setup_environment(*, ctx: HookContext) -> None:
    """Complete this process's arguments; Prefect calls it when it is imported."""
    del ctx
    sys.argv[1:] = with_full_name(sys.argv[1:])
