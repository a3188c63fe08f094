"""A static model is measured on documents that were left out of its fit, and enough of them are left to fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from isospace.cli.main import main
from isospace.collection.alias import resolve
from isospace.encoding.registry import static_source
from isospace.errors import ConfigError
from isospace.evaluation.query_sets import EvaluationSet, freeze_set
from isospace.finetuning.distillation.distill import Distilled, distill_encoder
from isospace.finetuning.distillation.evaluated import Evaluated, choose_evaluated, sampled
from isospace.finetuning.distillation.settings import DistillSettings
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.local_executor import LocalExecutor
from isospace.storage.store import Store, open_store
from tests.helpers.documents import configuration, copied, sentences, write_jsonl
from tests.helpers.inline import embed_inline

DOCUMENTS = sentences(240)


@pytest.fixture(scope="module")
def embedded(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> PipelineConfig:
    folder = tmp_path_factory.mktemp("evaluated")
    recipe = {"documents": {}, "transform": {"representations": ["float32"]}}
    config = configuration(tiny_model, write_jsonl(folder / "d.jsonl", DOCUMENTS), folder / "store", recipe=recipe)
    embed_inline(config)
    return config


@pytest.fixture
def store(embedded: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(static_source, "_library_vectors", lambda *_: (None, ""))
    return open_store(copied(embedded, tmp_path).runtime.store)


def pseudo(documents: dict[str, str], name: str = "default") -> EvaluationSet:
    """Return a set in which every document answers a query of its own."""
    queries = {f"p{doc}": " ".join(text.split()[:6]) for doc, text in documents.items()}
    rests = {f"p{doc}": " ".join(text.split()[6:]) for doc, text in documents.items()}
    judged = {f"p{doc}": {doc: 1} for doc in documents}
    return EvaluationSet(name, "pseudo", queries, judged, remainders=rests)


def distilled(store: Store, **settings: object) -> Distilled:
    return distill_encoder(store, "c", DistillSettings(queries=0, **settings), LocalExecutor().reporter)


def test_pseudo_queries_of_every_document_leave_nine_tenths_to_fit(store: Store) -> None:
    freeze_set(store, "c", pseudo(DOCUMENTS), source="")
    made = distilled(store)
    assert made.kept.retrieval is not None
    assert (made.kept.retrieval.queries, made.kept.retrieval.unseen) == (24, True)
    assert made.lineage.left_out == {"evaluated_or_repeated": 24}
    assert (made.lineage.pairs, made.lineage.held_out) == ({"texts": 195}, 21)
    assert made.kept.retrieval.described == (
        "24 of 240 pseudo-queries of set 'default'; the 24 documents that answer them were left out of the fit"
    )
    # Of documents with several texts, few have a tenth of all texts.
    few = Evaluated(sampled(pseudo(DOCUMENTS), dict.fromkeys(list(DOCUMENTS)[:50], 1)), 50, frozenset(["d"]))
    assert few.describe().endswith("out of the fit; 5 say little: --fit-evaluated measures all")
    fitted = distilled(store, fit_evaluated=True).kept.retrieval
    assert fitted is not None
    assert (fitted.queries, fitted.unseen) == (240, False)
    assert fitted.described == "240 pseudo-queries of set 'default'; the 240 documents that answer them were fitted"


def test_the_command_says_what_it_was_measured_on(store: Store, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    freeze_set(store, "c", pseudo(DOCUMENTS), source="")
    monkeypatch.setattr("sys.argv", ["isospace", "distill", str(store.root), "c", "--queries", "0"])
    main()
    line = "  nDCG@10    on 24 of 240 pseudo-queries of set 'default'; the 24 documents that answer them were left out"
    assert line in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["isospace", "distill", str(store.root), "c", "--queries", "0", "--json"])
    main()
    assert json.loads(capsys.readouterr().out)["kept"]["retrieval"]["queries"] == 24


def test_a_set_of_people_that_leaves_too_few_texts_is_named(store: Store) -> None:
    judged = {f"q{doc}": {doc: 1} for doc in list(DOCUMENTS)[:140]}
    queries = {name: f"the query {name}" for name in judged}
    freeze_set(store, "c", EvaluationSet("asked", "judged", queries, judged), source="")
    message = (
        r"^90 texts to fit a static model to; expected at least 100, and better thousands\. Of 240 different texts, "
        r"140 are left out because their 140 documents answer queries of evaluation set 'asked', and 10 are held out\. "
        r"Give --fit-evaluated to fit them, too, or name a smaller set with --evaluation\.$"
    )
    with pytest.raises(ConfigError, match=message):
        distilled(store, evaluation="asked")
    # It was not named: no default set is there.
    assert distilled(store).kept.retrieval is None
    retrieval = distilled(store, evaluation="asked", fit_evaluated=True).kept.retrieval
    assert retrieval is not None
    assert retrieval.queries == 140


def test_the_sample_has_a_tenth_of_the_texts_whatever_the_queries_are_called() -> None:
    documents = {f"d{n}": f"the text of document {n} is of some words" for n in range(40)}
    # One document has as many texts as all others.
    texts_of = {doc: 40 if doc == "d0" else 1 for doc in documents}
    drawn = sampled(pseudo(documents), texts_of)
    assert len(drawn.queries) == 7
    assert "pd0" not in drawn.queries
    assert drawn.judgements.keys() == drawn.queries.keys() == drawn.remainders.keys()
    # In the opposite order.
    names = {f"d{n}": f"d{99 - n}" for n in range(40)}
    renamed = {names[doc]: text for doc, text in documents.items()}
    other = sampled(pseudo(renamed), {names[doc]: count for doc, count in texts_of.items()})
    assert set(other.queries.values()) == set(drawn.queries.values())
    # Documents that are gone answer nothing, and several queries of a document take its texts once.
    assert not sampled(pseudo(documents), {"other": 100}).queries
    twice = EvaluationSet("s", "pseudo", {"a": "one", "b": "two"}, {"a": {"d0": 1}, "b": {"d0": 1}})
    assert set(sampled(twice, {"d0": 1, "d1": 9}).queries) == {"a", "b"}


def test_a_set_whose_documents_are_gone_is_not_measured_and_says_so(store: Store) -> None:
    freeze_set(store, "c", pseudo({"gone": "a text of a document that is gone from here"}), source="")
    said: list[str] = []
    assert choose_evaluated(store, resolve(store, "c", "production"), DistillSettings(), said.append) is None
    assert said == [
        "set 'default': no document of snapshot 1 that answers one of its 1 pseudo-queries has at most 10% of the "
        "texts; nDCG@10 is not measured"
    ]
