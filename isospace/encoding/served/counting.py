"""Tokenizers of served encoders: they count tokens before a text is sent, and never decide what is sent.

Each is a tokenizer.json in the store, so that chunking, plans, and probes treat every encoder alike.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from isospace.encoding.tokenizer import Tokenizer
from isospace.errors import ConfigError, IsospaceError, require_package

BUDGET = "budget"
TIKTOKEN = "tiktoken:"
_POSSESSIVE = re.compile(r"(\{\d+(?:,\d*)?\})\+")
# A rank after those of all merges.
_NEVER = 1 << 62
# Tokens of prose have about four letters each; digits, punctuation, and other scripts can have a token for each byte.
_PAIRED = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ "


def served_tokenizer(name: str) -> Tokenizer:
    """Return the tokenizer that a recipe names.

    Parameters
    ----------
    name
        `budget`, `tiktoken:NAME`, or the path of a tokenizer.json.

    Raises
    ------
    ConfigError
        If there is no such tokenizer, or it cannot be loaded.
    """
    if name == BUDGET:
        return Tokenizer(_budget())
    if name.startswith(TIKTOKEN):
        return Tokenizer(_tiktoken(name.removeprefix(TIKTOKEN)))
    try:
        tokenizer = Tokenizer(Path(name).expanduser().read_bytes())
        tokenizer.ids(["a"])
    except (OSError, RuntimeError, IsospaceError) as error:
        raise ConfigError(
            f"recipe.encoder.tokenizer = {name}: cannot be loaded ({error}). Give the path of the model's "
            "tokenizer.json, tiktoken:NAME, or budget."
        ) from error
    return tokenizer


def tokenizer_identity(name: str) -> str:
    """Return what identifies a tokenizer of a recipe: its name, or the SHA-256 of its file."""
    if name == BUDGET or name.startswith(TIKTOKEN):
        return name
    try:
        return hashlib.sha256(Path(name).expanduser().read_bytes()).hexdigest()
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"recipe.encoder.tokenizer = {name}: cannot be read ({error}). Correct the path.") from error


def _budget() -> bytes:
    """Return a tokenizer that counts a token for every two letters or spaces of ASCII, and for every other byte."""
    ranks = {bytes([byte]): byte for byte in range(0x100)}
    for first in _PAIRED:
        ranks |= {(first + second).encode(): len(ranks) + place for place, second in enumerate(_PAIRED)}
    return _byte_level(ranks, r"[A-Za-z ]{2}|[\s\S]")


def _byte_level(ranks: Mapping[bytes, int], pattern: str) -> bytes:
    """Return the tokenizer.json of a byte-level BPE; the IDs of its tokens are also the order of their merges."""
    symbols = _byte_symbols()

    def written(token: bytes) -> str:
        return "".join(symbols[byte] for byte in token)

    pairs = (_merged_from(token, ranks) for token in sorted(ranks, key=lambda one: ranks[one]) if len(token) > 1)
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    to_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    document: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, to_bytes]},
        "post_processor": None,
        "decoder": to_bytes,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,
            "vocab": {written(token): number for token, number in ranks.items()},
            "merges": [[written(first), written(second)] for first, second in pairs],
        },
    }
    return json.dumps(document).encode()


def _merged_from(token: bytes, ranks: Mapping[bytes, int]) -> tuple[bytes, bytes]:
    """Return the two tokens that a token is merged from: what is left when all merges of lower rank are done."""
    parts = [token[place : place + 1] for place in range(len(token))]
    while len(parts) > 2:
        joined = [ranks.get(first + second, _NEVER) for first, second in pairwise(parts)]
        best = min(range(len(joined)), key=lambda place: joined[place])
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts[0], parts[1]


def _byte_symbols() -> list[str]:
    """Return the letter that stands for each byte in a byte-level vocabulary (Radford et al. 2019, GPT-2)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(0x100)]


def tiktoken_encoding(name: str, setting: str) -> Any:
    """Return an encoding of the package tiktoken, which downloads its vocabulary once.

    Parameters
    ----------
    name
        Such as `cl100k_base`.
    setting
        What names it, with its value, for messages.

    Raises
    ------
    ConfigError
        If the package is missing, there is no such encoding, or it cannot be downloaded.
    """
    require_package("tiktoken", setting)
    import tiktoken

    try:
        return tiktoken.get_encoding(name)
    except Exception as error:  # an unknown name, or what its download raises
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{setting}: cannot be loaded ({reason}). Check the name and the network.") from error


def _tiktoken(name: str) -> bytes:
    encoding = tiktoken_encoding(name, f"recipe.encoder.tokenizer = {TIKTOKEN}{name}")
    # A plus after {1,3} is possessive there, and another repetition in the library that reads the tokenizer.json.
    return _byte_level(encoding._mergeable_ranks, _POSSESSIVE.sub(r"\1", encoding._pat_str))
