from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from isospace.encoding.embedder import load_space
from isospace.errors import ConfigError, FitError
from isospace.evaluation.significance import bootstrap_interval, randomization_p
from isospace.ingest.query_files import read_judgements
from isospace.pipeline.fit.choose import choose
from isospace.pipeline.fit.evidence import Evidence
from isospace.pipeline.fit.trial import Trial, ndcg, rank, transformed
from isospace.search.open_index import open_index
from isospace.storage.parquet import read_parquet
from isospace.storage.store import open_store
from isospace.transform.fit import Fit, estimate
from isospace.transform.spec import AutoSpec, FitSpec
from tests.conftest import Configure, sentences, write_jsonl
from tests.helpers.inline import embed_inline
from tests.helpers.tiny import WORDS


def trial(n: int = 400, d: int = 24, *, shift: float = 0.0, noise: float = 0.6, seed: int = 0) -> Trial:
    """Queries that are noisy documents, moved as a whole: centring each role by its own mean moves them back."""
    rng = np.random.default_rng(seed)
    documents = rng.normal(size=(n, d)).astype(np.float32)
    queries = documents + noise * rng.normal(size=(n, d)).astype(np.float32)
    queries[:, 0] += np.float32(shift)
    names = tuple(f"d{i}" for i in range(n))
    return Trial(documents, names, queries, names, {name: {name: 1} for name in names})


def evidence(*trials: Trial) -> Evidence:
    return Evidence(trials[0].queries, "queries", trials, "some queries")


def test_what_gains_is_chosen_with_its_figures() -> None:
    found = trial(shift=12.0)
    choice = choose(estimate(found.documents), evidence(found), AutoSpec(kind="auto"), normalize=True)
    assert choice.chosen.kind != "none"
    assert choice.chosen.means == "by_role"
    best = next(tried for tried in choice.tried if tried.fit == choice.chosen.describe())
    assert best.gain > 0.05
    assert best.p < 0.001
    assert best.interval[0] > 0
    assert sum(choice.queries) == 400
    assert min(choice.queries) > 150


def test_what_does_not_gain_leaves_none_with_its_figures() -> None:
    found = trial()
    bad = AutoSpec(kind="auto", candidates=(FitSpec(kind="pca", dimensions=2),))
    choice = choose(estimate(found.documents), evidence(found), bad, normalize=True)
    assert choice.chosen == FitSpec()
    assert choice.tried[1].gain < -0.1
    assert choice.tried[1].p > 0.99


def test_a_gain_on_the_first_half_alone_is_not_believed() -> None:
    """The half that ranks is made to gain, the half that was held back to lose."""
    from isospace.pipeline.fit.choose import _is_first

    found = trial(shift=12.0)
    plain = trial()
    first = np.array([_is_first(name) for name in found.names])
    queries = np.where(first[:, None], found.queries, plain.queries)
    choice = choose(
        estimate(found.documents), evidence(replace(found, queries=queries)), AutoSpec(kind="auto"), normalize=True
    )
    assert choice.tried[1].choosing > choice.tried[0].choosing
    assert choice.chosen == FitSpec()
    assert "not significantly better" in choice.reason


def test_a_tie_goes_to_the_simpler() -> None:
    found = trial(shift=12.0)
    spec = AutoSpec(
        kind="auto",
        candidates=(FitSpec(kind="center", means="by_role"), FitSpec(kind="zca", epsilon=1e5, means="by_role")),
    )
    choice = choose(estimate(found.documents), evidence(found), spec, normalize=True)
    assert choice.chosen.kind == "center"


def test_a_candidate_that_cannot_be_fitted_is_recorded_with_its_reason() -> None:
    found = trial()
    spec = AutoSpec(kind="auto", candidates=(FitSpec(kind="pca", dimensions=25), FitSpec(kind="center")))
    choice = choose(estimate(found.documents), evidence(found), spec, normalize=True)
    assert "exceeds the 24" in choice.tried[1].refused
    assert choice.tried[2].refused is None


