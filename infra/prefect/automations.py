"""Automations on the Prefect server, each of them once however often they are registered."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from prefect.client.orchestration import PrefectClient
from prefect.events.schemas.automations import AutomationCore

FILE = Path(__file__).with_name("automations.yaml")


def described(path: Path = FILE) -> list[dict[str, Any]]:
    """Return the automations of a file as `prefect automation create --from-file` reads them."""
    found: list[dict[str, Any]] = yaml.safe_load(path.read_text("utf-8"))["automations"]
    return found


async def register(client: PrefectClient, automations: Iterable[dict[str, Any]]) -> list[str]:
    """Create the automations, or update those that are there; return their names.

    One that was disabled on the server stays disabled. Of several with the same name, one is left.
    """
    names = []
    for each in automations:
        automation = AutomationCore.model_validate(each)
        present = await client.read_automations_by_name(automation.name)
        if present:
            automation.enabled = present[0].enabled
            await client.update_automation(present[0].id, automation)
        else:
            await client.create_automation(automation)
        for double in present[1:]:
            await client.delete_automation(double.id)
        names.append(automation.name)
    return names
