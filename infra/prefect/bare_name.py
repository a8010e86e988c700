"""A Prefect plugin: `prefect deployment run NAME`, without the name of the flow.

Prefect's command line expects `FLOW/NAME`. Prefect sets up plugins before it parses the arguments,
so this plugin can complete them. Prefect loads no plugin that isn't enabled: `prefect.toml` enables
it in this repository's root, and `python -m infra.prefect` for its user in every directory.
"""

import sys

import prefect
from prefect.context import get_settings_context
from prefect.plugins import HookContext
from prefect.settings import (
    PREFECT_PLUGINS_ALLOW,
    PREFECT_PLUGINS_ENABLED,
    update_current_profile,
)

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


def enable() -> str:
    """Enable this plugin in the user's profile; return what was done.

    What the profile says of plugins already stays.
    """
    profile = get_settings_context().profile
    if profile.settings.keys() & {PREFECT_PLUGINS_ENABLED, PREFECT_PLUGINS_ALLOW}:
        return f"as the profile {profile.name!r} has it"
    try:
        update_current_profile({PREFECT_PLUGINS_ENABLED: "true", PREFECT_PLUGINS_ALLOW: "sknet"})
    except OSError as error:
        return f"not enabled, as the profile {profile.name!r} can't be written: {error.strerror}"
    return f"enabled in the profile {profile.name!r}"


@prefect.plugins.register_hook
def setup_environment(*, ctx: HookContext) -> None:
    """Complete this process's arguments; Prefect calls it when it is imported."""
    del ctx
    sys.argv[1:] = with_full_name(sys.argv[1:])