def test_queries_that_are_too_easy_are_said_to_be() -> None:
    found = trial(noise=0.01)
    choice = choose(estimate(found.documents), evidence(found), AutoSpec(kind="auto"), normalize=True)
    assert "too easy" in choice.warnings[0]


def test_too_few_queries_are_refused() -> None:
    found = trial(n=6)
    with pytest.raises(FitError, match="halves of"):
        choose(estimate(found.documents), evidence(found), AutoSpec(kind="auto"), normalize=True)


def test_ndcg_ranks_a_document_by_its_best_chunk() -> None:
    documents = np.eye(4, dtype=np.float32)
    one = Trial(documents, ("a", "b", "a", "c"), documents[[2, 1]], ("q1", "q2"), {"q1": {"a": 1}, "q2": {"c": 1}})
    assert rank(one, documents, one.queries)["q1"] == {"a": 1.0, "b": 0.0, "c": 0.0}
    assert ndcg(one, documents, one.queries)[0] == 1.0
    assert ndcg(one, documents, one.queries)[1] < 1.0


def test_transformed_vectors_are_of_unit_length_and_by_role() -> None:
    found = trial()
    offsets = np.stack([np.zeros(24), np.ones(24)])
    documents, queries = transformed(Fit(np.eye(24), offsets, {}), found)
    assert np.allclose(np.linalg.norm(documents, axis=1), 1, atol=1e-6)
    assert np.allclose(np.linalg.norm(queries, axis=1), 1, atol=1e-6)
    expected = found.queries[0] + 1
    assert np.allclose(queries[0], expected / np.linalg.norm(expected), atol=1e-5)


def test_the_randomization_test_is_calibrated() -> None:
    rng = np.random.default_rng(0)
    p_values = [randomization_p(rng.normal(size=60), rounds=400) for _ in range(300)]
    assert 0.02 < np.mean(np.array(p_values) < 0.05) < 0.09
    assert randomization_p(np.abs(rng.normal(size=60))) < 0.001
    assert randomization_p(np.zeros(10)) == 1.0


def test_the_bootstrap_interval_holds_the_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    held = [
        low <= 1.0 <= high for low, high in (bootstrap_interval(rng.normal(1, 1, 80), rounds=500) for _ in range(200))
    ]
    assert 0.88 < np.mean(held) < 0.99
    assert bootstrap_interval(np.zeros(0)) == (0.0, 0.0)


def stories(count: int) -> dict[str, str]:
    """Documents of three short sentences each, every one its own."""
    chance = random.Random(0)
    return {f"d{n:05d}": " ".join(" ".join(chance.choices(WORDS, k=5)) + "." for _ in range(3)) for n in range(count)}


AUTO = {"transform": {"fit": {"kind": "auto", "candidates": [{"kind": "center", "means": "by_role"}]}}}


