from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.isospace.cli.conftest import Call

CONFIGS = Path(__file__).resolve().parents[3] / "configs"


def test_without_a_checkout_it_says_what_is_needed(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flows.deploy", None)
    done = call("deploy", str(CONFIGS / "demo.yaml"))
    assert (done.status, done.out) == (2, "")
    assert "needs the flows, which are in a checkout but not in the package" in done.err


def test_what_is_asked_for_reaches_the_server(call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from flows import deploy as deploying
    from flows.deploy import Deployed

    asked: list[tuple[list[str], dict[str, Any]]] = []

    def deploy(planned: list[Any], **options: Any) -> list[Deployed]:
        asked.append(([one.full_name for one in planned], options))
        return [Deployed(one.full_name, "created", (), "http://there") for one in planned]

    monkeypatch.setattr(deploying, "deploy", deploy)
    monkeypatch.chdir(tmp_path)
    demo = str(CONFIGS / "demo.yaml")
    done = call("deploy", demo, "--cron", "0 2 * * *", "--timezone", "Europe/Berlin", "--work-pool", "gpu", "--dry-run")
    assert done.status == 0, done.err
    names, options = asked.pop()
    assert names[0] == "embed-corpus/scifact-demo"
    schedule = options.pop("schedules")["main"]
    assert (schedule.cron, schedule.timezone) == ("0 2 * * *", "Europe/Berlin")
    assert options == {"work_pool": "gpu", "directory": str(tmp_path), "replace": False, "dry_run": True}
    assert "would be created" in done.out
    assert "http://there" not in done.out
    done = call("deploy", demo, "--directory", "/opt/isospace", "--name", "mine", "--replace")
    assert asked.pop()[1] == {
        "work_pool": "cpu",
        "directory": "/opt/isospace",
        "schedules": {},
        "replace": True,
        "dry_run": False,
    }
    assert "refer to /opt/isospace on the worker" in done.out
    assert "prefect deployment run embed-corpus/mine" in done.out
    wrong = call("deploy", str(CONFIGS / "finetune_demo.yaml"), "--audit-cron", "0 5 * * *")
    assert (wrong.status, asked) == (2, [])
    assert "is deployed as finetune-encoder alone; use --cron" in wrong.err
