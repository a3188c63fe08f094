"""An erasure leaves no serving database that may hold deleted rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from isospace.collection.snapshot import Manifest, read_manifest, sequences
from isospace.operations.maintenance.compact import compact_collection
from isospace.operations.maintenance.compaction_settings import CompactionSettings
from isospace.operations.maintenance.find_documents import find_documents
from isospace.operations.maintenance.forget import forget
from isospace.operations.maintenance.rebuild_search import purge_serving
from isospace.operations.maintenance.vacuum import vacuum
from isospace.operations.maintenance.verify import verify_snapshot
from isospace.pipeline.config import PipelineConfig
from isospace.search.sql_database import serving_files, verify_serving
from isospace.search.sql_record import read_serving_record
from isospace.storage.store import Store, open_store
from tests.conftest import Configure, sentences, write_jsonl
from tests.helpers.inline import embed_inline
from tests.helpers.store_contents import holders

CANARY = "quetzalcoatlus"


@pytest.fixture
def haunted(configure: Configure, tmp_path: Path) -> PipelineConfig:
    """A collection that has had a document with the canary, which only deleted rows of a database still hold."""
    documents = sentences(60)
    path = write_jsonl(tmp_path / "d.jsonl", {**documents, "secret": f"alpha beta the {CANARY} gamma delta."})
    config = configure(path, runtime={"part_documents": 20})
    embed_inline(config)
    write_jsonl(path, documents)
    embed_inline(config)
    store = open_store(config.runtime.store)
    compact_collection(store, "c", CompactionSettings(part_documents=20, max_deleted_share=0.0))
    # An alias can be rolled back by one snapshot: after two more, none that had the document is kept.
    for number in range(2):
        write_jsonl(path, documents | {"d00001": f"an edit, number {number}"})
        embed_inline(config)
    vacuum(store, tmp_path / "vacuum", retention_days=0, vectors=True)
    return config


def databases(store: Store) -> list[str]:
    return [name for name in holders(store.root or Path(), CANARY.encode()) if name.endswith(".duckdb")]


def test_a_document_that_only_deleted_rows_hold_is_erased_too(haunted: PipelineConfig, tmp_path: Path) -> None:
    store = open_store(haunted.runtime.store)
    before = sequences(store, "c")
    held = databases(store)
    assert find_documents(store, "c", {"secret"}).doc_ids == set()
    assert held != []
    receipt = forget(store, "c", ["secret"], tmp_path / "scratch", reason="x")
    assert databases(store) == []
    assert set(held) <= set(receipt.rewritten)
    assert sequences(store, "c") == before
    for number in before:
        assert not read_serving_record(store, read_manifest(store, "c", number)).reused
    assert verify_snapshot(store, "c").failures == ()


def purged(store: Store, tmp_path: Path) -> tuple[list[str], list[str]]:
    manifests = [read_manifest(store, "c", number) for number in sequences(store, "c")]
    return purge_serving(store, manifests, tmp_path / "scratch", memory_mb=512)


def test_a_database_that_is_not_its_records_is_built_again_and_others_stay(
    haunted: PipelineConfig, tmp_path: Path
) -> None:
    """The record of a database that was built from every part may stand beside one that was not."""
    store = open_store(haunted.runtime.store)
    purged(store, tmp_path)
    assert purged(store, tmp_path) == ([], [])
    database, record = serving_files(latest(store))
    store.write(database, store.read(database) + b"more")
    assert purged(store, tmp_path) == ([database], [])
    store.delete(record)
    assert purged(store, tmp_path) == ([database], [])
    assert not verify_serving(store, latest(store)).reused


def test_the_database_of_a_damaged_snapshot_is_removed(haunted: PipelineConfig, tmp_path: Path) -> None:
    store = open_store(haunted.runtime.store)
    store.delete(latest(store).parts[0].segment.path)
    older = serving_files(read_manifest(store, "c", sequences(store, "c")[0]))
    _, removed = purged(store, tmp_path)
    assert set(serving_files(latest(store))) <= set(removed)
    assert not any(store.exists(path) for path in removed)
    assert store.exists(older[0]) == (older[0] not in removed)
    assert databases(store) == []


@pytest.mark.parametrize("rows", [0, 1_000_000], ids=["view", "table"])
def test_an_erasure_keeps_the_layout(configure: Configure, tmp_path: Path, rows: int) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", sentences(30))
    embed_inline(configure(path, runtime={"serving_table_rows": rows}))
    store = open_store(tmp_path / "store")
    before = verify_serving(store, latest(store)).layout
    forget(store, "c", ["d00003"], tmp_path / "scratch", reason="x")
    assert verify_serving(store, latest(store)).layout == before == ("table" if rows else "view")


def latest(store: Store) -> Manifest:
    return read_manifest(store, "c", sequences(store, "c")[-1])
