"""A gate's set that judges documents of another corpus is refused before anything is encoded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from isospace.collection.deletions import DELETION_SCHEMA
from isospace.collection.part_record import PartRecord
from isospace.collection.snapshot import Manifest
from isospace.errors import ConfigError
from isospace.evaluation.query_sets import EvaluationSet, freeze_set
from isospace.pipeline.judged_documents import JudgedDocuments, require_judged
from isospace.pipeline.run import Run
from isospace.pipeline.scan.diff import Scan
from isospace.storage.parquet import write_parquet
from isospace.storage.paths import CollectionPaths
from isospace.storage.store import open_store
from tests.helpers.manifests import manifest
from tests.helpers.runs import bare_config, bare_run, write_chunk_part

RULES = ("recall@10 >= 0.5",)


def gated(tmp_path: Path, gate: Mapping[str, Any], *, base: Manifest | None = None) -> Run:
    return bare_run(tmp_path, config=bare_config(tmp_path, recipe={"gate": gate}), base=base)


def query_files(tmp_path: Path, doc_ids: list[str], relevance: int = 1) -> dict[str, Any]:
    (tmp_path / "q.csv").write_text("query_id,text\n" + "".join(f"q{n},text {n}\n" for n in range(len(doc_ids))))
    rows = "".join(f"q{n},{name},{relevance}\n" for n, name in enumerate(doc_ids))
    (tmp_path / "r.csv").write_text("query_id,doc_id,relevance\nq0,unwanted,0\n" + rows)
    return {"queries": str(tmp_path / "q.csv"), "judgements": str(tmp_path / "r.csv"), "rules": RULES}


def scanned(**changes: Any) -> Scan:
    counts = dict.fromkeys(("added", "changed", "unchanged", "removed", "stale", "quarantined", "forgotten"), 0)
    given: dict[str, Any] = {
        **counts, "parts": (), "kept": (), "deletions": None, "quarantine": None, "documents_digest": "",
        "documents": 0,
    }  # fmt: skip
    return Scan(**{**given, **changes})


def test_a_set_of_another_corpus_is_refused_with_the_share_found(tmp_path: Path) -> None:
    run = gated(tmp_path, query_files(tmp_path, [f"x{n}" for n in range(40)]))
    parts = [write_chunk_part(run, "a", ["one", "two"])]
    with pytest.raises(ConfigError) as caught:
        require_judged(run, scanned(), parts)
    message = str(caught.value)
    assert message.startswith("evaluation set default: 0 of 40 judged documents (0%) are in the source; missing are")
    assert "'x0', 'x1', 'x10' and 37 more. Expected at least 5%" in message
    assert "recipe.gate.judgements" in message


@pytest.mark.parametrize(("found", "refused"), [(1, True), (2, False), (36, False), (40, False)])
def test_a_few_ids_that_agree_by_chance_are_not_enough(tmp_path: Path, found: int, refused: bool) -> None:
    run = gated(tmp_path, query_files(tmp_path, [f"a{n}" for n in range(found)] + [f"x{n}" for n in range(40 - found)]))
    parts = [write_chunk_part(run, "a", [str(n) for n in range(found)])]
    if refused:
        with pytest.raises(ConfigError, match=rf"{found} of 40 judged documents"):
            require_judged(run, scanned(), parts)
        return
    result = require_judged(run, scanned(), parts)
    assert result is not None
    assert (result.judged, result.found, result.is_usual) == (40, found, found >= 36)


def test_what_stays_of_the_base_counts_without_what_was_deleted(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    first = bare_run(tmp_path)
    kept, dropped = (write_chunk_part(first, name, ["one", "two"]) for name in ("a", "b"))
    records = tuple(
        PartRecord(name=p.name, documents=p.documents, chunks=p.chunks, segment=p.chunks) for p in (kept, dropped)
    )
    base = manifest(1).model_copy(update={"parts": records})
    from isospace.collection.snapshot import commit_manifest

    commit_manifest(store, base)
    deleted = pa.table({"part": ["a"], "doc_id": ["a1"]}, schema=DELETION_SCHEMA)
    file = write_parquet(store, CollectionPaths("c").deletions("d"), deleted)
    run = gated(tmp_path, query_files(tmp_path, ["a0", "a1", "b0", "n0"]), base=base)
    new = write_chunk_part(run, "n", ["three"])
    result = require_judged(run, scanned(kept=("a",), deletions=file), [new])
    assert result == JudgedDocuments("default", 4, 2, ("a1", "b0"))


def test_a_frozen_set_is_checked_too(tmp_path: Path) -> None:
    run = gated(tmp_path, {"set": "mine", "rules": RULES})
    parts = [write_chunk_part(run, "a", ["one"])]
    freeze_set(run.store, "c", EvaluationSet("mine", "judged", {"q": "t"}, {"q": {"elsewhere": 1}}), source="x")
    with pytest.raises(ConfigError, match=r"evaluation set mine: 0 of 1 .* Set recipe\.gate\.set to"):
        require_judged(run, scanned(), parts)


@pytest.mark.parametrize("rules", [(), ("norms within 1e-6", "overlap@10 >= 0.5")])
def test_judgements_that_no_rule_needs_are_not_looked_for(tmp_path: Path, rules: tuple[str, ...]) -> None:
    run = gated(tmp_path, {**query_files(tmp_path, ["x"]), "rules": rules})
    assert require_judged(run, scanned(), [write_chunk_part(run, "a", ["one"])]) is None


def test_a_plan_shows_the_share_and_warns_of_many_that_are_missing() -> None:
    from dataclasses import replace

    from tests.isospace.pipeline.test_plan_report import NOTHING

    few = replace(NOTHING, judged=JudgedDocuments("default", 40, 20, ("x", "y")))
    assert dict(few.rows())["judged documents"] == "20 of 40 are in the source (evaluation set default)"
    assert few.warnings() == (
        "evaluation set default: 20 of 40 judged documents (50%) are in the source; missing are 'x', 'y' and 18 more: "
        "queries that only they answer count as misses",
    )
    assert replace(few, judged=JudgedDocuments("default", 40, 39, ("x",))).warnings() == ()
