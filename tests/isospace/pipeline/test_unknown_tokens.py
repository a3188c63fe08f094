"""Texts that the encoder's vocabulary does not cover: counted by language, shown in the plan, warned of."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import models, pre_tokenizers

from isospace.encoding.tokenizer import Tokenizer
from isospace.ingest.chunking import TokenCounter
from isospace.pipeline.plan_report import plan_only
from isospace.pipeline.unknown_tokens import UnknownTokens, add_up, count_unknown
from tests.conftest import Configure
from tests.helpers.inline import embed_inline
from tests.isospace.pipeline.test_plan_report import NOTHING

ENGLISH = "the index of the text is for the search of a vector"
KHMER = "ខ្ញុំចូលចិត្តអានសៀវភៅនៅបណ្ណាល័យជារៀងរាល់ថ្ងៃអាទិត្យ"
TAMIL = "நான் ஒவ்வொரு ஞாயிற்றுக்கிழமையும் நூலகத்தில் புத்தகம் படிக்க விரும்புகிறேன்"
JAPANESE = "私は毎週日曜日に図書館で本を読むのが好きです。天気がよければ公園にも行きます。"


def tokenizer_of(model: object) -> Tokenizer:
    fast = FastTokenizer(model)
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    return Tokenizer(fast.to_str().encode())


WORDS = {word: n for n, word in enumerate(["<unk>", *sorted(set(ENGLISH.split()))])}


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (models.WordPiece(WORDS, unk_token="<unk>"), 0),
        (models.WordLevel(WORDS, unk_token="<unk>"), 0),
        (models.Unigram([("a", -1.0), ("<unk>", -2.0)], 1), 1),
        (models.Unigram([("a", -1.0), ("b", -2.0)], None), None),
        (models.BPE({"a": 0, "b": 1}, []), None),
        (models.BPE({"a": 0, "<unk>": 1, "<0x61>": 2}, [], unk_token="<unk>", byte_fallback=True), None),
    ],
)
def test_the_unknown_token_of_each_kind_of_tokenizer(model: object, expected: int | None) -> None:
    assert tokenizer_of(model).unknown_id == expected


def counter_of(tokenizer: Tokenizer) -> TokenCounter:
    return TokenCounter(tokenizer.offsets, lambda texts: [1 for _ in texts], 48, unknown=tokenizer.unknown_counts)


def test_unknown_tokens_are_counted_by_language() -> None:
    counter = counter_of(tokenizer_of(models.WordPiece(WORDS, unk_token="<unk>")))
    texts = [ENGLISH, TAMIL, KHMER, JAPANESE, f"{ENGLISH} x", f"{TAMIL} the", ""]
    found = count_unknown(texts, counter)
    assert (found.mostly, found.only) == (4, 3)
    shares = found.shares()
    assert shares["ta"] == pytest.approx(13 / 14, abs=0.1)
    assert shares["ja"] == shares["km"] == 1.0
    assert shares["en"] == pytest.approx(1 / 23, abs=0.01)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert count_unknown([ENGLISH] * 3, counter) == UnknownTokens()
    assert count_unknown([], counter) == UnknownTokens()
    assert count_unknown([TAMIL], replace(counter, unknown=None)) == UnknownTokens()


def test_parts_add_up() -> None:
    first, second = UnknownTokens(2, 1, (("en", 0, 10), ("th", 4, 4))), UnknownTokens(1, 1, (("th", 2, 4),))
    assert add_up([first, second]) == UnknownTokens(3, 2, (("en", 0, 10), ("th", 6, 8)))
    assert add_up([first, second]).shares() == {"th": 0.75}
    assert add_up([]) == UnknownTokens()


def test_the_plan_shows_shares_and_warns_of_texts() -> None:
    plan = replace(NOTHING, unknown={"th": 0.98, "de": 0.0312, "en": 0.0002}, mostly_unknown=1_200, only_unknown=3)
    rows = dict(plan.rows())
    assert rows["unknown tokens"] == "th 98%, de 3.1%, en under 0.1%"
    assert rows["texts mostly unknown"] == "1,200, of these 3 entirely"
    (warning,) = plan.warnings()
    assert "1,200 texts consist mostly of tokens that are unknown to the encoder's tokenizer" in warning
    assert replace(plan, mostly_unknown=0).warnings() == ()


def test_a_run_and_its_plan_warn(configure: Configure, tmp_path: Path) -> None:
    source = tmp_path / "d.jsonl"
    rows = [{"doc_id": f"e{n}", "text": f"{ENGLISH} number {n}", "title": ""} for n in range(20)]
    rows += [{"doc_id": name, "text": text, "title": ""} for name, text in (("km", KHMER), ("emoji", "🙈🙉 🙊"))]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = configure(source)
    report = embed_inline(config)
    (warning,) = [warning for warning in report.warnings if "unknown" in warning]
    assert warning.startswith("2 texts consist mostly")
    assert "km 100%" in warning
    again = plan_only(config)
    assert (again.mostly_unknown, again.unknown) == (0, {})
