"""A document is changed if its content changed; another URI alone is recorded, and costs little."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from isospace.collection.snapshot import Manifest, latest_manifest
from isospace.errors import IntegrityError
from isospace.operations.maintenance.compact import compact_collection
from isospace.operations.maintenance.compaction_settings import CompactionSettings
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.plan_report import plan_only
from isospace.search.open_index import open_index
from isospace.search.sql_database import serving_files
from isospace.storage.store import open_store
from tests.conftest import Configure, sentences, write_jsonl
from tests.helpers.inline import embed_inline


def manifest_of(config: PipelineConfig) -> Manifest:
    manifest = latest_manifest(open_store(config.runtime.store), "c")
    assert manifest is not None
    return manifest


def locations(config: PipelineConfig) -> set[str]:
    """The tables that documents are in, as every reader of the store sees them."""
    documents = open_index(config.runtime.store, "c").view.copy.documents
    with duckdb.connect(str(Path(config.runtime.store) / serving_files(manifest_of(config))[0]), read_only=True) as db:
        rows = [*db.execute("SELECT uri FROM documents").fetchall(), *db.execute("SELECT uri FROM chunks").fetchall()]
    return {uri.split("#")[0] for uri in [*documents["uri"].to_pylist(), *(uri for (uri,) in rows)]}


@pytest.fixture
def embedded(configure: Configure, tmp_path: Path) -> PipelineConfig:
    (tmp_path / "t").mkdir()
    write_jsonl(tmp_path / "t" / "a.jsonl", sentences(120))
    config = configure(tmp_path / "t")
    embed_inline(config)
    return config


@pytest.mark.parametrize("serving_table_rows", [0, 1_000_000])
def test_a_renamed_table_keeps_its_chunks_and_vectors(
    embedded: PipelineConfig, tmp_path: Path, serving_table_rows: int
) -> None:
    before = manifest_of(embedded)
    (tmp_path / "t" / "a.jsonl").rename(tmp_path / "t" / "b.jsonl")
    runtime = embedded.runtime.model_copy(update={"serving_table_rows": serving_table_rows})
    config = embedded.model_copy(update={"runtime": runtime})
    plan = plan_only(config)
    assert (plan.unchanged, plan.changed, plan.moved, plan.chunks) == (120, 0, 120, 0)
    report = embed_inline(config)
    after = manifest_of(config)
    assert (report.committed, report.encoded, report.documents) == (True, 0, 120)
    assert after.snapshot_id != before.snapshot_id
    assert after.deletions is None
    same = [(part.name, part.chunks, part.segment) for part in before.parts]
    assert [(part.name, part.chunks, part.segment) for part in after.parts] == same
    assert locations(config) == {"b.jsonl"}
    assert not embed_inline(config).committed
    # Under its old name it is the old content.
    (tmp_path / "t" / "b.jsonl").rename(tmp_path / "t" / "a.jsonl")
    embed_inline(config)
    assert manifest_of(config).snapshot_id == before.snapshot_id
    assert manifest_of(config).parts == before.parts


def test_moved_changed_and_deleted_documents_of_one_part(embedded: PipelineConfig, tmp_path: Path) -> None:
    documents = sentences(120)
    moved = {name: documents.pop(name) for name in list(documents)[:30]}
    del documents["d00040"]
    documents["d00041"] = "another text about a protein"
    write_jsonl(tmp_path / "t" / "a.jsonl", documents)
    write_jsonl(tmp_path / "t" / "sub.jsonl", moved)
    report = embed_inline(embedded)
    assert (report.documents, report.encoded) == (119, 1)
    found = open_index(embedded.runtime.store, "c").view.copy.documents
    uris = dict(zip(found["doc_id"].to_pylist(), found["uri"].to_pylist(), strict=True))
    assert uris == {name: f"{'sub' if name in moved else 'a'}.jsonl#{name}" for name in {**documents, **moved}}


def test_compaction_writes_what_a_fresh_run_writes(
    embedded: PipelineConfig, configure: Configure, tmp_path: Path
) -> None:
    (tmp_path / "t" / "a.jsonl").rename(tmp_path / "t" / "b.jsonl")
    embed_inline(embedded)
    compact_collection(open_store(embedded.runtime.store), "c", CompactionSettings(part_documents=1_000))
    fresh = configure(tmp_path / "t", runtime={"store": str(tmp_path / "fresh"), "part_documents": 1_000})
    embed_inline(fresh)
    compacted, new = manifest_of(embedded), manifest_of(fresh)
    assert compacted.snapshot_id == new.snapshot_id
    assert [(part.name, part.chunks.sha256) for part in compacted.parts] == [
        (part.name, part.chunks.sha256) for part in new.parts
    ]
    assert locations(embedded) == {"b.jsonl"}


def test_a_damaged_file_is_not_copied_under_a_new_digest(embedded: PipelineConfig, tmp_path: Path) -> None:
    path = tmp_path / "store" / manifest_of(embedded).parts[0].documents.path
    # A change that Parquet's own checksums do not cover.
    changed = path.read_bytes().replace(b"parquet-cpp-arrow", b"parquet-cpp-arroz")
    assert changed != path.read_bytes()
    path.write_bytes(changed)
    (tmp_path / "t" / "a.jsonl").rename(tmp_path / "t" / "b.jsonl")
    with pytest.raises(IntegrityError):
        embed_inline(embedded)
