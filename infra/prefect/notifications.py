"""Register notifications about crashed and failed runs with the Prefect server.

Usage: ``python -m infra.prefect.notifications``. The receiver is read from the environment, because
its address may contain a token: SKNET_NOTIFY_WEBHOOK (takes JSON with a `text`, as Slack and
Mattermost do), or for e-mail SKNET_NOTIFY_SENDGRID_KEY, SKNET_NOTIFY_FROM and SKNET_NOTIFY_TO.
A second call updates what the first one made.

Exit codes: 0 done, 1 the server refused or can't be reached, 2 the environment is wrong.
"""

import os
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.notifications import CustomWebhookNotificationBlock, SendgridEmail
from prefect.client.orchestration import get_client
from prefect.types import SecretDict
from pydantic import SecretStr

from infra.base.outcomes import UserError
from infra.prefect import automations
from infra.prefect.registration import run

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


async def register(block: NotificationBlock) -> AsyncIterator[str]:
    """Save the block, create or update the automations, and yield their names."""
    identifier = await block.save(BLOCK, overwrite=True)
    described = automations.described(FILE)
    for each in described:
        for action in each["actions"]:
            action["block_document_id"] = str(identifier)
    async with get_client() as client:
        for name in await automations.register(client, described):
            yield name


if __name__ == "__main__":
    sys.exit(run(lambda: register(block_of(os.environ))))
