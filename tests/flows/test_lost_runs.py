from __future__ import annotations

import httpx
import pytest

from flows.lost_runs import MESSAGE, NAME, main, watch_lost_runs

pytestmark = pytest.mark.usefixtures("prefect_server")


def automations() -> list[dict]:
    from prefect.settings import get_current_settings

    answer = httpx.post(f"{get_current_settings().api.url}/automations/filter", json={}, timeout=30)
    return [one for one in answer.raise_for_status().json() if one["name"] == NAME]


def test_the_automation_is_created_once(capsys: pytest.CaptureFixture[str]) -> None:
    from prefect.settings import get_current_settings

    assert watch_lost_runs() is not None
    assert watch_lost_runs() is None
    main()
    assert "exists" in capsys.readouterr().out
    (made,) = automations()
    trigger = made["trigger"]
    assert (trigger["posture"], trigger["within"], trigger["for_each"]) == ("Proactive", 600, ["prefect.resource.id"])
    # Three of Prefect's own heartbeats must be missing: a run on a busy machine is not lost.
    assert trigger["within"] > 3 * get_current_settings().flows.heartbeat_frequency
    # A run that has ended, or that somebody suspended, is not lost.
    assert {"prefect.flow-run.heartbeat", "prefect.flow-run.Completed", "prefect.flow-run.Suspended"} <= set(
        trigger["expect"]
    )
    (action,) = made["actions"]
    assert (action["type"], action["state"], action["message"]) == ("change-flow-run-state", "CRASHED", MESSAGE)
