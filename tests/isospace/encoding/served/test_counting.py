from __future__ import annotations

import pytest
import tiktoken

from isospace.encoding.served.counting import served_tokenizer
from isospace.errors import ConfigError

# Not in the order of their lengths: what a token is merged from depends on the ranks alone.
MERGES = [b"bc", b"ab", b"abc", b"cab", b"aa", b"aaa", b"12", b"123", b" a", b"\xc3\xa9", b"\xe6\xa9", b"ca", b"abab"]
TEXTS = [
    "abc",
    "cab",
    "abab",
    "aaaa",
    "aaaaa",
    "cabcab",
    "1212123",
    " a b",
    "é 機 ab",
    "",
    "\n\n a",
    "12 3",
    "abcabcabc",
]


@pytest.fixture
def encoding() -> tiktoken.Encoding:
    ranks = {bytes([byte]): byte for byte in range(256)} | {token: 256 + n for n, token in enumerate(MERGES)}
    pattern = r"\p{N}{1,3}+| ?[^\s\p{N}]++|\s+"
    return tiktoken.Encoding("tiny", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})


def test_an_encoding_of_tiktoken_gives_the_same_tokens_in_the_store(
    encoding: tiktoken.Encoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiktoken, "get_encoding", lambda name: encoding)
    tokenizer = served_tokenizer("tiktoken:tiny")
    expected = [encoding.encode_ordinary(text) for text in TEXTS]
    assert tokenizer.ids(TEXTS) == expected
    # Three digits at most are a piece: 121, 212, and 3.
    assert expected[TEXTS.index("1212123")] == [262, 49, 50, 262, 51]


def test_an_encoding_that_tiktoken_does_not_know_is_named() -> None:
    with pytest.raises(ConfigError, match=r"recipe\.encoder\.tokenizer = tiktoken:no_such: cannot be loaded"):
        served_tokenizer("tiktoken:no_such")
