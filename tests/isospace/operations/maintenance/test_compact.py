"""Compaction changes files and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from isospace.collection.alias import aliases, promote, resolve, rollback
from isospace.collection.snapshot import Manifest, deleted_documents, latest_manifest, read_manifest
from isospace.errors import ConflictError, IntegrityError, NotFoundError
from isospace.operations.maintenance.compact import (
    CompactionPlan,
    compact,
    conclude_compaction,
    follow_aliases,
    plan_compaction,
)
from isospace.operations.maintenance.compaction_settings import CompactionSettings
from isospace.operations.maintenance.rebuild_search import make_searchable
from isospace.operations.maintenance.verify import verify_snapshot
from isospace.pipeline.config import PipelineConfig
from isospace.search.lexical_files import build_lexical
from isospace.search.open_index import open_index
from isospace.storage.parquet import read_parquet
from isospace.storage.store import Store, open_store
from tests.conftest import Configure, configuration, sentences, write_jsonl
from tests.helpers.inline import embed_inline


def damage(store: Store, manifest: Manifest) -> list[str]:
    """Return what is damaged; databases and word indexes are made by the flow."""
    failures = verify_snapshot(store, manifest.collection, str(manifest.sequence)).failures
    return [failure for failure in failures if "/serving/" not in failure and "/lexical/" not in failure]


@pytest.fixture(scope="module")
def frayed_once(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three parts, and eight small ones of later runs, with documents deleted from all over."""
    folder = tmp_path_factory.mktemp("frayed")
    documents = sentences(130)
    config = configuration(tiny_model, folder / "d.jsonl", folder / "store")
    for version in range(9):
        write_jsonl(folder / "d.jsonl", documents)
        embed_inline(config)
        documents |= sentences(4, seed=version + 1)
        documents |= {f"new{version}-{n}": text for n, text in enumerate(sentences(3, seed=50 + version).values())}
        documents.pop(f"d{100 + version:05d}")
    return folder


@pytest.fixture
def frayed(frayed_once: Path, configure: Configure, tmp_path: Path) -> PipelineConfig:
    """A copy of it for one test alone."""
    shutil.copytree(frayed_once, tmp_path, dirs_exist_ok=True)
    return configure(tmp_path / "d.jsonl")


def planned(config: PipelineConfig, **options: float) -> CompactionPlan:
    settings = CompactionSettings(**{"part_documents": 50, **options})  # type: ignore[arg-type]
    return plan_compaction(open_store(config.runtime.store), "c", settings)


def test_the_same_content_in_fewer_files(frayed: PipelineConfig) -> None:
    store = open_store(frayed.runtime.store)
    before = latest_manifest(store, "c")
    assert before is not None
    plan = planned(frayed, max_deleted_share=0.0)
    with open_index(store.url, "c") as index:
        told = {hit.chunk_id: hit.score for hit in index.search("alpha beta gamma", k=2_000)[0]}
    after = compact(store, plan)
    assert (after.snapshot_id, after.sequence) == (before.snapshot_id, before.sequence + 1)
    assert len(after.parts) == plan.parts_after < len(before.parts)
    assert (after.documents, after.chunks) == (before.documents, before.chunks)
    assert after.deletions is None
    assert sum(part.documents.rows or 0 for part in after.parts) == after.documents
    assert sum(part.chunks.rows or 0 for part in after.parts) == after.chunks
    assert damage(store, after) == []
    with open_index(store.url, "c", str(after.sequence)) as index:
        again = {hit.chunk_id: hit.score for hit in index.search("alpha beta gamma", k=2_000)[0]}
    assert again == told
    assert planned(frayed).groups == ()


def test_the_snapshot_before_stays_whole_beside_one_of_the_same_content(frayed: PipelineConfig, tmp_path: Path) -> None:
    store = open_store(frayed.runtime.store)
    before = latest_manifest(store, "c")
    assert before is not None
    after = compact(store, planned(frayed))
    assert after.snapshot_id == before.snapshot_id
    make_searchable(store, before, after, tmp_path / "scratch")
    for manifest in (before, after):
        assert verify_snapshot(store, "c", str(manifest.sequence)).failures == ()


def test_few_deletions_are_left_as_they_are(frayed: PipelineConfig) -> None:
    store = open_store(frayed.runtime.store)
    after = compact(store, planned(frayed))
    assert after.deletions is not None
    assert 0 < (after.deletions.rows or 0) < 9
    assert sum(part.documents.rows or 0 for part in after.parts) == after.documents + (after.deletions.rows or 0)
    assert damage(store, after) == []


def test_its_files_are_those_a_run_would_have_written(configure: Configure, tmp_path: Path) -> None:
    documents = sentences(40)
    names = list(documents)
    config = configure(tmp_path / "d.jsonl")
    write_jsonl(tmp_path / "d.jsonl", {name: documents[name] for name in names[:20]})
    embed_inline(config)
    write_jsonl(tmp_path / "d.jsonl", documents)
    embed_inline(config)
    store = open_store(config.runtime.store)
    compacted = compact(store, planned(config))
    (part,) = compacted.parts
    whole = configure(tmp_path / "d.jsonl", runtime={"store": str(tmp_path / "other")})
    embed_inline(whole)
    other = latest_manifest(open_store(whole.runtime.store), "c")
    assert other is not None
    assert (part.name, part.documents, part.chunks) == tuple(
        getattr(other.parts[0], n) for n in ("name", "documents", "chunks")
    )


