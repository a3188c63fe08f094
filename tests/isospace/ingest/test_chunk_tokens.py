"""A piece takes its tokens from its text only if what stands around it is white space for every tokenizer."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import cast

import pytest

from isospace.encoding.encoder import token_counter
from isospace.encoding.registry.record import EncoderRecord
from isospace.encoding.tokenizer import Tokenizer
from isospace.ingest.chunk_tokens import Piece, count_pieces, count_texts, read_texts
from isospace.ingest.token_counter import TextTokens, TokenCounter
from tests.helpers.tokenizers import wordpiece

# Every character up to the end of the first plane with letters, marks, spaces, and controls, and some beyond.
CHARACTERS = [chr(code) for code in (*range(0x3100), *range(0xA000, 0xAC80), *range(0xF900, 0x10000), 0x1F600, 0xE0041)]


def counter(prompt: str = "") -> TokenCounter:
    record = SimpleNamespace(prompts={"document": prompt}, max_tokens=400, windows=None, served=None, pooling=("mean",))
    return token_counter(Tokenizer(wordpiece().encode()), cast("EncoderRecord", record))


def piece(text: str, start: int, end: int, tokens: TextTokens, prefix: str = "") -> Piece:
    return Piece(prefix, text, start, end, tokens, [begin for begin, _ in tokens.offsets])


def test_characters_that_are_no_white_space_for_the_tokenizer_do_not_separate_pieces() -> None:
    """Some are removed before words are found, so that what they separate is one word."""
    used = counter()
    texts = [f"the{character}of" for character in CHARACTERS]
    read = read_texts(texts, used)
    halves = [piece(text, 4, len(text), tokens) for text, tokens in zip(texts, read, strict=True)]
    halves += [piece(text, 0, 3, tokens) for text, tokens in zip(texts, read, strict=True)]
    fresh = [
        ids.tolist()
        for _, found in count_texts(["of", "the"], used)
        if (ids := found.ids if found else None) is not None
    ]
    expected = [*([fresh[0]] * len(texts)), *([fresh[1]] * len(texts))]
    for half, (count, tokens), ids in zip(halves, count_pieces(halves, used), expected, strict=True):
        assert tokens is not None
        assert tokens.ids.tolist() == ids, repr(half.text)
        assert count == len(ids)


@pytest.mark.parametrize("before", ["", "the", " ", "the "])
@pytest.mark.parametrize("character", ["\u0301", "\u05b0", "ﬁ", "가", "漢", "\u200d", "!", "\ufe0f", "İ", "x"])
def test_what_follows_white_space_is_the_same_alone(before: str, character: str) -> None:
    """Marks that would combine with a letter before them do not combine with white space."""
    used = counter()
    text = f"of {before}\n{character}\u0327 of\u0301 \u0301\u0327 end"
    (tokens,) = read_texts([text], used)
    start = len(before) + 4
    whole, alone = [piece(text, start, len(text), tokens)], [piece(text[start:], 0, len(text) - start, TextTokens([]))]
    (_, cut), (_, fresh) = count_pieces(whole, used)[0], count_pieces(alone, used)[0]
    assert cut is not None
    assert fresh is not None
    assert cut.ids.tolist() == fresh.ids.tolist()


def test_a_prefix_that_would_merge_with_the_text_is_tokenized_with_it() -> None:
    used = counter()
    (tokens,) = read_texts(["of the"], used)
    joined = count_pieces([piece("of the", 0, 6, tokens, "the"), piece("of the", 0, 6, tokens, "the ")], used)
    assert joined[0][0] != joined[1][0]
    for (_, found), text in zip(joined, ["theof the", "the of the"], strict=True):
        (expected,) = count_texts([text], used)
        assert found is not None
        assert expected[1] is not None
        assert found.ids.tolist() == expected[1].ids.tolist()


def test_unknown_tokens_of_the_prompt_do_not_count() -> None:
    """Neither in a piece, nor in a text that is tokenized by itself."""
    unknown = chr(sys.maxunicode - 2)
    used = counter(f"of {unknown}ჯ ჯ: ")
    text = "the ჯ of"
    (tokens,) = read_texts([text], used)
    [(_, cut)], [(_, fresh)] = count_pieces([piece(text, 0, len(text), tokens, "ჯ ")], used), count_texts([text], used)
    assert cut is not None
    assert fresh is not None
    assert (cut.unknown, fresh.unknown) == ((2, 4), (1, 3))


def test_a_counter_without_token_ids_counts_whole_texts() -> None:
    asked: list[str] = []

    def counts(texts: list[str]) -> list[int]:
        asked.extend(texts)
        return [len(text) for text in texts]

    plain = TokenCounter(lambda texts: [[(0, 1)] for _ in texts], counts, 10)  # type: ignore[arg-type]
    (tokens,) = read_texts(["a b"], plain)
    assert tokens.offsets == [(0, 1)]
    assert count_pieces([piece("a b", 2, 3, tokens, "t ")], plain) == [(3, None)]
    assert asked == ["t b"]
    assert count_pieces([], plain) == []
