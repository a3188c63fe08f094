from __future__ import annotations

import shutil
import time
from pathlib import Path

import httpx
import pytest

from flows import command
from flows.audit_collection import audit_collection
from flows.embed_corpus import embed_corpus
from isospace.errors import AuditError
from isospace.evaluation.query_sets import EvaluationSet, freeze_set
from isospace.storage.store import open_store
from tests.conftest import Configure, sentences, write_jsonl
from tests.flows.test_embed_corpus import artifacts

pytestmark = pytest.mark.usefixtures("prefect_server")


def alarms_seen(collection: str) -> list[str]:
    """Names of the alarms that the server has taken as events; they are sent in the background."""
    from prefect.settings import get_current_settings

    body = {"filter": {"event": {"name": ["isospace.audit.alarm"]}}, "limit": 50}
    url = f"{get_current_settings().api.url}/events/filter"
    for _ in range(100):
        events = httpx.post(url, json=body, timeout=30).raise_for_status().json()["events"]
        found = [one["payload"]["name"] for one in events if one["resource"]["prefect.resource.name"] == collection]
        if found:
            return found
        time.sleep(0.2)
    return []


def test_an_audit_is_quiet_then_raises_alarms_where_they_are_seen(
    configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = sentences(150)
    config = configure(write_jsonl(tmp_path / "d.jsonl", texts), runtime={"collection": "watched"})
    embed_corpus(config)
    url = config.runtime.store
    queries = {f"q{n}": f"title d{n:05d} {text}" for n, text in enumerate(list(texts.values())[:40])}
    freeze_set(open_store(url), "watched", EvaluationSet("default", "unjudged", queries), source="test")
    record = audit_collection(url, "watched")
    assert (record.number, record.alarms) == (1, ())
    assert (Path(url) / str(record.report)).is_file()
    assert any("no alarm" in text and "stale answers" in text for text in artifacts("watched-audit"))
    # The encoder's description is edited: nothing of this space can be served any more.
    (document,) = Path(url).glob(f"encoders/{document_id(url)}/encoder.json")
    shutil.copy(document, tmp_path / "kept.json")
    document.write_text(document.read_text().replace("mean", "max", 1))
    with pytest.raises(AuditError, match=r"raised 1 alarm:"):
        audit_collection(url, "watched")
    assert alarms_seen("watched")
    assert any("What to do:" in text for text in artifacts("watched-audit"))
    with pytest.raises(SystemExit) as ended:
        command.audit(audit_collection, [url, "watched", "--threshold", "mean_cosine=0.5"])
    assert ended.value.code == 1
    assert "raised 1 alarm:" in capsys.readouterr().err
    shutil.copy(tmp_path / "kept.json", document)
    command.audit(audit_collection, [url, "watched"])
    assert "is as it should be" in capsys.readouterr().out
    with pytest.raises(SystemExit) as wrong:
        command.audit(audit_collection, [url, "watched", "--threshold", "mean_cosinus=0.5"])
    assert wrong.value.code == 2
    assert "Known: norm_error" in capsys.readouterr().err


def document_id(url: str) -> str:
    from isospace.collection.snapshot import latest_manifest

    manifest = latest_manifest(open_store(url), "watched")
    assert manifest is not None
    return manifest.encoder_id
