"""Texts that are tokenized piece by piece get the tokens of the whole text, with tokenizers of every kind."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isospace.encoding import piece_tokenizer
from isospace.encoding.piece_tokenizer import PieceTokenizer, open_pieces
from isospace.encoding.tokenizer import Tokenizer
from isospace.ingest.document import Document
from tests.conftest import corpora
from tests.helpers.tokenizers import changed, kinds
from tests.isospace.encoding.test_chunk_tokenizer import HOSTILE, added, corpus

PLAIN = kinds()
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
ROBERTA = {"type": "RobertaProcessing", "sep": ["the", 5], "cls": ["of", 6], "trim_offsets": True}


def byte_level(*, prefix: bool, use_regex: bool = True) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": use_regex}


def split(expression: str, behavior: str = "Isolated") -> dict[str, Any]:
    one = {"type": "Split", "pattern": {"Regex": expression}, "behavior": behavior, "invert": False}
    return {"type": "Sequence", "pretokenizers": [one, byte_level(prefix=False, use_regex=False)]}


def metaspace(scheme: str, **parts: bool) -> dict[str, Any]:
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": True, **parts}


def roberta() -> bytes:
    """A tokenizer that puts a space before the text, takes it out of the offsets, and has a mask that takes spaces."""
    rules = json.loads(PLAIN["bytes"])
    special = {**ROBERTA, "add_prefix_space": True, "sep": ["<|endoftext|>", 0], "cls": ["<|endoftext|>", 0]}
    mask = {"id": 700, "content": "<mask>", "single_word": False, "lstrip": True, "rstrip": False, "normalized": False}
    tokens = [*rules["added_tokens"], {**mask, "special": True}]
    return changed(PLAIN["bytes"], pre_tokenizer=byte_level(prefix=True), post_processor=special, added_tokens=tokens)


WORDS = {
    "unigram": PLAIN["unigram"].encode(),
    "unigram, first": changed(PLAIN["unigram"], pre_tokenizer=metaspace("first")),
    "unigram, never": changed(PLAIN["unigram"], pre_tokenizer=metaspace("never")),
    "unigram, split at white space": changed(
        PLAIN["unigram"],
        pre_tokenizer={"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace("always")]},
    ),
    "GPT-2": changed(PLAIN["bytes"], pre_tokenizer=byte_level(prefix=False), post_processor=byte_level(prefix=False)),
    "RoBERTa": roberta(),
    "Qwen": changed(PLAIN["bytes"], pre_tokenizer=split(QWEN)),
    "Llama": changed(PLAIN["bytes"], normalizer=None, pre_tokenizer=split(QWEN.replace(r"\p{N}|", r"\p{N}{1,3}|"))),
}
SPACES = {name: PLAIN[name].encode() for name in ("uncased", "cased")}
ALL = {**WORDS, **SPACES}
OPENED = {name: open_pieces(Tokenizer(data)) for name, data in ALL.items()}


def opened(name: str) -> PieceTokenizer:
    pieces = OPENED[name]
    assert pieces is not None
    return pieces


def require_same(pieces: PieceTokenizer, texts: list[str]) -> None:
    for text, one, (offsets, ids) in zip(texts, pieces.spans(texts), pieces.tokenizer.spans(texts), strict=True):
        assert one.ids.tolist() == ids, repr(text)
        assert list(zip(one.starts.tolist(), one.ends.tolist(), strict=True)) == offsets, repr(text)


@pytest.mark.parametrize("name", ALL)
def test_texts_are_cut_where_the_rules_allow(name: str) -> None:
    assert opened(name).cut == ("spaces" if name in SPACES else "words")
    require_same(opened(name), [])
    require_same(opened(name), [""])
    require_same(
        opened(name), ["", "a", "", " ", " a", "a ", "", "the of", "the  of ", "\nthe of\n", "the\n", " \t", ""]
    )


@pytest.mark.parametrize("name", ALL)
@given(st.lists(HOSTILE, max_size=5))
@settings(deadline=None, max_examples=80)
def test_hostile_texts_get_the_tokens_and_offsets_of_the_library(name: str, texts: list[str]) -> None:
    require_same(opened(name), texts)


@pytest.mark.parametrize("name", ALL)
def test_every_character_around_a_space(name: str) -> None:
    codes = [
        *range(1, 0x700),
        *range(0xD00, 0xE40),
        *range(0x2000, 0x3100),
        *range(0xFB00, 0xFE80),
        *range(0x110B0, 0x110D0),
        0x1F600,
    ]
    characters = [chr(code) for code in codes]
    groups = [characters[start : start + 50] for start in range(0, len(characters), 50)]
    patterns = ("the{0} of", "the {0}of", "the {0} of", "the{0} {0}of")
    require_same(opened(name), ["!\n\n".join(p.format(c) for c in group for p in patterns) for group in groups])


@pytest.mark.parametrize("name", ["uncased", "GPT-2", "unigram"])
def test_pieces_that_were_forgotten_are_tokenized_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = PieceTokenizer(opened(name).tokenizer, opened(name).cut)
    monkeypatch.setattr(piece_tokenizer, "MOST_PIECES", 7)
    for number in range(30):
        require_same(pieces, [f"the of {number} and {number // 3} the words", "the of"])
        assert len(pieces._known.rows) < 30


@pytest.mark.parametrize("name", ["uncased", "Qwen"])
def test_a_piece_is_tokenized_once(name: str) -> None:
    class Counting(Tokenizer):
        def spans(self, texts: Any) -> Any:
            asked.extend(texts)
            return super().spans(texts)

    asked: list[str] = []
    pieces = PieceTokenizer(Counting(opened(name).tokenizer.data), opened(name).cut)
    for _ in range(3):
        pieces.spans(["the of the of the of", "the of"])
    assert len(asked) == len(set(asked)) <= 3


@pytest.mark.parametrize("name", ["uncased", "Qwen"])
def test_threads_share_what_is_known(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(piece_tokenizer, "MOST_PIECES", 3_000)
    pieces = PieceTokenizer(opened(name).tokenizer, opened(name).cut)

    def work(seed: int) -> None:
        for number in range(60):
            require_same(pieces, [" ".join(f"w{n * seed % 997}" for n in range(number, number + 40))])

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(1, 9)))


@pytest.mark.parametrize(
    "parts",
    [
        {"normalizer": {"type": "NFC"}},
        {"normalizer": {"type": "Sequence", "normalizers": [{"type": "BertNormalizer", "lowercase": True}]}},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"pre_tokenizer": None},
        {"post_processor": {"type": "RobertaProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}},
        added("the of"),
        added("the\u00a0of"),
        added("漢"),
        added("the", lstrip=True),
        added("the", rstrip=True),
    ],
)
def test_other_rules_of_word_pieces_are_not_trusted(parts: dict[str, Any]) -> None:
    assert open_pieces(Tokenizer(changed(PLAIN["uncased"], **parts))) is None


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("unigram", {"normalizer": {"type": "Strip", "strip_left": True, "strip_right": True}}),
        ("unigram", {"normalizer": {"type": "Replace", "pattern": {"String": "``"}, "content": ""}}),
        ("unigram", {"normalizer": {"type": "Replace", "pattern": {"String": "e "}, "content": " "}}),
        ("unigram", {"pre_tokenizer": metaspace("always", split=False)}),
        ("unigram", {"pre_tokenizer": None}),
        ("unigram", added("the of")),
        ("unigram", added("the", rstrip=True)),
        ("unigram", added("漢")),
        ("bytes", {}),
        ("bytes", {"pre_tokenizer": split(r"[A-Za-z ]{2}|[\s\S]")}),
        ("bytes", {"pre_tokenizer": split(QWEN, "Removed")}),
        ("bytes", {"pre_tokenizer": byte_level(prefix=False, use_regex=False)}),
    ],
)
def test_other_rules_of_words_are_not_trusted(name: str, parts: dict[str, Any]) -> None:
    assert open_pieces(Tokenizer(changed(PLAIN[name], **parts))) is None


def test_rules_that_are_trusted_must_also_hold_for_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(piece_tokenizer, "cut_of", lambda data: "spaces")
    assert open_pieces(Tokenizer(SPACES["uncased"])) is not None
    for name in ("GPT-2", "unigram"):
        assert open_pieces(Tokenizer(WORDS[name])) is None
    monkeypatch.setattr(piece_tokenizer, "cut_of", lambda data: "words")
    crossing = changed(PLAIN["bytes"], pre_tokenizer=split(r"[A-Za-z ]{2}|[\s\S]"))
    assert open_pieces(Tokenizer(crossing)) is None


def test_a_safe_character_that_is_normalized_to_a_space_makes_none_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    for character in ("\u00b4", "\u00a0"):
        monkeypatch.setattr(piece_tokenizer, "safe_characters", lambda character=character: ["a", character])
        assert open_pieces(Tokenizer(WORDS["unigram"])) is None
        assert open_pieces(Tokenizer(WORDS["Llama"])) is not None


@pytest.mark.integration
@pytest.mark.corpora
@pytest.mark.skipif(
    corpora() is None, reason="the evaluation corpora are not beside the checkout; set ISOSPACE_CORPORA"
)
@pytest.mark.parametrize("corpus_name", ["scifact", "cranfield", "cisi", "med", "docs-corpus"])
@pytest.mark.parametrize("name", WORDS)
def test_documents_of_the_corpora(name: str, corpus_name: str) -> None:
    documents: list[Document] = corpus(corpora(), corpus_name)[:1_000]  # type: ignore[arg-type]
    for start in range(0, len(documents), 64):
        require_same(opened(name), [document.text for document in documents[start : start + 64]])