def test_auto_in_the_line_records_its_evidence_and_is_repeatable(configure: Configure, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", stories(80))
    report = embed_inline(configure(path, recipe=AUTO))
    space = load_space(open_store(tmp_path / "store"), report.space_id)
    choice = space.provenance["choice"]
    assert [tried["fit"] for tried in choice["tried"]] == ["none", "center, means by_role"]
    assert space.record.fitted.describe() in ("none", "center, means by_role")
    assert "sentences of the corpus as pseudo-queries" in choice["source"]
    again = embed_inline(configure(path, recipe=AUTO, runtime={"store": str(tmp_path / "other")}))
    assert again.space_id == report.space_id
    assert open_index(str(tmp_path / "store"), "c").search("a cell", k=2)[0]


def test_queries_of_a_file_give_their_mean_and_a_moved_file_no_new_space(configure: Configure, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", stories(60))
    for name in ("log.txt", "moved.txt"):
        (tmp_path / name).write_text("\n".join(f"search the index for text {n}" for n in range(30)))
    fit = {"kind": "center", "means": "by_role"}
    reports = [
        embed_inline(configure(path, recipe={"transform": {"fit": fit, "queries": {"file": str(tmp_path / name)}}}))
        for name in ("log.txt", "moved.txt")
    ]
    assert reports[1].space_id == reports[0].space_id
    assert not reports[1].committed
    space = load_space(open_store(tmp_path / "store"), reports[0].space_id)
    offsets = space.transform.affine.offsets
    assert (offsets[0] != offsets[1]).any()
    assert space.provenance["queries"] == "30 queries"
    (tmp_path / "log.txt").write_text("\n".join(f"another question {n} here" for n in range(30)))
    changed = {"transform": {"fit": fit, "queries": {"file": str(tmp_path / "log.txt")}}}
    assert embed_inline(configure(path, recipe=changed)).space_id != reports[0].space_id


def test_judged_queries_choose_and_foreign_judgements_are_refused(configure: Configure, tmp_path: Path) -> None:
    import polars as pl

    texts = stories(80)
    path = write_jsonl(tmp_path / "d.jsonl", texts)
    ids = [f"q{n}" for n in range(60)]
    chosen = list(texts.items())[:60]
    asked = [" ".join(text.split()[:6]) for _, text in chosen]
    pl.DataFrame({"query_id": ids, "text": asked}).write_parquet(tmp_path / "q.parquet")
    for name, documents in (("own", [doc for doc, _ in chosen]), ("foreign", [f"x{n}" for n in range(60)])):
        table = pl.DataFrame({"query_id": ids, "doc_id": documents, "relevance": [1] * 60})
        table.write_parquet(tmp_path / f"{name}.parquet")
    assert read_judgements(tmp_path / "own.parquet")["q0"] == {"d00000": 1}

    def recipe(name: str) -> dict:
        queries = {"file": str(tmp_path / "q.parquet"), "judgements": str(tmp_path / f"{name}.parquet")}
        return {"transform": {**AUTO["transform"], "queries": queries}}

    report = embed_inline(configure(path, recipe=recipe("own")))
    space = load_space(open_store(tmp_path / "store"), report.space_id)
    assert space.provenance["choice"]["source"] == "60 judged queries of 60"
    with pytest.raises(FitError, match="Check that its doc_ids are those of this collection"):
        embed_inline(configure(path, recipe=recipe("foreign")))


def test_a_missing_file_of_queries_is_found_before_the_first_document(configure: Configure, tmp_path: Path) -> None:
    transform = {"fit": {"kind": "center", "means": "by_role"}, "queries": {"file": "absent.txt"}}
    with pytest.raises(ConfigError, match=r"absent\.txt"):
        embed_inline(configure(tmp_path / "no-such-source.jsonl", recipe={"transform": transform}))


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (
            {"fit": {"kind": "pca", "dimensions": 10}, "representations": [{"kind": "pq", "subvectors": 4}]},
            "does not divide the 10",
        ),
        ({"truncate": 99, "allow_untrained_truncation": True}, "exceeds the 16 dimensions"),
        ({"fit": {"kind": "pca", "dimensions": 17}}, "needs more than the 16"),
        ({"fit": {"kind": "all_but_the_top", "components": 16}}, "needs more than the 16"),
        ({"fit": {"kind": "auto", "candidates": [{"kind": "pca", "dimensions": 20}]}}, "needs more than the 16"),
    ],
)
def test_what_cannot_work_is_found_before_the_first_document(
    configure: Configure, tmp_path: Path, transform: dict, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        embed_inline(configure(tmp_path / "no-such-source.jsonl", recipe={"transform": transform}))


def test_the_space_does_not_depend_on_the_order_of_documents_that_share_texts(
    configure: Configure, tmp_path: Path
) -> None:
    texts = stories(60)
    shared = {**texts, **{f"e{n:05d}": text for n, text in enumerate(list(texts.values())[:30])}}
    spaces = set()
    for name, order in (("forward", 1), ("backward", -1)):
        lines = [json.dumps({"doc_id": doc, "text": text, "title": ""}) for doc, text in list(shared.items())[::order]]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
        transform = {"fit": {"kind": "center", "means": "by_role"}}
        config = configure(
            tmp_path / f"{name}.jsonl", recipe={"transform": transform}, runtime={"store": str(tmp_path / name)}
        )
        spaces.add(embed_inline(config).space_id)
    assert len(spaces) == 1


def test_no_sentence_asks_twice(configure: Configure, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", stories(40))
    embed_inline(configure(path, recipe=AUTO))
    store = open_store(tmp_path / "store")
    parts = [s.path for s in store.walk("vectors") if "/query/trial-" in s.path]
    hashes = [h for part in parts for h in read_parquet(store, part, columns=["chunk_hash"])["chunk_hash"].to_pylist()]
    assert len(parts) == 3
    assert len(hashes) == len(set(hashes)) > 80


def test_a_corpus_that_makes_no_queries_says_so(configure: Configure, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", {f"d{n}": f"text {n}" for n in range(30)})
    with pytest.raises(FitError, match="pseudo-queries for only 0 documents"):
        embed_inline(configure(path, recipe=AUTO))


def test_truncation_of_an_untrained_model_is_refused(configure: Configure, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", sentences(30))
    with pytest.raises(ConfigError, match="is not known as a Matryoshka model"):
        embed_inline(configure(path, recipe={"transform": {"truncate": 8}}))
    allowed = {"truncate": 8, "allow_untrained_truncation": True}
    embed_inline(configure(path, recipe={"transform": allowed}))
    assert open_index(str(tmp_path / "store"), "c").vectors.shape == (30, 8)


@pytest.mark.parametrize("transform", [
    {"normalization": "none", "fit": {"kind": "center"}},
    {
        "fit": {"kind": "pca", "dimensions": 8, "allow_small_sample": True},
        "representations": ["int8", "rabitq", {"kind": "binary", "rotation": True}],
    },
], ids=["no normalization", "pca"])  # fmt: skip
def test_other_shapes_of_a_transform_go_through_the_whole_line(
    configure: Configure, tmp_path: Path, transform: dict
) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", sentences(40))
    report = embed_inline(configure(path, recipe={"transform": transform}))
    for representation in load_space(open_store(tmp_path / "store"), report.space_id).record.representations:
        index = open_index(str(tmp_path / "store"), "c", representation=representation)
        hits = index.search("the cell and the gene", k=5)[0]
        assert len(hits) == 5
        assert hits[0].score >= hits[-1].score
    lengths = np.linalg.norm(index.vectors, axis=1)
    if transform.get("normalization") == "none":
        assert lengths.std() > 1e-3


def test_a_sealed_space_with_codebooks_needs_no_faiss_again(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    texts = sentences(300)
    path = write_jsonl(tmp_path / "d.jsonl", texts)
    recipe = {"transform": {"representations": ["float32", {"kind": "pq", "subvectors": 4}]}}
    first = embed_inline(configure(path, recipe=recipe))
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "faiss" else real(name, *rest))
    write_jsonl(path, texts | {"new": "something new"})
    assert embed_inline(configure(path, recipe=recipe)).space_id == first.space_id
    with pytest.raises(ConfigError, match="needs faiss"):
        embed_inline(configure(path, recipe=recipe, runtime={"refit": True}))


def test_a_candidate_that_cannot_be_fitted_is_kept_with_its_reason() -> None:
    found = trial()
    spec = AutoSpec(kind="auto", candidates=(FitSpec(kind="pca", dimensions=1000),))
    choice = choose(estimate(found.documents), evidence(found), spec, normalize=True)
    assert choice.chosen == FitSpec()
    assert choice.tried[0].refused is None
    assert "1000" in (choice.tried[1].refused or "")
