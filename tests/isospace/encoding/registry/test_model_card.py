"""Languages of corpora and queries, and models that were not made for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from isospace.encoding.registry.model_card import card_languages, stored_card_languages
from isospace.encoding.registry.register import prepare_encoder
from isospace.encoding.spec import EncoderSpec
from isospace.evaluation.languages import detect_languages, language_shares, uncovered
from isospace.evaluation.query_sets import EvaluationSet
from isospace.evaluation.slices import slices_of
from isospace.operations.audit.alarms import language_alarms
from isospace.operations.audit.audit import audit_alias
from isospace.operations.audit.thresholds import Thresholds
from isospace.search.open_index import open_index
from isospace.storage.store import open_store
from tests.conftest import Configure, write_jsonl
from tests.helpers.inline import embed_inline
from tests.helpers.tiny import build_tiny_model

ENGLISH = [
    "The index is built from the documents of the collection.",
    "Where can I find the report of the last audit?",
    "A snapshot that was committed is never changed.",
    "This search returns the nearest chunks of the text.",
    "Which of the models gives the better answer to a question?",
    "Every part of the store has its own checksum.",
]
GERMAN = [
    "Hier steht, wie man eine ganze Sammlung wieder neu aufbauen kann.",
    "Wo finde ich den Bericht der letzten Prüfung?",
    "Ein abgeschlossener Schnappschuss wird nie mehr verändert.",
    "Diese Suche liefert die nächsten Abschnitte des Textes.",
    "Welches der Modelle gibt die bessere Antwort auf eine Frage?",
    "Jeder Teil des Speichers hat seine eigene Prüfsumme.",
]


def test_languages_are_told_where_they_can_be() -> None:
    assert detect_languages([*ENGLISH, *GERMAN]) == ["en"] * 6 + ["de"] * 6
    assert detect_languages(["ok", "", "12345 67890 !!!", "42" * 50]) == [None] * 4


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("---\nlanguage: en\n---\n# A model", ("en",)),
        ("---\nlanguage:\n- de\n- en\n- zh-Hans\n---\n", ("de", "en", "zh")),
        ("---\nlanguage: multilingual\n---\n", None),
        ("---\nlanguage: [multilingual, en]\n---\n", None),
        ("---\nlicense: mit\n---\n", None),
        ("---\nlanguage: [\n---\n", None),
        ("---\n- a list\n---\n", None),
        ("# No front matter", None),
    ],
)
def test_a_card_names_languages_or_none(tmp_path: Path, card: str, expected: tuple[str, ...] | None) -> None:
    (tmp_path / "README.md").write_text(card)
    assert card_languages(tmp_path) == expected


def test_without_a_card_nothing_is_said(tmp_path: Path) -> None:
    assert card_languages(tmp_path) is None
    assert uncovered({"de": 1.0}, None, 0.01) == {}
    assert uncovered({"en": 0.9, "de": 0.1, "fr": 0.004}, ("en",), 0.01) == {"de": 0.1}


def test_an_audit_names_a_language_that_the_model_was_not_made_for(configure: Configure, tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path / "tiny")
    (model / "README.md").write_text("---\nlanguage: en\n---\n")
    documents = {f"e{n}": f"{ENGLISH[n % 6]} {ENGLISH[n % 5]}" for n in range(40)}
    documents |= {f"d{n}": f"{GERMAN[n % 6]} {GERMAN[n % 5]}" for n in range(20)}
    config = configure(write_jsonl(tmp_path / "d.jsonl", documents), recipe={"encoder": {"model": str(model)}})
    embed_inline(config)
    store = open_store(config.runtime.store)
    with open_index(store, "c") as index:
        shares = language_shares(index.view, range(len(index.view.copy)))
        assert set(shares) == {"en", "de"}
        assert shares["en"] > shares["de"] > 0.2
        assert stored_card_languages(store, index.manifest.encoder_id) == ("en",)
    record = audit_alias(store, "c", "production", Thresholds(), run_id="r").record
    (alarm,) = [one for one in record.alarms if one.name == "language"]
    assert "'de'; the model's card names en" in alarm.message
    assert record.figures is not None
    assert record.figures.languages == pytest.approx(shares)
    assert list(language_alarms({"en": 1.0}, ("en",), Thresholds())) == []


def test_an_encoder_keeps_what_its_card_said(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    model = build_tiny_model(tmp_path / "tiny")
    plain = prepare_encoder(store, EncoderSpec(model=str(model)))
    assert stored_card_languages(store, plain.record.encoder_id) is None
    (model / "README.md").write_text("---\nlanguage: de\n---\n")
    assert prepare_encoder(store, EncoderSpec(model=str(model))).record == plain.record
    assert stored_card_languages(store, plain.record.encoder_id) == ("de",)


def test_queries_are_sliced_by_language_and_across_languages(configure: Configure, tmp_path: Path) -> None:
    documents = {f"e{n}": text for n, text in enumerate(ENGLISH)} | {f"d{n}": text for n, text in enumerate(GERMAN)}
    config = configure(write_jsonl(tmp_path / "d.jsonl", documents))
    embed_inline(config)
    queries = {f"e{n}": text for n, text in enumerate(ENGLISH)} | {f"d{n}": text for n, text in enumerate(GERMAN)}
    across = {name: {("e" if name[0] == "d" else "d") + name[1:]: 1} for name in queries}
    given = EvaluationSet("s", "judged", queries, across)
    with open_index(config.runtime.store, "c") as index:
        found = slices_of(given, index.view)
        assert {value: len(names) for value, names in found["language"].items()} == {"en": 6, "de": 6}
        assert {value: len(names) for value, names in found["languages"].items()} == {"en to de": 6, "de to en": 6}
        own = EvaluationSet("s", "judged", queries, {name: {name: 1} for name in queries})
        assert "languages" not in slices_of(own, index.view)
        english = EvaluationSet("s", "judged", {k: v for k, v in queries.items() if k[0] == "e"}, {})
        assert "language" not in slices_of(english, index.view)
        told = EvaluationSet("s", "judged", queries, across, {"language": dict.fromkeys(queries, "xx")})
        assert set(slices_of(told, index.view)["language"]) == {"xx"}