def test_aliases_follow_and_a_rollback_goes_back_to_other_content(frayed: PipelineConfig) -> None:
    store = open_store(frayed.runtime.store)
    old = latest_manifest(store, "c")
    assert old is not None
    promote(store, "c", "stable", read_manifest(store, "c", 2), reason="x")
    new = compact(store, planned(frayed))
    assert follow_aliases(store, old, new, "compaction") == ("production",)
    assert {name: entry.snapshot for name, entry in aliases(store, "c").items()} == {"production": 10, "stable": 2}
    assert rollback(store, "c", "production", reason="x").snapshot == 8


@pytest.mark.parametrize("search_files", ["none", "serving", "all"])
def test_a_compaction_killed_after_its_commit_is_finished_before_an_alias_moves(
    frayed: PipelineConfig, tmp_path: Path, search_files: str
) -> None:
    store = open_store(frayed.runtime.store)
    old = latest_manifest(store, "c")
    assert old is not None
    new = compact(store, planned(frayed))
    if search_files != "none":
        make_searchable(store, old, new, tmp_path / "scratch")
    if search_files == "serving":
        shutil.rmtree(tmp_path / "store" / "collections" / "c" / "lexical")
        embedded = read_manifest(store, "c", old.sequence)
        build_lexical(store, embedded, frayed.recipe.lexical)
    # Here it was killed: no alias has moved. The same command runs again.
    plan = planned(frayed)
    done = conclude_compaction(store, plan, compact(store, plan), tmp_path / "scratch")
    assert done.aliases == ("production",)
    assert aliases(store, "c")["production"].snapshot == new.sequence
    with open_index(store.url, "c") as index:
        for mode in ("exact", "lexical", "hybrid"):
            assert index.search("the cell number", k=3, mode=mode)[0], mode
    assert verify_snapshot(store, "c").failures == ()


def test_later_runs_go_on_from_it_and_encode_nothing(frayed: PipelineConfig, tmp_path: Path) -> None:
    store = open_store(frayed.runtime.store)
    compact(store, planned(frayed))
    first = embed_inline(frayed)
    assert first.encoded <= 4 * 2 + 3 * 2
    again = embed_inline(frayed)
    assert (again.encoded, again.committed) == (0, False)
    assert verify_snapshot(store, "c").failures == ()


def test_a_run_that_commits_meanwhile_wins(frayed: PipelineConfig) -> None:
    store = open_store(frayed.runtime.store)
    plan = planned(frayed)
    write_jsonl(Path(frayed.runtime.source), sentences(100))
    embed_inline(frayed)
    with pytest.raises(ConflictError, match="first"):
        compact(store, plan)
    assert verify_snapshot(store, "c").failures == ()


def test_parts_never_outgrow_their_limits(frayed: PipelineConfig) -> None:
    for most in (10, 25, 50, 1000):
        plan = planned(frayed, part_documents=most)
        assert all(group.documents <= most for group in plan.groups if len(group.parts) > 1)
    assert any(len(group.parts) > 1 for group in plan.groups)
    assert all(len(group.parts) == 1 for group in planned(frayed, part_megabytes=1 / (1 << 20)).groups)


def test_damage_is_named_and_nothing_is_committed(frayed: PipelineConfig) -> None:
    store = open_store(frayed.runtime.store)
    plan = planned(frayed)
    path = plan.groups[0].parts[0].segment.path
    data = bytearray(store.read(path))
    data[len(data) // 2] ^= 1
    store.write(path, bytes(data))
    with pytest.raises(IntegrityError, match="SHA-256"):
        compact(store, plan)
    latest = latest_manifest(store, "c")
    assert latest is not None
    assert latest.sequence == plan.base.sequence


def test_an_unknown_collection_is_named(frayed: PipelineConfig) -> None:
    with pytest.raises(NotFoundError, match="'nowhere'"):
        plan_compaction(open_store(frayed.runtime.store), "nowhere")


def test_vectors_are_the_same_rows(frayed: PipelineConfig) -> None:
    store = open_store(frayed.runtime.store)
    before = _rows(store, "production")
    new = compact(store, planned(frayed, max_deleted_share=0.0))
    assert _rows(store, str(new.sequence)) == before


def _rows(store: Store, reference: str) -> dict[str, dict[str, object]]:
    manifest = resolve(store, "c", reference)
    gone = deleted_documents(store, manifest.deletions)
    rows = [row | {"part": p.name} for p in manifest.parts for row in read_parquet(store, p.segment.path).to_pylist()]
    live = [row for row in rows if row["doc_id"] not in gone.get(row.pop("part"), ())]
    assert len(live) == manifest.chunks
    return {row["chunk_id"]: row for row in live}
