"""Tokenizers of served encoders: they count tokens before a text is sent, and never decide what is sent.

Each is a tokenizer.json in the store, so that chunking, plans, and probes treat every encoder alike.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

from isospace.encoding.tokenizer import Tokenizer
from isospace.errors import ConfigError, IsospaceError, install_command

BUDGET = "budget"
TIKTOKEN = "tiktoken:"
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
    symbols = _byte_symbols()
    vocabulary = {symbol: number for number, symbol in enumerate(symbols)}
    merges = [[symbols[ord(first)], symbols[ord(second)]] for first in _PAIRED for second in _PAIRED]
    for first, second in merges:
        vocabulary[first + second] = len(vocabulary)
    split = {
        "type": "Split",
        "pattern": {"Regex": r"[A-Za-z ]{2}|[\s\S]"},
        "behavior": "Isolated",
        "invert": False,
    }
    to_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    document: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, to_bytes]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": merges,
        },
    }
    return json.dumps(document).encode()


def _byte_symbols() -> list[str]:
    """Return the letter that stands for each byte in a byte-level vocabulary (Radford et al. 2019, GPT-2)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(0x100)]


def _tiktoken(name: str) -> bytes:
    try:
        import tiktoken
        from transformers.integrations.tiktoken import convert_tiktoken_to_fast
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"recipe.encoder.tokenizer = {TIKTOKEN}{name}: the package {error.name} is missing. Run: "
            f"{install_command('served')}"
        ) from error
    try:
        encoding = tiktoken.get_encoding(name)
    except Exception as error:  # an unknown name, or what its download raises
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"recipe.encoder.tokenizer = {TIKTOKEN}{name}: cannot be loaded ({reason}). Check the name and the "
            "network, or use budget."
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        convert_tiktoken_to_fast(encoding, folder)
        return (Path(folder) / "tokenizer.json").read_bytes()
