"""The whole line on the tiny model: incremental runs, what is encoded, what stays, what is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from isospace.collection.alias import alias_history, promote, resolve, rollback
from isospace.collection.snapshot import commit_manifest, latest_manifest, sequences
from isospace.encoding.embedder import load_space
from isospace.errors import ConfigError, ConflictError, FitError, NotFoundError, SourceError
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.plan_report import plan_only
from isospace.search.open_index import open_index
from isospace.storage.store import open_store
from tests.conftest import Configure, sentences, write_jsonl
from tests.helpers.inline import embed_inline


def store_of(config: PipelineConfig):
    return open_store(config.runtime.store)


def segments_of(config: PipelineConfig) -> dict[str, str]:
    manifest = latest_manifest(store_of(config), "c")
    assert manifest is not None
    return {part.segment.path: part.segment.sha256 for part in manifest.parts}


def test_a_second_run_encodes_nothing_and_commits_nothing(configure: Configure, tmp_path: Path) -> None:
    config = configure(write_jsonl(tmp_path / "d.jsonl", sentences(120)))
    first, second = embed_inline(config), embed_inline(config)
    assert first.encoded == first.chunks == 120
    assert (first.committed, first.promoted) == (True, "production")
    assert (second.encoded, second.committed, second.snapshot_id) == (0, False, first.snapshot_id)
    assert sequences(store_of(config), "c") == [1]


def test_one_per_cent_edited_added_and_deleted(configure: Configure, tmp_path: Path) -> None:
    documents = sentences(300)
    config = configure(write_jsonl(tmp_path / "d.jsonl", documents))
    embed_inline(config)
    before = segments_of(config)
    documents["d00007"] = "an edited text about the zebra"
    documents["new"] = "an added document about the quagga"
    gone = documents.pop("d00100")
    write_jsonl(tmp_path / "d.jsonl", documents)
    plan = plan_only(config)
    assert (plan.added, plan.changed, plan.removed, plan.unchanged, plan.texts_to_encode) == (1, 1, 1, 298, 2)
    report = embed_inline(config)
    assert (report.encoded, report.documents, report.chunks) == (2, 300, 300)
    after = segments_of(config)
    assert before.items() <= after.items()
    assert len(after) == len(before) + 1
    index = open_index(config.runtime.store, "c")
    found = {hit.doc_id for hits in index.search([gone, documents["d00007"]], k=300) for hit in hits}
    assert found == set(documents)
    texts = [hit.text for hit in index.search(documents["d00007"], k=300)[0] if hit.doc_id == "d00007"]
    assert texts == [documents["d00007"]]


def test_growing_in_steps_and_embedding_at_once_give_one_snapshot_id(configure: Configure, tmp_path: Path) -> None:
    documents = sentences(90)
    path = write_jsonl(tmp_path / "d.jsonl", dict(list(documents.items())[:40]))
    stepwise = configure(path, recipe={"transform": {"representations": ["float32"]}})
    first = embed_inline(stepwise)
    write_jsonl(path, documents)
    grown = embed_inline(stepwise)
    (tmp_path / "elsewhere").mkdir()
    shuffled = write_jsonl(tmp_path / "elsewhere" / "d.jsonl", dict(reversed(list(documents.items()))))
    store = open_store(stepwise.runtime.store)
    at_once = configure(
        shuffled, recipe={"transform": {"representations": ["float32"]}}, runtime={"collection": "other"}
    )
    # The same sealed space: a collection's first fit depends on what it held then.
    assert grown.space_id == first.space_id
    fresh = embed_inline(at_once)
    manifest = latest_manifest(store, "other")
    assert manifest is not None
    grown_manifest = latest_manifest(store, "c")
    assert grown_manifest is not None
    assert grown_manifest.documents_digest == manifest.documents_digest
    assert (grown_manifest.snapshot_id == manifest.snapshot_id) == (grown.space_id == fresh.space_id)
    assert fresh.encoded == 0


@pytest.mark.integration
@pytest.mark.parametrize(
    "change",
    [
        {"fit": {"kind": "none"}},
        {"fit": {"kind": "zca", "epsilon": 0.5, "allow_small_sample": True}},
        {"representations": ["int8"]},
        {"representations": ["float32", {"kind": "int8", "percentile": 95.0}]},
    ],
    ids=str,
)
def test_another_transform_calls_no_encoder(configure: Configure, tmp_path: Path, change: dict) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", sentences(120))
    first = embed_inline(configure(path))
    second = embed_inline(configure(path, recipe={"transform": change}))
    assert second.encoded == 0
    assert second.committed
    assert second.space_id != first.space_id
    index = open_index(str(tmp_path / "store"), "c")
    assert index.manifest.space_id == second.space_id
    assert len(index.vectors) == 120


def test_another_chunking_is_another_snapshot_in_the_same_space(configure: Configure, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", sentences(60, words=60))
    first = embed_inline(configure(path))
    second = embed_inline(configure(path, recipe={"chunking": {"max_tokens": 24, "overlap_tokens": 4}}))
    assert second.chunks > first.chunks
    assert second.space_id == first.space_id
    assert second.snapshot_id != first.snapshot_id


def test_the_sealed_space_is_used_until_a_refit_is_ordered(configure: Configure, tmp_path: Path) -> None:
    documents = sentences(100)
    path = write_jsonl(tmp_path / "d.jsonl", documents)
    first = embed_inline(configure(path))
    write_jsonl(path, documents | sentences(50, seed=1, words=5) | sentences(60, seed=2))
    second = embed_inline(configure(path))
    refitted = embed_inline(configure(path, runtime={"refit": True}))
    assert second.space_id == first.space_id
    assert refitted.space_id != first.space_id
    assert refitted.encoded == 0


def test_duplicate_texts_are_encoded_once(configure: Configure, tmp_path: Path) -> None:
    same = {f"d{n}": "the very same text" for n in range(30)}
    path = write_jsonl(tmp_path / "d.jsonl", same)
    report = embed_inline(
        configure(path, recipe={"chunking": {"include_title": False, "overlap_tokens": 4}, "transform": {}})
    )
    assert (report.chunks, report.encoded) == (30, 1)


def test_runtime_never_changes_the_snapshot(configure: Configure, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", sentences(200, words=20))
    ids = []
    for number, runtime in enumerate([{}, {"part_documents": 7}, {"shard_tokens": 100}, {"memory_mb": 64}]):
        config = configure(path, runtime={"store": str(tmp_path / f"store{number}"), **runtime})
        ids.append(embed_inline(config).snapshot_id)
    assert len(set(ids)) == 1


def test_the_query_path_equals_the_index_path(configure: Configure, tmp_path: Path) -> None:
    documents = sentences(150)
    config = configure(
        write_jsonl(tmp_path / "d.jsonl", documents), recipe={"chunking": {"include_title": False, "overlap_tokens": 4}}
    )
    embed_inline(config)
    index = open_index(config.runtime.store, "c")
    asked = index.space.embed(index.chunks["text"].to_pylist(), "query")
    assert np.abs(asked - index.vectors).max() < 5e-6
    codes = index.space.quantize(asked, "int8").astype(int) - index.space.quantize(index.vectors, "int8").astype(int)
    assert np.abs(codes).max() <= 1
    hits = index.search(list(documents.values()), k=1)
    assert [h[0].doc_id for h in hits] == list(documents)


def test_search_equals_brute_force(configure: Configure, tmp_path: Path) -> None:
    config = configure(write_jsonl(tmp_path / "d.jsonl", sentences(150)))
    embed_inline(config)
    for name in ("float32", "float16", "int8", "binary"):
        index = open_index(config.runtime.store, "c", representation=name)
        query = index.space.embed(["the protein of the cell"], "query")[0]
        scores = (index.vectors.astype(np.float64) * query).sum(axis=1)
        expected = sorted(zip(-scores, index.chunks["chunk_id"].to_pylist(), strict=True))[:20]
        assert [hit.chunk_id for hit in index.search("the protein of the cell", k=20, rescore=0)[0]] == [
            c for _, c in expected
        ]


def test_unreadable_documents_stay_as_they_were(configure: Configure, tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    for name, text in sentences(30).items():
        (folder / f"{name}.md").write_text(text)
    config = configure(folder, recipe={"documents": {}})
    first = embed_inline(config)
    (folder / "d00003.md").write_bytes(b"\x00\x01\x02\xff" * 50)
    second = embed_inline(config)
    assert second.quarantined == 1
    assert second.snapshot_id == first.snapshot_id
    third = embed_inline(configure(folder, recipe={"documents": {}, "transform": {"fit": {"kind": "none"}}}))
    assert third.documents == 30


def test_a_source_that_lost_most_documents_is_refused(configure: Configure, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", sentences(40))
    config = configure(path)
    embed_inline(config)
    write_jsonl(path, sentences(5))
    with pytest.raises(SourceError, match=r"35 of the collection's 40 documents are no longer there"):
        embed_inline(config)
    assert embed_inline(configure(path, runtime={"max_removed_share": 1.0})).documents == 5


def test_repeated_ids_are_set_aside(configure: Configure, tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    write_jsonl(path, sentences(20))
    path.write_text(path.read_text() + '{"doc_id": "d00003", "text": "again", "title": ""}\n')
    report = embed_inline(configure(path))
    assert (report.documents, report.quarantined) == (20, 1)
    manifest = latest_manifest(open_store(tmp_path / "store"), "c")
    assert manifest is not None
    assert manifest.quarantine is not None
    rows = pq.read_table(tmp_path / "store" / manifest.quarantine.path).to_pylist()
    assert "repeats the id" in rows[0]["reason"]


def test_too_long_texts_need_permission(configure: Configure, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", sentences(10, words=200))
    with pytest.raises(ConfigError, match="10 of 10 texts in one part exceed the encoder's limit of 48 tokens"):
        embed_inline(configure(path, recipe={"chunking": {"kind": "none"}}))
    report = embed_inline(configure(path, recipe={"chunking": {"kind": "none", "allow_truncation": True}}))
    assert report.chunks == 10


def test_a_small_sample_for_whitening_is_refused_and_nothing_is_visible(configure: Configure, tmp_path: Path) -> None:
    config = configure(write_jsonl(tmp_path / "d.jsonl", sentences(20)), recipe={"transform": {"fit": {"kind": "zca"}}})
    with pytest.raises(FitError, match="allow_small_sample"):
        embed_inline(config)
    with pytest.raises(NotFoundError, match="no snapshot"):
        open_index(config.runtime.store, "c")


def test_plan_writes_nothing(configure: Configure, tmp_path: Path) -> None:
    config = configure(write_jsonl(tmp_path / "d.jsonl", sentences(20)))
    report = plan_only(config)
    assert report.texts_to_encode == 20
    assert not (tmp_path / "store").exists()


def test_of_two_commits_one_wins(configure: Configure, tmp_path: Path) -> None:
    config = configure(write_jsonl(tmp_path / "d.jsonl", sentences(20)))
    embed_inline(config)
    store = store_of(config)
    manifest = latest_manifest(store, "c")
    assert manifest is not None
    assert commit_manifest(store, manifest) == manifest  # an answer that was lost: the commit is ours
    other = manifest.model_copy(update={"provenance": {"run_id": "another"}})
    with pytest.raises(ConflictError, match="committed snapshot"):
        commit_manifest(store, other)


def test_promote_and_rollback_are_a_history(configure: Configure, tmp_path: Path) -> None:
    documents = sentences(20)
    path = write_jsonl(tmp_path / "d.jsonl", documents)
    config = configure(path)
    for n in range(3):
        documents[f"extra{n}"] = f"one more text about {n}"
        write_jsonl(path, documents)
        embed_inline(config)
    store = store_of(config)
    assert rollback(store, "c", "production", reason="bad", hold=False).snapshot == 2
    assert rollback(store, "c", "production", reason="worse", hold=False).snapshot == 1
    with pytest.raises(NotFoundError, match="the first it named: no earlier snapshot"):
        rollback(store, "c", "production", reason="even worse")
    assert embed_inline(config).promoted is None  # a rolled-back alias is not moved by a run that finds nothing new
    assert resolve(store, "c", "production").sequence == 1
    promote(store, "c", "production", resolve(store, "c", "3"), reason="fixed")
    assert [e.action for e in alias_history(store, "c", "production")] == ["promote"] * 3 + ["rollback"] * 2 + [
        "promote"
    ]
    assert rollback(store, "c", "production", reason="again").snapshot == 1


def test_two_undisturbed_runs_write_the_same_bytes(configure: Configure, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", sentences(80))
    digests = []
    for number in range(2):
        embed_inline(configure(path, runtime={"store": str(tmp_path / f"s{number}")}))
        files = sorted((tmp_path / f"s{number}").rglob("*.parquet")) + sorted(
            (tmp_path / f"s{number}").rglob("*.safetensors")
        )
        digests.append(
            {f.relative_to(tmp_path / f"s{number}"): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}
        )
    assert digests[0] == digests[1]
    assert len(digests[0]) > 8


def test_a_space_promises_bits_only_where_one_engine_computed_everything(configure: Configure, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "d.jsonl", sentences(60))
    promises = []
    for backend in ("openvino", "torch"):
        store = str(tmp_path / backend)
        first = configure(source, runtime={"backend": backend, "store": store})
        embed_inline(first)
        again = {"transform": {"fit": {"kind": "none"}}}
        report = embed_inline(configure(source, recipe=again, runtime={"backend": "openvino", "store": store}))
        assert report.encoded == 0
        promises.append(load_space(open_store(store), report.space_id).record.promise)
    assert promises == ["bitwise", "within tolerance"]
