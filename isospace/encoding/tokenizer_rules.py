"""The rules of a tokenizer (normalizer, pre-tokenizer, post-processor), and texts that each of them changes."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer as FastTokenizer

from isospace.encoding.tokenizer import Tokenizer

_PARTS = ("normalizer", "pre_tokenizer", "post_processor")
_LISTS = {"normalizers", "pretokenizers", "processors"}
_OF_OFFSETS = {"trim_offsets"}
_CHOICES = {
    "prepend_scheme": ("always", "never", "first"),
    "behavior": ("Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"),
}
# Added tokens that get a text each; some tokenizers have thousands that differ by a number.
_ADDED_TOKENS = 24
# Letters, punctuation, and symbols up to the CJK blocks, and compatibility characters.
_SCANNED = (range(0x20, 0x3000), range(0xF900, 0xFFFE))
_EMPTY: dict[str, Any] = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "decoder": None}
_MODEL = {"type": "WordLevel", "vocab": {}, "unk_token": ""}


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a tokenizer, or one of its settings.

    Attributes
    ----------
    name
        Its place in tokenizer.json, such as `normalizer.normalizers.0 (NFC)`.
    changed
        The tokenizer's parts by name, without the rule or with another value of the setting.
    """

    name: str
    changed: dict[str, Any]


def rules(data: bytes) -> list[Rule]:
    """Return the rules of a tokenizer.json, each with what the tokenizer would be without it."""
    parts = _parts(data)
    if (parts["post_processor"] or {}).get("type") == "ByteLevel":
        # It changes the offsets of tokens, and no token.
        parts["post_processor"] = None
    return [
        Rule(f"{part}{name}", {**parts, part: changed}) for part in _PARTS for name, changed in _changes(parts[part])
    ]


def rule_texts(data: bytes) -> list[str]:
    """Return texts with the patterns and the added tokens that a tokenizer.json names."""
    added = [token["content"] for token in json.loads(data).get("added_tokens") or [] if token["content"].strip()]
    step = -(-len(added) // _ADDED_TOKENS) or 1
    texts = [f"a {token} b{token}c {token.lower()} {token.upper()}" for token in added[::step]]
    literals = dict.fromkeys(literal for part in _parts(data).values() for literal in _literals(part))
    return [*texts, *(f"a {text} b{text}c {text}{text} {text.lower()} {text.upper()}" for text in literals)]


def noticing_texts(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Search characters for texts that the rules change which change none of `texts`.

    Returns
    -------
    tuple
        The texts found, and the names of the rules that change no text: others do the same.
    """
    unnoticed = unnoticed_rules(tokenizer, texts)
    if not unnoticed:
        return [], []
    scanned = [f"a{chr(code)}b {chr(code)} c{chr(code) * 2}" for codes in _SCANNED for code in codes]
    expected = tokenizer.ids(scanned)
    found, idle = [], []
    for rule in unnoticed:
        actual = _ids(tokenizer, rule, scanned) or expected
        text = next((text for text, a, b in zip(scanned, actual, expected, strict=True) if a != b), None)
        found += [] if text is None else [text]
        idle += [rule.name] if text is None else []
    return list(dict.fromkeys(found)), idle


def unnoticed_rules(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Rule]:
    """Return the rules without which all texts have the same tokens."""
    expected = tokenizer.ids(texts)
    return [rule for rule in rules(tokenizer.data) if _ids(tokenizer, rule, texts) == expected]


def _ids(tokenizer: Tokenizer, rule: Rule, texts: Sequence[str]) -> list[list[int]] | None:
    try:
        parts = FastTokenizer.from_str(json.dumps({**_EMPTY, "model": _MODEL, **rule.changed}))
    except Exception:  # the library raises plain Exception; the setting has no other value
        return None
    changed = tokenizer.copy()
    for part in _PARTS:
        setattr(changed, part, getattr(parts, part))
    return [encoding.ids for encoding in changed.encode_batch_fast(list(texts))]


def _parts(data: bytes) -> dict[str, Any]:
    content = json.loads(data)
    return {part: content.get(part) for part in _PARTS}


def _changes(node: Any) -> Iterator[tuple[str, Any]]:
    """Yield each rule below a part, with the part as it is without the rule."""
    if not isinstance(node, dict):
        return
    nested = next((key for key in _LISTS if isinstance(node.get(key), list)), None)
    if nested is None:
        yield f" ({node.get('type')})", None
        yield from ((f".{key}", {**node, key: value}) for key, value in _other_values(node))
        return
    members = node[nested]
    for number, member in enumerate(members):
        for name, changed in _changes(member):
            kept = [] if changed is None else [changed]
            rest = [*members[:number], *kept, *members[number + 1 :]]
            yield f".{nested}.{number}{name}", {**copy.copy(node), nested: rest}


def _other_values(node: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, bool) and key not in _OF_OFFSETS:
            yield key, not value
        elif key == "strip_accents":
            # If empty, accents are stripped if letters are lowered.
            yield key, not node.get("lowercase")
        elif key in _CHOICES:
            yield key, next(choice for choice in _CHOICES[key] if choice.lower() != str(value).lower())


def _literals(node: Any, key: str = "") -> Iterator[str]:
    """Yield the strings that rules look for, and the words in their regular expressions."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _literals(value, name)
    elif isinstance(node, list):
        for value in node:
            yield from _literals(value, key)
    elif isinstance(node, str) and key in ("String", "delimiter", "content", "prepend", "replacement"):
        yield from [node] if node.strip() else []
    elif isinstance(node, str) and key == "Regex":
        # Classes such as \p{L} name no text.
        yield from re.findall(r"\w{2,}", re.sub(r"\\p\{\^?\w+\}|\\.", " ", node))
