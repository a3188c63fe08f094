"""The plan warns if no words would be found in many texts, or if settings are for a language of other letters."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from isospace.pipeline import word_coverage as module
from isospace.pipeline.plan_report import plan_only
from isospace.pipeline.word_coverage import WordCoverage, add_up_words, cover_words
from isospace.search.spec import STEMMERS, STOPWORDS, LexicalSpec
from tests.conftest import Configure
from tests.helpers.inline import embed_inline
from tests.isospace.pipeline.test_plan_report import NOTHING

ENGLISH, RUSSIAN, HINDI, JAPANESE = "the index of words", "поиск слов в тексте", "हिन्दी में किताबें", "私は本を読む"
PATTERN = LexicalSpec(pattern="[a-z]+")


def test_texts_without_words_are_counted_and_those_without_letters_are_not() -> None:
    texts = [ENGLISH, RUSSIAN, JAPANESE, "!?", "", "🙈"]
    assert cover_words(texts, PATTERN) == WordCoverage(3, 2, 0)
    assert cover_words(texts, LexicalSpec()) == WordCoverage(3, 0, 0)
    assert cover_words([], PATTERN) == cover_words(["", "!"], PATTERN) == WordCoverage()
    # What consists of stopwords has words.
    assert cover_words(["the of"], LexicalSpec(stopwords="english")) == WordCoverage(1, 0, 0)
    assert cover_words(texts, LexicalSpec(kind="none", pattern="x")) == WordCoverage()


@pytest.mark.parametrize(
    ("text", "spec", "foreign"),
    [
        (RUSSIAN, {"stemmer": "english"}, True),
        (RUSSIAN, {"stopwords": "german"}, True),
        (RUSSIAN, {"stemmer": "russian"}, False),
        (RUSSIAN, {"stemmer": "serbian"}, False),
        (ENGLISH, {"stemmer": "serbian"}, False),
        (ENGLISH, {"stemmer": "hindi"}, True),
        (HINDI, {"stemmer": "hindi"}, False),
        (HINDI, {"stemmer": "nepali"}, False),
        (HINDI, {"stemmer": "tamil"}, True),
        ("தமிழ் மொழி", {"stemmer": "tamil"}, False),
        ("شلام عليكم", {"stemmer": "arabic"}, False),
        ("سلام", {"stemmer": "persian"}, False),
        ("Ο Οδυσσεύς", {"stemmer": "greek"}, False),
        ("שלום", {"stemmer": "yiddish"}, False),
        ("բարեւ", {"stemmer": "armenian"}, False),
        (JAPANESE, {"stemmer": "english"}, True),
        # Either of the two settings fits.
        (RUSSIAN, {"stemmer": "english", "stopwords": "russian"}, False),
        # Half of the letters are of the script, or there are none.
        ("ab яю", {"stemmer": "english"}, False),
        ("ab яюэ", {"stemmer": "english"}, True),
        ("2026", {"stemmer": "english"}, False),
        (RUSSIAN, {}, False),
    ],
)
def test_letters_of_another_script_than_that_of_the_settings(text: str, spec: dict[str, str], foreign: bool) -> None:
    assert cover_words([text], LexicalSpec(**spec)) == WordCoverage(1, 0, int(foreign))


def test_every_script_belongs_to_a_language_that_can_be_set() -> None:
    assert set(module._SCRIPTS) <= {*STEMMERS, *STOPWORDS}


def test_few_texts_of_many_are_looked_at_from_the_first_to_the_last() -> None:
    texts = [ENGLISH] * 5_000
    assert cover_words(texts, PATTERN) == WordCoverage(101, 0, 0)
    texts[0] = texts[-1] = RUSSIAN
    assert cover_words(texts, PATTERN) == WordCoverage(101, 2, 0)


def test_nothing_is_looked_at_if_a_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "missing_for_words", lambda spec: "regex")
    assert cover_words([RUSSIAN], PATTERN) == WordCoverage()


@pytest.mark.parametrize(
    ("found", "warned"),
    [
        (WordCoverage(), 0),
        (WordCoverage(100, 24, 50), 0),
        (WordCoverage(100, 25, 0), 1),
        (WordCoverage(100, 0, 51), 1),
        (WordCoverage(100, 25, 51), 2),
        (WordCoverage(1, 1, 1), 2),
    ],
)
def test_a_quarter_without_words_and_most_in_another_script_are_warned_of(found: WordCoverage, warned: int) -> None:
    assert len(found.warnings(LexicalSpec(pattern="x", stemmer="english"))) == warned


def test_warnings_name_the_settings_and_what_to_do() -> None:
    spec = LexicalSpec(pattern="[a-z]+", stemmer="english", stopwords="german")
    wordless, script = WordCoverage(1_000, 300, 600).warnings(spec)
    assert wordless.startswith("recipe.lexical.pattern '[a-z]+' finds no word in 300 of 1,000 sampled texts")
    assert script.startswith(
        "recipe.lexical.stemmer=english and recipe.lexical.stopwords=german: most letters of 600 of 1,000 sampled texts"
    )
    (script,) = WordCoverage(10, 0, 9).warnings(LexicalSpec(stopwords="german"))
    assert script.startswith("recipe.lexical.stopwords=german: most")
    (without,) = WordCoverage(10, 9, 0).warnings(LexicalSpec())
    assert without.startswith("the rules for words find no word in 9 of 10")


def test_parts_add_up() -> None:
    assert add_up_words([WordCoverage(3, 2, 1), WordCoverage(10, 4, 6)]) == WordCoverage(13, 6, 7)
    assert add_up_words([]) == WordCoverage()


def test_a_run_and_its_plan_warn(configure: Configure, tmp_path: Path) -> None:
    assert replace(NOTHING, lexical_warnings=("a",)).warnings() == ("a",)
    rows = [{"doc_id": f"r{n}", "text": f"{RUSSIAN} {n}", "title": ""} for n in range(20)]
    source = tmp_path / "d.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = configure(source, recipe={"lexical": {"stemmer": "english", "pattern": "[a-z]+"}})
    planned = [warning for warning in plan_only(config).warnings() if "recipe.lexical" in warning]
    assert [warning[:22] for warning in planned] == ["recipe.lexical.pattern", "recipe.lexical.stemmer"]
    assert [warning for warning in embed_inline(config).warnings if "recipe.lexical" in warning] == planned
