from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from isospace.cli.main import app
from isospace.errors import ConfigError
from isospace.evaluation.pareto_frontier import Corpus, default_representations, measure_frontier
from isospace.evaluation.reports.frontier import frontier_plot, frontier_table
from isospace.transform.representations import BinarySpec, Float16Spec, Int8Spec, PqSpec
from tests.conftest import Configure, sentences, write_jsonl
from tests.helpers.inline import embed_inline


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    rng = np.random.default_rng(0)
    documents = rng.normal(size=(1500, 32))
    queries = documents[:60] + 0.5 * rng.normal(size=(60, 32))
    sides = [(side / np.linalg.norm(side, axis=1, keepdims=True)).astype(np.float32) for side in (documents, queries)]
    names = tuple(f"q{n}" for n in range(60))
    owners = tuple(f"d{n}" for n in range(1500))
    return Corpus(sides[0], owners, sides[1], names, {name: {f"d{n}": 1} for n, name in enumerate(names)})


def test_coarser_codes_keep_less_and_rescoring_brings_it_back(corpus: Corpus) -> None:
    points = measure_frontier(corpus, [Float16Spec(), Int8Spec(), BinarySpec()], dimensions=(8,))
    by = {(point.representation, point.rescored): point for point in points}
    assert by["float32", 0].recall_10 == by["float32", 0].ndcg_kept == 1.0
    assert by["float16", 0].recall_10 > by["int8", 0].recall_10 > by["binary", 0].recall_10
    assert [by[name, 0].bytes for name in ("float32", "float16", "int8", "binary", "pca8 int8")] == [128, 64, 32, 4, 8]
    kept = [by["binary", r].recall_10 for r in (1, 2, 4, 10)]
    assert kept == sorted(kept)
    assert kept[-1] > 0.8 > kept[0]
    assert by["binary", 10].ndcg > by["binary", 0].ndcg


@pytest.mark.integration
def test_every_default_representation_is_measured_and_shown(corpus: Corpus) -> None:
    points = measure_frontier(corpus, default_representations(1500, 32))
    table = frontier_table(points)
    for name in ("float32", "int8_minmax", "binary_rotated", "rabitq", "opq8"):
        assert f"| {name} |" in table
    plot = frontier_plot(points, "a $title")
    assert plot.startswith("<svg ")
    for shown in ("a $title", "int8_minmax", "rescored x10", "nDCG@10, percent of float32"):
        assert f">{shown}</text>" in plot


def test_without_judgements_agreement_with_float32_is_measured(corpus: Corpus) -> None:
    unjudged = Corpus(corpus.vectors, corpus.owners, corpus.queries, corpus.names, None)
    points = measure_frontier(unjudged, [Int8Spec()])
    assert points[1].ndcg is None
    assert points[1].recall_10 > 0.9
    assert "| int8 | 32 | – |" in frontier_table(points)


def test_rescoring_everything_that_is_lossless_changes_nothing_where_documents_have_many_chunks(corpus: Corpus) -> None:
    owners = tuple(f"d{n // 10}" for n in range(1500))
    judged = {name: {f"d{n // 10}": 1, f"d{n // 10 + 7}": 1} for n, name in enumerate(corpus.names)}
    points = measure_frontier(Corpus(corpus.vectors, owners, corpus.queries, corpus.names, judged), [Float16Spec()])
    assert points
    assert all(point.ndcg_kept == pytest.approx(1.0, abs=0.01) for point in points)


def test_a_small_collection_has_no_codebooks() -> None:
    assert {spec.kind for spec in default_representations(255, 32)}.isdisjoint({"pq", "opq"})


def test_codebooks_are_skipped_with_a_notice_where_faiss_is_missing(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    lines: list[str] = []
    points = measure_frontier(corpus, [Float16Spec(), PqSpec(kind="pq", subvectors=8)], on_progress=lines.append)
    assert {point.representation for point in points} == {"float32", "float16"}
    assert lines[:2] == ["measuring float32", "measuring float16"]
    assert re.fullmatch(r"pq.*: skipped, since its training needs faiss\. Run: pip install .*\[pq\]'", lines[2])


def test_a_dimension_beyond_the_vectors_is_refused(corpus: Corpus) -> None:
    with pytest.raises(ConfigError, match="dimension 33: expected 1 to 32"):
        measure_frontier(corpus, [], dimensions=(33,))


def test_the_command_measures_a_collection(configure: Configure, tmp_path: Path) -> None:
    config = configure(write_jsonl(tmp_path / "d.jsonl", sentences(300)))
    embed_inline(config)
    (tmp_path / "q.txt").write_text("the cell\nthe gene and the protein\n")
    arguments = ["frontier", config.runtime.store, "c", "--queries", str(tmp_path / "q.txt")]
    found = CliRunner().invoke(app, [*arguments, "--json", "--picture", str(tmp_path / "f.svg")])
    assert found.exit_code == 0, found.output
    assert {point["representation"] for point in json.loads(found.stdout)} >= {"float32", "rabitq", "binary"}
    assert (tmp_path / "f.svg").read_text().startswith("<svg ")
    refused = CliRunner().invoke(app, [*arguments, "--picture", str(tmp_path / "f.png")])
    assert refused.exit_code != 0
    assert isinstance(refused.exception, ConfigError | SystemExit)
    assert "| top 10 found |" in CliRunner().invoke(app, arguments).output.replace("\n", "")
