"""Register notifications about crashed and failed runs with the Prefect server.

Usage: ``python -m infra.prefect.notifications``. The receiver is read from the environment, because
its address may contain a token: SKNET_NOTIFY_WEBHOOK (takes JSON with a `text`, as Slack and
Mattermost do), or for e-mail SKNET_NOTIFY_SENDGRID_KEY, SKNET_NOTIFY_FROM and SKNET_NOTIFY_TO.
A second call replaces what the first one made.

Exit codes: 0 done, 1 the server refused or can't be reached, 2 the environment is wrong.
"""

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml
from httpx import HTTPError
from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.notifications import CustomWebhookNotificationBlock, SendgridEmail
from prefect.client.orchestration import get_client
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import PrefectException
from prefect.types import SecretDict
from pydantic import SecretStr

from infra.base.outcomes import ExitCode, UserError

FILE = Path(__file__).with_name("notifications.yaml")
BLOCK = "sknet-notifications"
_MAIL = ("SENDGRID_KEY", "FROM", "TO")


def block_of(environment: Mapping[str, str]) -> NotificationBlock:
    """Return the Prefect block that sends the notifications.

    Raises:
        UserError: The environment names no receiver, two, or half of one.
    """
    webhook = environment.get("SKNET_NOTIFY_WEBHOOK", "")
    mail = {name: environment.get(f"SKNET_NOTIFY_{name}", "") for name in _MAIL}
    if bool(webhook) == any(mail.values()):
        raise UserError("set either SKNET_NOTIFY_WEBHOOK or the variables of e-mail")
    if webhook:
        if not webhook.startswith(("https://", "http://")):
            raise UserError("SKNET_NOTIFY_WEBHOOK is not a URL: expected https://…")
        return CustomWebhookNotificationBlock(
            name="sknet",
            # The server doesn't show secrets, but it would show the URL.
            url="{{address}}",
            secrets=SecretDict({"address": webhook}),
            json_data={"text": "{{subject}}\n{{body}}"},
            headers=None,
            cookies=None,
        )
    missing = [f"SKNET_NOTIFY_{name}" for name, value in mail.items() if not value]
    if missing:
        raise UserError(f"e-mail needs {', '.join(missing)} as well")
    return SendgridEmail(
        api_key=SecretStr(mail["SENDGRID_KEY"]),
        sender_email=mail["FROM"],
        to_emails=[address.strip() for address in mail["TO"].split(",")],
    )


def automations(block: UUID) -> list[AutomationCore]:
    """Return the automations of notifications.yaml, with this block as their sender."""
    described: list[dict[str, Any]] = yaml.safe_load(FILE.read_text("utf-8"))["automations"]
    for each in described:
        for action in each["actions"]:
            action["block_document_id"] = str(block)
    return [AutomationCore.model_validate(each) for each in described]


async def register(block: NotificationBlock) -> list[str]:
    """Save the block, create or replace the automations, and return their names."""
    identifier = await block.save(BLOCK, overwrite=True)
    wanted = automations(identifier)
    async with get_client() as client:
        for automation in wanted:
            present = await client.read_automations_by_name(automation.name)
            if present:
                await client.update_automation(present[0].id, automation)
            else:
                await client.create_automation(automation)
    return [automation.name for automation in wanted]


def main() -> int:
    """Register the notifications, print their names and return the exit code."""
    try:
        block = block_of(os.environ)
        names = asyncio.run(register(block))
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return ExitCode.USER_ERROR
    except (HTTPError, PrefectException, OSError) as error:
        first = str(error).partition("\n")[0]
        sys.stderr.write(f"error: the Prefect server can't be used: {first}\n")
        return ExitCode.FAILED
    sys.stdout.writelines(f"{name}\n" for name in names)
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
