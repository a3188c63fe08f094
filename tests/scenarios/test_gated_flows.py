import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from prefect.client.schemas import State
from prefect.settings import get_current_settings

from flows.embed_corpus import embed_corpus
from flows.refit_space import refit_space
from isospace.collection.alias import aliases
from isospace.collection.snapshot import latest_manifest
from isospace.errors import ConfigError, GateError
from isospace.evaluation.gate.verdicts import read_verdicts
from isospace.operations.maintenance.verify import verify_snapshot
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.run_report import RunReport
from isospace.search.open_index import open_index
from isospace.storage.store import open_store
from tests.conftest import Configure, sentences, write_jsonl

RULES = ("ndcg@10 not worse than production by more than 0.05 at p < 0.05", "recall@10 >= 0.5")


@pytest.fixture
def gate(tmp_path: Path) -> dict:
    asked = list(sentences(60).items())
    (tmp_path / "q.csv").write_text("query_id,text\n" + "\n".join(f"{d},title {d} {text}" for d, text in asked))
    (tmp_path / "r.csv").write_text("query_id,doc_id,relevance\n" + "\n".join(f"{d},{d},1" for d, _ in asked))
    return {"queries": str(tmp_path / "q.csv"), "judgements": str(tmp_path / "r.csv"), "rules": RULES}


def red_tasks(state: State) -> list[str]:
    """Return the failed tasks of a run; the server takes their states as events, in the background."""
    body = {"flow_runs": {"id": {"any_": [str(state.state_details.flow_run_id)]}}}
    url = f"{get_current_settings().api.url}/task_runs/filter"
    for _ in range(100):
        tasks = httpx.post(url, json=body, timeout=30).raise_for_status().json()
        red = [task for task in tasks if task["state_type"] == "FAILED"]
        if red:
            assert all("Look at reports/" in task["state"]["message"] for task in red)
            assert all("95 % interval" in task["state"]["message"] for task in red)
            return [task["name"] for task in red]
        time.sleep(0.2)
    return []


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("back", [embed_corpus, refit_space], ids=["embed", "refit"])
def test_a_rejected_snapshot_stays_a_candidate_and_the_recipe_can_go_back(
    configure: Configure, gate: dict, tmp_path: Path, back: Callable[[PipelineConfig], RunReport]
):
    source = write_jsonl(tmp_path / "d.jsonl", sentences(120))
    good = configure(source, recipe={"gate": gate, "transform": {"representations": ["float32"]}})
    first = embed_corpus(good)
    assert (first.promoted, first.gate) == ("production", "snapshot 1 passed 1 rule; 1 skipped")
    bad = configure(source, recipe={"gate": gate, "transform": {"representations": ["binary"]}})
    with pytest.raises(GateError, match=r"snapshot 2 was rejected against snapshot 1: `ndcg@10"):
        refit_space(bad)
    store = open_store(tmp_path / "store")
    named = {name: entry.snapshot for name, entry in aliases(store, "c").items()}
    assert named == {"candidate": 2, "production": 1}
    # The next night finds the same, and says so again.
    state = embed_corpus(bad, return_state=True)
    assert (state.name, str(state.message)[:23]) == ("Failed", "snapshot 2 was rejected")
    assert red_tasks(state) == ["quality gate"]
    candidate = latest_manifest(store, "c")
    assert candidate is not None
    assert len(read_verdicts(store, "c", candidate.snapshot_id)) == 1
    # The recipe goes back: nothing is fitted or encoded, and the space is the one in production.
    again = back(good)
    assert (again.space_id, again.snapshot_id, again.encoded) == (first.space_id, first.snapshot_id, 0)
    assert again.promoted == "production"
    with open_index(store, "c") as index:
        assert index.manifest.sequence == 3
        assert index.search("title d00003 " + sentences(120)["d00003"])[0][0].doc_id == "d00003"
    assert not verify_snapshot(store, "c", "production").failures


@pytest.mark.usefixtures("prefect_server")
def test_queries_that_are_missing_are_found_before_anything_is_read(configure: Configure, gate: dict, tmp_path: Path):
    source = write_jsonl(tmp_path / "d.jsonl", sentences(20))
    with pytest.raises(ConfigError, match=r"absent\.csv: cannot be read"):
        embed_corpus(configure(source, recipe={"gate": {**gate, "queries": str(tmp_path / "absent.csv")}}))
    assert not (tmp_path / "store" / "collections").exists()


@pytest.mark.usefixtures("prefect_server")
def test_a_run_without_rules_is_no_way_round_a_rejection(configure: Configure, gate: dict, tmp_path: Path):
    source = write_jsonl(tmp_path / "d.jsonl", sentences(120))
    embed_corpus(configure(source, recipe={"gate": gate, "transform": {"representations": ["float32"]}}))
    with pytest.raises(GateError):
        refit_space(configure(source, recipe={"gate": gate, "transform": {"representations": ["binary"]}}))
    ungated = embed_corpus(configure(source, recipe={"transform": {"representations": ["binary"]}}))
    assert (ungated.snapshot, ungated.promoted) == (2, None)
    assert aliases(open_store(tmp_path / "store"), "c")["production"].snapshot == 1


@pytest.mark.usefixtures("prefect_server")
def test_after_a_rejected_refit_runs_go_on_in_the_space_of_production(configure: Configure, gate: dict, tmp_path: Path):
    source = write_jsonl(tmp_path / "d.jsonl", sentences(120))
    plain = {"representations": ["float32"], "fit": {"kind": "center"}}
    first = embed_corpus(configure(source, recipe={"gate": gate, "transform": plain}))
    write_jsonl(source, sentences(140))
    # The same recipe, fitted again on more documents; a rule that nothing holds rejects it.
    strict = {**gate, "rules": ("recall@10 >= 2",)}
    with pytest.raises(GateError):
        embed_corpus(configure(source, recipe={"gate": strict, "transform": plain}, runtime={"refit": True}))
    write_jsonl(source, sentences(150))
    third = embed_corpus(configure(source, recipe={"gate": gate, "transform": plain}))
    assert (third.space_id, third.promoted) == (first.space_id, "production")
    assert third.documents == 150
