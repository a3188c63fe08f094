"""Send notifications of alarms and rejected snapshots: a Prefect automation with a webhook or a notification block.

python -m flows.alert --webhook https://chat.example/hook
python -m flows.alert --block sendgrid-email/on-call
"""

from __future__ import annotations

import argparse
from typing import Any, cast
from uuid import UUID

from prefect.automations import Automation
from prefect.blocks.core import Block
from prefect.blocks.webhook import Webhook
from prefect.events.actions import CallWebhook, SendNotification
from prefect.events.schemas.automations import EventTrigger, Posture

from flows.command import one_line_errors
from isospace.errors import IsospaceError
from isospace.evaluation.gate.verdicts import REJECTED
from tasks.audit import ALARM
from tasks.server import require_server

NAME, BLOCK = "isospace-alarms", "isospace-alarms"
EVENTS = {ALARM, REJECTED}
SUBJECT = "isospace: {{ event.resource['prefect.resource.name'] }}: {{ event.payload['name'] }}"
BODY = "{{ event.payload['message'] }} {{ event.payload['remedy'] }} Report: {{ event.payload['report'] }}"
PAYLOAD = (
    '{"text": {{ (event.payload["name"] ~ ": " ~ event.payload["message"] ~ " " ~ event.payload["remedy"] ~ '
    '" Report: " ~ event.payload["report"]) | tojson }}}'
)


def alert(*, webhook: str | None = None, block: str | None = None) -> Automation:
    """Create the automation, or replace the existing one.

    Parameters
    ----------
    webhook
        URL to send `{"text": …}` to, the format of chat services.
    block
        Type and name of a notification block, such as `sendgrid-email/on-call`.
    """
    trigger = EventTrigger(expect=EVENTS, posture=Posture.Reactive, threshold=1)
    action: CallWebhook | SendNotification
    if webhook is not None:
        hook: Any = Webhook(
            method="POST", url=cast("Any", webhook), headers=cast("Any", {"content-type": "application/json"})
        )
        hook.save(BLOCK, overwrite=True)
        action = CallWebhook(block_document_id=_block_id(f"webhook/{BLOCK}"), payload=PAYLOAD)
    else:
        action = SendNotification(block_document_id=_block_id(str(block)), subject=SUBJECT, body=BODY)
    wanted: Any = Automation(
        name=NAME,
        description="Sends notifications of alarms and rejected snapshots.",
        trigger=trigger,
        actions=[action],
    )
    try:
        existing: Any = Automation.read(name=NAME)
    except ValueError:
        return cast("Automation", wanted.create())
    existing.trigger, existing.actions, existing.description = wanted.trigger, wanted.actions, wanted.description
    existing.update()
    return cast("Automation", existing)


def _block_id(name: str) -> UUID:
    block: Any = Block.load(name)
    return cast("UUID", block._block_document_id)


def main() -> None:
    """Parse the command line, and create the automation."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.alert", description="Send notifications of alarms and rejected snapshots."
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--webhook", metavar="URL", help="URL to send JSON with the field text to")
    where.add_argument("--block", metavar="TYPE/NAME", help="notification block, such as sendgrid-email/on-call")
    options = parser.parse_args()
    with one_line_errors():
        require_server()
        try:
            automation = alert(webhook=options.webhook, block=options.block)
        except ValueError as error:
            # Prefect's errors for a block that is not there, or a URL that is none.
            raise IsospaceError(" ".join(str(error).split())[:300]) from error
    print(f"automation {automation.name} sends notifications of {', '.join(sorted(EVENTS))}")


if __name__ == "__main__":
    main()
