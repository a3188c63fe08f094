"""Let a Prefect server end runs whose process or machine is gone: an automation that waits for their heartbeats.

python -m flows.lost_runs
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

from prefect.automations import Automation
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

from flows.command import one_line_errors
from tasks.server import require_server

NAME = "isospace-lost-runs"
# Runs send a heartbeat every 180 s, unless PREFECT_FLOWS_HEARTBEAT_FREQUENCY says otherwise; a busy machine is late. A
# run that is alive must not be called dead: with 90 s, one was.
_MINUTES = 10
SILENCE = timedelta(minutes=_MINUTES)
_HEARTBEAT = "prefect.flow-run.heartbeat"
# Other flows of the server may send their heartbeats less often.
FLOWS = (
    "audit-collection",
    "backfill",
    "compact-collection",
    "compare-models",
    "embed-corpus",
    "finetune-encoder",
    "measure-frontier",
    "refit-space",
    "vacuum-store",
)
# After these, a run is expected to send no more.
_ENDS = ("Completed", "Failed", "Cancelled", "Cancelling", "Crashed", "Paused", "Suspended")
MESSAGE = (
    f"The process of this run has been silent for {_MINUTES} minutes: it was killed, or its machine or its network is "
    "gone. Nothing half-written is visible; start the run again, and it continues."
)


def watch_lost_runs() -> Automation | None:
    """Create the automation, or replace one that waits for another time; return None if there was nothing to do."""
    try:
        known: Any = Automation.read(name=NAME)
    except ValueError:
        known = None
    wanted: Any = Automation(
        name=NAME,
        description="Marks runs as Crashed when their process is gone.",
        trigger=EventTrigger(
            after={_HEARTBEAT},
            expect={_HEARTBEAT, *(f"prefect.flow-run.{state}" for state in _ENDS)},
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            match_related=ResourceSpecification(
                {"prefect.resource.role": ["flow"], "prefect.resource.name": list(FLOWS)}
            ),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=SILENCE,
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message=MESSAGE)],
    )
    if known is None:
        return cast("Automation", wanted.create())
    if all(getattr(known.trigger, name) == getattr(wanted.trigger, name) for name in ("within", "match_related")):
        return None
    known.trigger, known.actions = wanted.trigger, wanted.actions
    known.update()
    return cast("Automation", known)


def main() -> None:
    """Create the automation, and say so."""
    with one_line_errors():
        require_server()
        created = watch_lost_runs()
        state = "is set up" if created else "exists"
        print(f"automation {NAME} {state}: it ends runs that are silent for {_MINUTES} minutes")


if __name__ == "__main__":
    main()
