"""What a hostile review has broken once, and must not break again."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

import pytest

from isospace.collection import alias
from isospace.collection.alias import aliases, promote, rollback
from isospace.collection.raw_vectors import read_vectors
from isospace.collection.snapshot import latest_manifest, read_manifest, sequences
from isospace.collection.tombstones import forgotten_documents, read_tombstones, unfinished_tombstones, write_tombstone
from isospace.collection.vector_files import vector_parts
from isospace.errors import BusyError, IntegrityError, NotFoundError, SourceError
from isospace.evaluation.baseline_sample import read_reference
from isospace.evaluation.query_sets import EvaluationSet, freeze_set, read_set, set_versions
from isospace.operations.maintenance import vacuum as vacuuming
from isospace.operations.maintenance.compact import compact, conclude_compaction, plan_compaction
from isospace.operations.maintenance.compaction_settings import CompactionSettings
from isospace.operations.maintenance.derived_data import forget_references
from isospace.operations.maintenance.forget import forget
from isospace.operations.maintenance.vacuum import vacuum
from isospace.operations.maintenance.verify import verify_snapshot
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.selection import Selection
from isospace.storage.hashing import seal, unseal
from isospace.storage.leases import maintenance_lease, run_lease
from isospace.storage.parquet import read_parquet
from isospace.storage.store import Store, open_store
from tests.conftest import Configure, sentences, write_jsonl
from tests.helpers.inline import embed_inline
from tests.isospace.operations.maintenance.test_vacuum import age

SECRET = "alpha beta the quetzalcoatlus gamma delta number nine."


@pytest.fixture
def config(configure: Configure, tmp_path: Path) -> PipelineConfig:
    return configure(write_jsonl(tmp_path / "d.jsonl", {**sentences(30), "secret": SECRET}))


def again(config: PipelineConfig, documents: dict[str, str]) -> Store:
    write_jsonl(Path(config.runtime.source), documents)
    embed_inline(config)
    return open_store(config.runtime.store)


def vectors(store: Store) -> int:
    encoders = store.folders("vectors")
    return sum(len(read_vectors(store, path, e)[0]) for e in encoders for path in vector_parts(store, e))


def test_an_order_that_was_lifted_is_not_taken_up_again(config: PipelineConfig, tmp_path: Path) -> None:
    embed_inline(config)
    store = open_store(config.runtime.store)
    write_tombstone(store, "c", "forget", ("secret",), "killed before anything was done")
    write_tombstone(store, "c", "allow", ("secret",), "a mistake")
    assert unfinished_tombstones(store, "c") == []
    forget(store, "c", ["secret"], tmp_path / "scratch", reason="after all")
    assert len(read_tombstones(store, "c")) == 3
    assert forgotten_documents(store, "c") == {"secret"}


def test_vectors_of_older_versions_go_though_a_vacuum_took_their_chunks(config: PipelineConfig, tmp_path: Path) -> None:
    embed_inline(config)
    store = again(config, {**sentences(30), "secret": "another text of it, number two."})
    plan = plan_compaction(store, "c", CompactionSettings(part_documents=50, max_deleted_share=0.0))
    conclude_compaction(store, plan, compact(store, plan), tmp_path / "scratch")
    store.delete("collections/c/aliases/production/00000001.json")
    age(store, 30.0)
    time.sleep(1.1)
    vacuum(store, tmp_path / "scratch", retention_days=0.0, vectors=True)
    before = vectors(store)
    receipt = forget(store, "c", ["secret"], tmp_path / "scratch", reason="x")
    assert receipt.vectors == before - 30 >= 2
    assert vectors(store) == 30


def test_another_namespace_of_processes_cannot_be_asked(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    with run_lease(store, "c", "embed"):
        (path,) = (tmp_path / "store/leases/runs").iterdir()
        body = json.loads(path.read_text())
        assert body["host"] == socket.gethostname()
        path.write_text(json.dumps(body | {"machine": "another boot or namespace", "pid": 2**22 + 1}))
        with pytest.raises(BusyError), maintenance_lease(store, "c", "vacuum"):
            raise AssertionError("let in")
        os.utime(path, (time.time() - 4_000.0,) * 2)
        with maintenance_lease(store, "c", "vacuum"):
            pass


def test_a_rollback_outlives_an_order_to_forget(config: PipelineConfig, tmp_path: Path) -> None:
    embed_inline(config)
    store = again(config, {**sentences(30), "secret": SECRET, "bad": "a bad text, number three."})
    assert rollback(store, "c", "production", reason="bad", hold=False).snapshot == 1
    receipt = forget(store, "c", ["secret"], tmp_path / "scratch", reason="x")
    assert receipt.snapshots == {1: 1, 2: 2}
    assert aliases(store, "c")["production"].snapshot == 1
    assert embed_inline(config).promoted is None
    assert aliases(store, "c")["production"].snapshot == 1


def test_what_is_rolled_back_to_is_still_there_afterwards(config: PipelineConfig, tmp_path: Path) -> None:
    write_jsonl(Path(config.runtime.source), sentences(30))
    embed_inline(config)
    store = again(config, {**sentences(30), "secret": SECRET, "other": "another text, number four."})
    forget(store, "c", ["secret"], tmp_path / "scratch", reason="x")
    age(store, 30.0)
    time.sleep(1.1)
    found = vacuum(store, tmp_path / "scratch", retention_days=0.0)
    assert set(found.kept["c"]) == {1, 2}
    assert rollback(store, "c", "production", reason="x").snapshot == 1


def test_versions_of_a_set_that_share_their_files(config: PipelineConfig, tmp_path: Path) -> None:
    embed_inline(config)
    store = open_store(config.runtime.store)
    first = EvaluationSet("default", "pseudo", {"p": SECRET, "q": "beta"}, {"p": {"secret": 1}, "q": {"d00001": 1}})
    other = EvaluationSet("default", "pseudo", {"q": "beta"}, {"q": {"d00001": 1}})
    for given in (first, other, first):
        freeze_set(store, "c", given, source="x")
    forget(store, "c", ["secret"], tmp_path / "scratch", reason="x")
    assert len(set_versions(store, "c", "default")) == 3
    assert read_set(store, "c", "default").queries == {"q": "beta"}
    assert len([s for s in store.walk("collections/c/evaluation") if s.path.endswith("queries.parquet")]) == 1


def test_files_that_a_killed_run_left_are_found(config: PipelineConfig, tmp_path: Path) -> None:
    embed_inline(config)
    store = open_store(config.runtime.store)
    manifest = latest_manifest(store, "c")
    assert manifest is not None
    orphan = "collections/c/segments/" + "0" * 64 + "/" + "1" * 64 + ".parquet"
    store.write(orphan, store.read(manifest.parts[0].segment.path))
    reference = read_reference(store, manifest, 16)
    assert "secret" in reference.owners
    sample = next(s.path for s in store.walk("collections/c/references") if s.path.endswith(".parquet"))
    store.write(sample.replace(".parquet", "0.parquet"), store.read(sample))
    forget(store, "c", ["secret"], tmp_path / "scratch", reason="x")
    assert not store.exists(orphan)
    left = [s.path for s in store.walk("collections/c/references") if s.path.endswith(".parquet")]
    assert [len(read_parquet(store, path)) for path in left] == [30]


@pytest.mark.parametrize("kind", ["chunks", "snapshots"])
def test_a_forged_reference_has_forget_write_nowhere_else(config: PipelineConfig, tmp_path: Path, kind: str) -> None:
    embed_inline(config)
    store = open_store(config.runtime.store)
    manifest = latest_manifest(store, "c")
    assert manifest is not None
    read_reference(store, manifest, 16)
    path = next(s.path for s in store.walk("collections/c/references") if s.path.endswith(".json"))
    elsewhere = next(store.walk(f"collections/c/{kind}")).path
    record = unseal(store.read(path), name=path)
    store.write(path, seal({**record, "sample": {**record["sample"], "path": elsewhere}}))
    before = store.digest(elsewhere)
    removed: list[str] = []
    with pytest.raises(IntegrityError, match="expected a file in collections/c/references") as caught:
        forget_references(store, "c", ["secret"], set(), removed)
    assert elsewhere in str(caught.value)
    assert (store.digest(elsewhere), removed) == (before, [])
    # As the message says: without the record, forgetting goes through.
    store.delete(path)
    forget(store, "c", ["secret"], tmp_path / "scratch", reason="x")
    assert unfinished_tombstones(store, "c") == []


def test_a_first_run_that_never_committed_can_be_forgotten_from(config: PipelineConfig, tmp_path: Path) -> None:
    embed_inline(config)
    store = open_store(config.runtime.store)
    for folder in ("snapshots", "aliases"):
        for stat in store.walk(f"collections/c/{folder}"):
            store.delete(stat.path)
    receipt = forget(store, "c", ["secret"], tmp_path / "scratch", reason="x")
    assert receipt.found == ("secret",)
    assert not any(
        "secret" in str(read_parquet(store, s.path)["doc_id"]) for s in store.walk("collections/c/documents")
    )


def test_a_selection_does_not_get_round_a_lost_mount(config: PipelineConfig) -> None:
    embed_inline(config)
    chosen = config.runtime.model_copy(update={"selection": Selection(uri="*#d000*")})
    partial = config.model_copy(update={"runtime": chosen})
    for documents in ({"foreign": "a text, number one."}, {}):
        write_jsonl(Path(config.runtime.source), documents)
        with pytest.raises(SourceError, match="no longer there"):
            embed_inline(partial)
    assert sequences(open_store(config.runtime.store), "c") == [1]


def test_an_alias_that_moves_during_a_vacuum_keeps_its_snapshot(
    config: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed_inline(config)
    for n in range(3):
        store = again(config, {**sentences(30), "secret": f"version {n}, number {n}."})
    age(store, 30.0)
    time.sleep(1.1)
    real = vacuuming._of_spaces

    def moved(*arguments: object) -> object:
        promote(store, "c", "stable", read_manifest(store, "c", 1), reason="by hand")
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(vacuuming, "_of_spaces", moved)
    with pytest.raises(BusyError, match="or an alias moved"):
        vacuum(store, tmp_path / "scratch", retention_days=0.0)
    assert verify_snapshot(store, "c", "stable").failures == ()


def test_a_compaction_keeps_what_an_alias_was_forced_against(config: PipelineConfig, tmp_path: Path) -> None:
    embed_inline(config)
    store = again(config, {**sentences(30), "late": "a late text, number five."})
    promote(store, "c", "forced", read_manifest(store, "c", 2), reason="x", forced="rejected")
    plan = plan_compaction(store, "c", CompactionSettings(part_documents=80))
    done = conclude_compaction(store, plan, compact(store, plan), tmp_path / "scratch")
    assert set(done.aliases) == {"forced", "production"}
    assert alias.alias_history(store, "c", "forced")[-1].forced == "rejected"


def test_an_unknown_collection_is_still_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="'nowhere'"):
        forget(open_store(tmp_path / "store"), "nowhere", ["x"], tmp_path / "scratch", reason="x")
