"""Runs with a sparse encoder: what they store, what they encode again, and what searches find."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pytest

from isospace.cli.main import main
from isospace.collection.disk_usage import disk_usage
from isospace.collection.snapshot import Manifest, latest_manifest
from isospace.collection.sparse_vectors import read_sparse_vectors
from isospace.collection.vector_files import vector_part_path, vector_parts
from isospace.encoding.sparse.model import SparseEncoder
from isospace.errors import CheckError, ConfigError, IntegrityError, MismatchError, QueryError
from isospace.operations.encoders import list_encoders
from isospace.operations.maintenance.compact import compact_collection
from isospace.operations.maintenance.compaction_settings import CompactionSettings
from isospace.operations.maintenance.forget import forget
from isospace.operations.maintenance.vacuum import vacuum
from isospace.operations.maintenance.verify import verify_snapshot
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.embed import plan_run, refit_space
from isospace.search.index import Index
from isospace.search.open_index import open_index
from isospace.search.sparse_index import SparseIndex
from isospace.storage.parquet import read_parquet, write_parquet
from isospace.storage.store import Store, open_store
from tests.conftest import sentences, write_jsonl
from tests.helpers.documents import configuration, copied
from tests.helpers.inline import embed_inline
from tests.helpers.serving import serving
from tests.helpers.tiny import build_tiny_sparse

QUERIES = ["the cell and the gene", "vector index search", "protein"]


@pytest.fixture(scope="module")
def sparse_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_sparse(tmp_path_factory.mktemp("sparse") / "tiny")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, sparse_model: Path) -> PipelineConfig:
    """A collection of 60 documents in two parts."""
    folder = tmp_path_factory.mktemp("world")
    source = write_jsonl(folder / "d.jsonl", sentences(60))
    recipe = {"sparse": {"model": str(sparse_model)}, "lexical": {"kind": "bm25"}}
    config = configuration(tiny_model, source, folder / "store", recipe=recipe, runtime={"report_chunks": 0})
    embed_inline(config)
    return config


@pytest.fixture
def config(world: PipelineConfig, tmp_path: Path) -> PipelineConfig:
    return copied(world, tmp_path / "copy")


def stored(config: PipelineConfig) -> tuple[Store, Manifest]:
    store = open_store(config.runtime.store)
    manifest = latest_manifest(store, "c")
    assert manifest is not None
    return store, manifest


def sparse_files(store: Store, manifest: Manifest) -> set[str]:
    return {stat.path for stat in store.walk(f"collections/c/segments/{manifest.sparse_space_id}")}


def without_sparse(config: PipelineConfig) -> PipelineConfig:
    return config.model_copy(update={"recipe": config.recipe.model_copy(update={"sparse": None})})


def brute_force(index: Index, text: str) -> dict[str, float]:
    """Score every chunk from its stored text: encode, quantize, and add, with Python's integers."""
    view = index.view
    assert isinstance(view.sparse, SparseIndex)
    assert view.sparse.space is not None
    space = view.sparse.space
    assert isinstance(space.encoder, SparseEncoder)
    terms, impacts = space.impacts([text], "query").row(0)
    query = dict(zip(terms.tolist(), impacts.tolist(), strict=True))
    texts = view.texts(range(len(view.copy)))
    codes = space.impacts(texts, "document")
    scores = {}
    for number, name in enumerate(view.copy.chunks["chunk_id"].to_pylist()):
        row = zip(*(part.tolist() for part in codes.row(number)), strict=True)
        scores[name] = sum(query.get(term, 0) * impact for term, impact in row) * view.sparse.grid.unit
    return scores


def test_a_search_returns_the_exact_sums(config: PipelineConfig) -> None:
    with open_index(config.runtime.store, "c") as index:
        for text in QUERIES:
            expected = {name: score for name, score in brute_force(index, text).items() if score > 0}
            found = {hit.chunk_id: hit.score for hit in index.search(text, k=1_000, mode="sparse")[0]}
            assert found == expected
            assert found


