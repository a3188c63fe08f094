from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from flows import lost_runs
from flows.lost_runs import FLOWS, MESSAGE, NAME, main, watch_lost_runs

pytestmark = pytest.mark.usefixtures("prefect_server")


def automations() -> list[dict]:
    from prefect.settings import get_current_settings

    answer = httpx.post(f"{get_current_settings().api.url}/automations/filter", json={}, timeout=30)
    return [one for one in answer.raise_for_status().json() if one["name"] == NAME]


def test_the_automation_is_created_once_and_replaces_an_earlier_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.settings import get_current_settings

    with monkeypatch.context() as patch:
        patch.setattr(lost_runs, "SILENCE", timedelta(seconds=90))
        assert watch_lost_runs() is not None
    assert automations()[0]["trigger"]["within"] == 90
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
    # A flow of somebody else may send its heartbeats less often.
    assert trigger["match_related"] == {"prefect.resource.role": ["flow"], "prefect.resource.name": list(FLOWS)}
    (action,) = made["actions"]
    assert (action["type"], action["state"], action["message"]) == ("change-flow-run-state", "CRASHED", MESSAGE)


def test_it_watches_every_flow_of_isospace() -> None:
    written = "".join(path.read_text(encoding="utf-8") for path in Path(lost_runs.__file__).parent.glob("*.py"))
    assert sorted(re.findall(r"^@flow\(name=\"([\w-]+)\"", written, re.MULTILINE)) == sorted(FLOWS)
