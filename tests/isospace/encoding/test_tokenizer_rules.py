"""Every rule of a tokenizer changes a probe: whoever leaves it out, sets it otherwise, or adds another is noticed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tokenizers import AddedToken
from tokenizers import Tokenizer as FastTokenizer

from isospace.encoding.tokenizer import Tokenizer
from isospace.encoding.tokenizer_rules import noticing_texts, rule_texts, rules, unnoticed_rules
from isospace.transform.probe_texts import PROBE_TEXTS, TOKENIZER_TEXTS
from tests.helpers.tokenizers import around, changed, kinds

KINDS = kinds()
# Letters of all blocks, alone and between others, to tell whether a change has any effect.
BLOCKS = (
    range(1, 0x3100),
    range(0xAC00, 0xAC80),
    range(0xF900, 0xFFFE),
    range(0x1D400, 0x1D420),
    range(0x1F600, 0x1F620),
)
LETTERS = [f"x{chr(code)}y {chr(code)} z{chr(code) * 2}" for block in BLOCKS for code in block]
NORMALIZERS: list[dict[str, Any]] = [
    *({"type": kind} for kind in ("NFC", "NFD", "NFKC", "NFKD", "StripAccents", "Lowercase", "Nmt")),
    {"type": "Strip", "strip_left": True, "strip_right": True},
    {"type": "Prepend", "prepend": "x"},
    {"type": "Replace", "pattern": {"String": "``"}, "content": '"'},
    {"type": "Replace", "pattern": {"Regex": "[\u064b-\u0652]"}, "content": ""},
    {"type": "Replace", "pattern": {"Regex": "[0-9]"}, "content": "0"},
    {"type": "Replace", "pattern": {"Regex": r"\p{C}"}, "content": ""},
    *(
        {"type": "BertNormalizer", "lowercase": False, "strip_accents": False, **chosen}
        for chosen in (
            {"clean_text": True, "handle_chinese_chars": False},
            {"clean_text": False, "handle_chinese_chars": True},
        )
    ),
]
PRE_TOKENIZERS: list[dict[str, Any]] = [
    *({"type": kind} for kind in ("Whitespace", "WhitespaceSplit", "BertPreTokenizer", "UnicodeScripts")),
    {"type": "Digits", "individual_digits": True},
    {"type": "Digits", "individual_digits": False},
    {"type": "Punctuation", "behavior": "Isolated"},
    {"type": "CharDelimiterSplit", "delimiter": "_"},
    {"type": "Split", "pattern": {"Regex": r"\p{N}{1,3}"}, "behavior": "Isolated", "invert": False},
    {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": True},
    {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
]


def chosen(data: str) -> list[str]:
    known = [*PROBE_TEXTS, *TOKENIZER_TEXTS, *rule_texts(data.encode())]
    return [*known, *noticing_texts(Tokenizer(data.encode()), known)[0]]


def changes(data: str) -> Iterator[tuple[str, bytes]]:
    content = json.loads(data)
    for rule in NORMALIZERS:
        for sequence in around(content["normalizer"], rule, "Sequence", "normalizers"):
            yield json.dumps(sequence), changed(data, normalizer=sequence)
    for rule in PRE_TOKENIZERS:
        for sequence in [rule, *around(content["pre_tokenizer"], rule, "Sequence", "pretokenizers")]:
            yield json.dumps(sequence), changed(data, pre_tokenizer=sequence)
    for part in ("normalizer", "pre_tokenizer", "post_processor"):
        yield f"without {part}", changed(data, **{part: None})


@pytest.mark.integration
@pytest.mark.parametrize("kind", KINDS)
def test_a_change_that_has_any_effect_changes_a_probe(kind: str) -> None:
    texts, tokenizer = chosen(KINDS[kind]), Tokenizer(KINDS[kind].encode())
    expected, letters = tokenizer.ids(texts), tokenizer.ids(LETTERS)
    noticed, unnoticed = 0, []
    for name, data in changes(KINDS[kind]):
        other = Tokenizer(data)
        if other.ids(texts) != expected:
            noticed += 1
        elif other.ids(LETTERS) != letters:
            unnoticed.append(name)
    assert not unnoticed
    assert noticed > 30


@pytest.mark.parametrize("kind", KINDS)
def test_each_own_rule_changes_a_probe_unless_others_do_the_same(kind: str) -> None:
    data = KINDS[kind].encode()
    tokenizer, texts = Tokenizer(data), chosen(KINDS[kind])
    # Pieces that are isolated are the same if the pattern is inverted; no piece of this vocabulary contains a space.
    idle = {"bytes": {"pre_tokenizer.pretokenizers.0.invert"}, "unigram": {"pre_tokenizer.split"}}
    assert {rule.name for rule in unnoticed_rules(tokenizer, texts)} <= idle.get(kind, set())
    assert len(rules(data)) >= 6


@pytest.mark.parametrize("part", ["clean_text", "handle_chinese_chars", "strip_accents", "lowercase"])
@pytest.mark.parametrize("kind", ["uncased", "cased"])
def test_each_setting_of_bert_changes_a_probe(kind: str, part: str) -> None:
    content = json.loads(KINDS[kind])
    settings = content["normalizer"]
    value = bool(settings["lowercase"]) if settings[part] is None else settings[part]
    other = Tokenizer(changed(KINDS[kind], normalizer={**settings, part: not value}))
    texts = chosen(KINDS[kind])
    assert other.ids(texts) != Tokenizer(KINDS[kind].encode()).ids(texts)


@pytest.mark.parametrize(
    "rule",
    [
        {"type": "Replace", "pattern": {"String": "kg"}, "content": "kilogram"},
        {"type": "Replace", "pattern": {"Regex": r"\bzyxw\d*"}, "content": "a"},
        {"type": "Replace", "pattern": {"Regex": "[\u0e50-\u0e52\u2e3b]"}, "content": "-"},
        {"type": "Replace", "pattern": {"String": "♞"}, "content": "the"},
    ],
)
def test_a_rule_for_letters_that_no_fixed_text_has_gets_a_text(rule: dict[str, Any]) -> None:
    sequence = around(json.loads(KINDS["cased"])["normalizer"], rule, "Sequence", "normalizers")[0]
    data = changed(KINDS["cased"], normalizer=sequence).decode()
    tokenizer = Tokenizer(data.encode())
    assert "normalizer.normalizers.0 (Replace)" in {one.name for one in rules(data.encode())}
    assert unnoticed_rules(tokenizer, chosen(data)) == []
    assert [one.name for one in unnoticed_rules(tokenizer, PROBE_TEXTS[:4])]


def test_a_rule_that_changes_nothing_is_named() -> None:
    twice = around(json.loads(KINDS["unigram"])["normalizer"], {"type": "NFKC"}, "Sequence", "normalizers")[1]
    tokenizer = Tokenizer(changed(KINDS["unigram"], normalizer=twice))
    found, idle = noticing_texts(tokenizer, [*PROBE_TEXTS, *TOKENIZER_TEXTS])
    assert any("NFKC" in name for name in idle)
    assert len(found) <= 2


@pytest.mark.parametrize("setting", ["lstrip", "rstrip", "single_word", "normalized", "content"])
def test_each_setting_of_an_added_token_changes_a_probe(setting: str) -> None:
    fast = FastTokenizer.from_str(KINDS["unigram"])
    fast.add_tokens([AddedToken("Zürich", normalized=True)])
    data = str(fast.to_str())
    content = json.loads(data)
    token = content["added_tokens"][-1]
    token[setting] = "Genève" if setting == "content" else not token[setting]
    texts = chosen(data)
    before, after = Tokenizer(data.encode()), Tokenizer(json.dumps(content).encode())
    assert before.ids(texts) != after.ids(texts)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("limit", [4, 8, 12, 50])
def test_a_copy_that_truncates_shares_the_vocabulary_and_gives_the_tokens_of_the_file(kind: str, limit: int) -> None:
    tokenizer, texts = Tokenizer(KINDS[kind].encode()), chosen(KINDS[kind])
    plain = FastTokenizer.from_str(KINDS[kind])
    plain.enable_truncation(max_length=limit)
    expected = [encoding.ids for encoding in plain.encode_batch(texts)]
    assert [tokens.ids.tolist() for tokens in tokenizer.tokens(texts, limit=limit)] == expected
    assert tokenizer.ids(texts[:3]) == [
        encoding.ids for encoding in FastTokenizer.from_str(KINDS[kind]).encode_batch(texts[:3])
    ]