def test_hybrid_fuses_three_rankings_and_weighs_the_third(config: PipelineConfig) -> None:
    with open_index(config.runtime.store, "c") as index:
        text = QUERIES[0]
        alone = {mode: index.search(text, k=100, mode=mode)[0] for mode in ("exact", "lexical", "sparse")}  # type: ignore[arg-type]
        ranks = {mode: {hit.chunk_id: rank for rank, hit in enumerate(hits, 1)} for mode, hits in alone.items()}
        for weight in (1.0, 2.5):
            (hits,) = index.search(text, k=5, mode="hybrid", sparse_weight=weight)
            for hit in hits:
                legs = zip(ranks.values(), (1.0, 1.0, weight), strict=True)
                assert hit.score == pytest.approx(sum(w / (60 + r[hit.chunk_id]) for r, w in legs if hit.chunk_id in r))
                assert set(hit.scores) <= {"vector", "bm25", "sparse"}
        (two,) = index.search(text, k=5, mode="hybrid", sparse_weight=0)
        assert all("sparse" not in hit.scores for hit in two)


def test_the_service_and_the_command_find_the_same(
    world: PipelineConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_index(world.runtime.store, "c") as index:
        expected = {
            mode: [(hit.chunk_id, hit.score) for hit in index.search(QUERIES[0], k=7, mode=mode)[0]]  # type: ignore[arg-type]
            for mode in ("sparse", "hybrid")
        }
        with serving(index) as url:
            for mode, hits in expected.items():
                answer = httpx.post(f"{url}/search", json={"query": QUERIES[0], "k": 7, "mode": mode})
                assert answer.status_code == 200, answer.text
                (result,) = answer.json()["results"]
                assert [(hit["chunk_id"], hit["score"]) for hit in result["hits"]] == hits
    arguments = ["isospace", "search", world.runtime.store, "c", QUERIES[0], "-k", "7", "--mode", "sparse", "--json"]
    monkeypatch.setattr(sys, "argv", arguments)
    # A search for sparse terms loads no dense encoder.
    monkeypatch.setattr("isospace.encoding.embedder.open_encoder", None)
    with contextlib.suppress(SystemExit):
        main()
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert [(hit["chunk_id"], hit["score"]) for hit in result["hits"]] == expected["sparse"]


def test_filters_and_rows_apply_to_sparse_search(config: PipelineConfig) -> None:
    with open_index(config.runtime.store, "c") as index:
        (hits,) = index.search("the cell", k=100, mode="sparse", filter='doc_id == "d00007"')
        assert {hit.doc_id for hit in hits} == {"d00007"}


def test_the_manifest_names_space_encoder_and_files(config: PipelineConfig) -> None:
    store, manifest = stored(config)
    assert {part.sparse.path for part in manifest.parts if part.sparse} == sparse_files(store, manifest)
    named = {ref.path for ref in manifest.files()}
    assert f"encoders/{manifest.sparse_encoder_id}/sparse.json" in named
    assert f"spaces/{manifest.sparse_space_id}/sparse.json" in named
    assert sparse_files(store, manifest) <= named
    kinds = {one.encoder_id: (one.kind, one.used_by) for one in list_encoders(store)}
    assert kinds[str(manifest.sparse_encoder_id)] == ("sparse", ("c/production",))
    assert kinds[manifest.encoder_id] == ("dense", ("c/production",))
    assert not verify_snapshot(store, "c").failures
    counted = disk_usage(store, "c")["encoders"]
    assert counted == sum(stat.size for stat in store.walk("encoders") if "described" not in stat.path)


def test_a_second_run_encodes_only_what_is_new(config: PipelineConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    store, before = stored(config)
    write_jsonl(Path(config.runtime.source), {**sentences(60), "new": "a protein that nobody has seen."})
    real, seen = SparseEncoder.encode, list[str]()

    def counting(self: SparseEncoder, texts: list[str], role: str) -> object:
        seen.extend(texts if role == "document" and len(texts) < 10 else ())
        return real(self, texts, role)  # type: ignore[arg-type]

    monkeypatch.setattr(SparseEncoder, "encode", counting)
    embed_inline(config)
    _, after = stored(config)
    assert len(seen) == 1
    assert "nobody has seen" in seen[0]
    assert (after.sequence, after.sparse_space_id) == (before.sequence + 1, before.sparse_space_id)
    assert set(before.parts) <= set(after.parts)
    embed_inline(config)
    assert stored(config)[1].sequence == after.sequence
    with open_index(store, "c") as index:
        assert any(hit.doc_id == "new" for hit in index.search("nobody has seen protein", k=1_000, mode="sparse")[0])


def test_a_snapshot_without_it_has_the_identity_of_earlier_versions(config: PipelineConfig) -> None:
    store, with_sparse = stored(config)
    embed_inline(without_sparse(config))
    _, plain = stored(config)
    assert plain.sparse_space_id is None
    assert plain.space_id == with_sparse.space_id
    assert plain.snapshot_id != with_sparse.snapshot_id
    body = json.loads(store.read(plain.paths.snapshot(plain.sequence)))
    assert "sparse" not in json.dumps(body)
    with (
        open_index(store, "c") as index,
        pytest.raises(QueryError, match=r"has no sparse vectors\. Set recipe\.sparse"),
    ):
        index.search("the cell", mode="sparse")
    # And back: nothing is encoded again, and the sealed space is found by the alias or sealed anew with the same bytes.
    embed_inline(config)
    assert stored(config)[1].snapshot_id == with_sparse.snapshot_id


def test_a_deleted_document_is_not_found(config: PipelineConfig) -> None:
    documents = sentences(60)
    del documents["d00003"]
    write_jsonl(Path(config.runtime.source), documents)
    embed_inline(config)
    with open_index(config.runtime.store, "c") as index:
        (hits,) = index.search("the number", k=1_000, mode="sparse")
        assert hits
        assert all(hit.doc_id != "d00003" for hit in hits)


def test_compaction_keeps_every_score(config: PipelineConfig) -> None:
    documents = sentences(60)
    del documents["d00003"]
    write_jsonl(Path(config.runtime.source), documents)
    embed_inline(config)
    store, before = stored(config)
    with open_index(store, "c") as index:
        expected = [[(hit.chunk_id, hit.score) for hit in index.search(q, k=1_000, mode="sparse")[0]] for q in QUERIES]
    compact_collection(store, "c", CompactionSettings(part_documents=1_000))
    _, after = stored(config)
    assert (len(after.parts), after.snapshot_id) == (1, before.snapshot_id)
    with open_index(store, "c") as index:
        found = [[(hit.chunk_id, hit.score) for hit in index.search(q, k=1_000, mode="sparse")[0]] for q in QUERIES]
    assert found == expected
    assert not verify_snapshot(store, "c").failures


def test_a_forgotten_document_leaves_no_weight(config: PipelineConfig, tmp_path: Path) -> None:
    store, before = stored(config)
    old = sparse_files(store, before)
    gone = {
        row["chunk_hash"]
        for part in before.parts
        for row in read_parquet(store, part.chunks.path, columns=["doc_id", "chunk_hash"]).to_pylist()
        if row["doc_id"] == "d00003"
    }
    encoder_id = str(before.sparse_encoder_id)
    assert gone <= {
        key for path in vector_parts(store, encoder_id) for key in read_sparse_vectors(store, path, encoder_id)[0]
    }
    forget(store, "c", ["d00003"], tmp_path, reason="x")
    left = {key for path in vector_parts(store, encoder_id) for key in read_sparse_vectors(store, path, encoder_id)[0]}
    assert left
    assert not gone & left
    _, after = stored(config)
    files = sparse_files(store, after)
    assert files == {part.sparse.path for part in after.parts if part.sparse}
    assert files != old
    for path in files:
        assert "d00003" not in read_parquet(store, path, columns=["doc_id"])["doc_id"].to_pylist()
    assert not verify_snapshot(store, "c").failures
    with open_index(store, "c") as index:
        assert index.search("the number", k=1_000, mode="sparse")[0]
    # What was rewritten still counts as encoded.
    embed_inline(config)
    assert stored(config)[1].snapshot_id == after.snapshot_id


def test_a_vacuum_keeps_what_a_snapshot_names_and_removes_the_rest(config: PipelineConfig, tmp_path: Path) -> None:
    store, before = stored(config)
    vacuum(store, tmp_path, retention_days=0.0, vectors=True)
    assert not verify_snapshot(store, "c").failures
    embed_inline(without_sparse(config))
    vacuum(store, tmp_path, retention_days=0.0, vectors=True)
    # The alias can still be rolled back to the first snapshot.
    assert sparse_files(store, before)
    write_jsonl(Path(config.runtime.source), sentences(50))
    embed_inline(without_sparse(config))
    vacuum(store, tmp_path, retention_days=0.0, vectors=True)
    left = [stat.path for stat in store.walk("")]
    traces = (str(before.sparse_space_id), str(before.sparse_encoder_id))
    assert not [path for path in left if any(trace in path for trace in traces)]


def test_a_lost_segment_is_rebuilt_from_the_raw_vectors(
    config: PipelineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, before = stored(config)
    lost = before.parts[0].sparse
    assert lost is not None
    store.delete(lost.path)
    with pytest.raises(IntegrityError, match="is missing"):
        open_index(store, "c")
    monkeypatch.setattr("isospace.pipeline.sparse.encode.write_sparse_vectors", None)
    embed_inline(config)
    assert stored(config)[1].snapshot_id == before.snapshot_id
    assert not verify_snapshot(store, "c").failures


def test_lost_raw_vectors_are_encoded_again(config: PipelineConfig) -> None:
    store, before = stored(config)
    for path in vector_parts(store, str(before.sparse_encoder_id)):
        store.delete(path)
    write_jsonl(Path(config.runtime.source), {**sentences(60), "new": "a protein."})
    embed_inline(config)
    assert not verify_snapshot(store, "c").failures


def test_a_segment_with_other_weights_stops_the_run(config: PipelineConfig, tmp_path: Path) -> None:
    store, before = stored(config)
    embed_inline(without_sparse(config))
    first, second = (part.sparse for part in before.parts)
    assert first is not None
    assert second is not None
    # Somebody copied a file of the same space over another.
    store.write(first.path, store.read(second.path))
    with pytest.raises((CheckError, IntegrityError)):
        embed_inline(config)


def test_a_changed_raw_vector_is_noticed(config: PipelineConfig) -> None:
    store, before = stored(config)
    encoder_id = str(before.sparse_encoder_id)
    (path, *_) = vector_parts(store, encoder_id)
    table = read_parquet(store, path)
    weights = table["weights"].combine_chunks()
    flat = weights.flatten().to_numpy().copy()
    flat[0] += np.float32(0.25)
    changed = pa.ListArray.from_arrays(weights.offsets, pa.array(flat))
    place = table.column_names.index("weights")
    other = table.set_column(place, "weights", changed).replace_schema_metadata(table.schema.metadata)
    write_parquet(store, path, other, replace=True)
    with pytest.raises(IntegrityError, match="its vectors have SHA-256"):
        read_sparse_vectors(store, path, encoder_id)


def test_another_encoder_of_queries_is_refused_when_an_index_is_opened(
    config: PipelineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = SparseEncoder.tokenize

    def cased(self: SparseEncoder, texts: list[str], role: str) -> list[list[int]]:
        return [[*ids, 1] if role == "query" else ids for ids in real(self, texts, role)]  # type: ignore[arg-type]

    monkeypatch.setattr(SparseEncoder, "tokenize", cased)
    with pytest.raises(MismatchError, match="tokens of the sparse encoder differ for role query"):
        open_index(config.runtime.store, "c")
    # Dense search needs none of it.
    with open_index(config.runtime.store, "c", sparse=False) as index:
        assert index.search("the cell", mode="exact")[0]
        with pytest.raises(QueryError, match="opened without its sparse encoder"):
            index.search("the cell", mode="sparse")


def test_a_plan_counts_texts_for_the_sparse_encoder_and_writes_nothing(
    config: PipelineConfig, tmp_path: Path, sparse_model: Path
) -> None:
    empty = config.model_copy(update={"runtime": config.runtime.model_copy(update={"store": str(tmp_path / "empty")})})
    report = plan_run(empty)
    assert report.sparse_texts == report.texts_to_encode == 60
    assert not [path for path in (tmp_path / "empty").rglob("*") if path.is_file()]
    assert plan_run(config).sparse_texts == 0
    assert plan_run(without_sparse(config)).sparse_texts is None


def test_a_refit_keeps_the_sparse_encoder_and_refuses_another(config: PipelineConfig) -> None:
    _, before = stored(config)
    changed = config.recipe.transform.model_copy(update={"fit": type(config.recipe.transform.fit)(kind="none")})
    recipe = config.recipe.model_copy(update={"transform": changed})
    refit_space(config.model_copy(update={"recipe": recipe}))
    _, after = stored(config)
    assert after.space_id != before.space_id
    assert after.sparse_space_id == before.sparse_space_id
    with pytest.raises(ConfigError, match=r"recipe\.sparse differs"):
        refit_space(without_sparse(config))


def test_raw_vectors_are_addressed_by_content(config: PipelineConfig) -> None:
    store, manifest = stored(config)
    encoder_id = str(manifest.sparse_encoder_id)
    for path in vector_parts(store, encoder_id):
        assert path == vector_part_path(encoder_id, Path(path).stem)
    # A second collection of the same texts encodes none of them.
    other = config.model_copy(update={"runtime": config.runtime.model_copy(update={"collection": "other"})})
    assert plan_run(other).sparse_texts == 0
