r"""Which tokenizers work on the pieces of a text one by one, and where the pieces begin.

`spaces`: white space separates the pieces, as with a tokenizer like BERT's, which normalizes character by character,
cuts at white space, and looks up each word alone:

- Of the steps of `BertNormalizer`, only the canonical decomposition (NFD) looks at several characters: it sorts marks
  that follow each other. White space is none, and sorting does not move a mark over it (Unicode Standard Annex 15).
- `BertPreTokenizer` removes white space, and separates punctuation character by character.
- WordPiece depends on the word alone.
- Added tokens are searched in the whole text. Those accepted here are printable ASCII without white space, so that none
  reaches over white space or takes it in.

`words`: a single space between two safe characters begins a piece, and belongs to it. Safe are the printable characters
of ASCII and letters of scripts whose characters neither combine nor are normalized to white space or to nothing:

- The accepted normalizers change single characters, or characters that combine (NFC and others, and the map of
  SentencePiece, which takes grapheme clusters). A space between safe characters does not combine with what precedes it:
  it is a starter, and only characters of the class Prepend extend a cluster over it (Unicode Standard Annex 29). The
  replacement of several spaces by one finds none: a space on either side would have to come from a safe character.
- In the regular expressions of GPT-2, Llama 3, and Qwen, a space can only begin a match, or be in a match of white
  space alone. So a match ends before the space, and since they look at nothing before a match, the rest does not depend
  on what precedes it. `Metaspace` cuts before each space.
- BPE and Unigram work on each of these words alone.
- Added tokens have no space behind another character, and take in no white space behind them.

Piece and text differ at their start, where a space may be prepended: the first piece of a text is another than the same
characters within it.
"""

from __future__ import annotations

import json
import re
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Cut: TypeAlias = Literal["spaces", "words"]

_POST_PROCESSORS = ("BertProcessing", "TemplateProcessing")
_ALL_POST_PROCESSORS = (*_POST_PROCESSORS, "RobertaProcessing", "ByteLevel")
_NORMALIZERS = frozenset({"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Precompiled"})
_NUMBERS = (r"\p{N}", r"\p{N}{1,3}")
# The regular expressions of Qwen 2 and 3, and of Llama 3.
_EXPRESSIONS = frozenset(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
    rf"{number}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    for number in _NUMBERS
)
# ASCII, Latin, Greek, Cyrillic, kana, Chinese, and Hangul, without marks, spacing forms, and what is ignored.
_SAFE = (
    *((0x21, 0x7E), (0xC0, 0x2AF), (0x386, 0x386), (0x388, 0x3FF), (0x400, 0x482), (0x48A, 0x52F)),
    *((0x3041, 0x3096), (0x30A1, 0x30FA), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3)),
)
_LAST = 0xFFFF


def cut_of(data: bytes) -> Cut | None:
    """Return where texts can be cut for the tokenizer of a tokenizer.json, by its rules; None if nowhere."""
    rules = json.loads(data)
    if _works_between_spaces(rules):
        return "spaces"
    return "words" if _works_word_by_word(rules) else None


def is_safe(codes: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
    """Return which characters are safe, by their code points."""
    found: npt.NDArray[np.bool_] = _TABLE[np.minimum(codes, _LAST)]
    return found


def safe_characters() -> list[str]:
    """Return the safe characters."""
    return [chr(code) for code in np.flatnonzero(_TABLE).tolist()]


def _safe_table() -> npt.NDArray[np.bool_]:
    table = np.zeros(_LAST + 1, bool)
    for first, last in _SAFE:
        table[first : last + 1] = True
    return table


_TABLE = _safe_table()


def _works_between_spaces(rules: dict[str, Any]) -> bool:
    normalizer, splitter = rules.get("normalizer"), rules.get("pre_tokenizer")
    after, added = rules.get("post_processor"), rules.get("added_tokens") or []
    return (
        rules["model"].get("type") == "WordPiece"
        and (normalizer is None or normalizer["type"] == "BertNormalizer")
        and splitter is not None
        and splitter["type"] == "BertPreTokenizer"
        and (after is None or after["type"] in _POST_PROCESSORS)
        and all(_is_plain(token) for token in added)
    )


def _is_plain(token: dict[str, Any]) -> bool:
    content = token["content"]
    is_word = content.isascii() and content.isprintable() and " " not in content
    return is_word and not token.get("lstrip") and not token.get("rstrip")


def _works_word_by_word(rules: dict[str, Any]) -> bool:
    model, after = rules["model"], rules.get("post_processor")
    return (
        model.get("type") in ("BPE", "Unigram")
        and not model.get("dropout")
        and all(_is_local(one) for one in _members(rules.get("normalizer"), "normalizers"))
        and _cuts_before_spaces(_members(rules.get("pre_tokenizer"), "pretokenizers"))
        and (after is None or after["type"] in _ALL_POST_PROCESSORS)
        and all(_stays_in_piece(token) for token in rules.get("added_tokens") or [])
    )


def _members(part: dict[str, Any] | None, name: str) -> list[dict[str, Any]]:
    """Return the steps of a part, which may be a sequence of them."""
    if part is None:
        return []
    return part[name] if part["type"] == "Sequence" else [part]


def _is_local(normalizer: dict[str, Any]) -> bool:
    if normalizer["type"] == "Replace":
        pattern = normalizer["pattern"]
        # Several spaces, or quotation marks as TeX writes them.
        return pattern in ({"Regex": " {2,}"}, {"String": "``"}, {"String": "''"}) and normalizer["content"] in (
            " ",
            "▁",
            '"',
        )
    return normalizer["type"] in _NORMALIZERS


def _cuts_before_spaces(splitters: list[dict[str, Any]]) -> bool:
    match splitters:
        case [{"type": "ByteLevel", "use_regex": True}]:
            return True
        case [{"type": "Split", "behavior": "Isolated", "invert": False} as split, {"type": "ByteLevel"} as last]:
            is_plain = not last["add_prefix_space"] and not last.get("use_regex", True)
            return is_plain and split["pattern"].get("Regex") in _EXPRESSIONS
        case [{"type": "Metaspace"} as one] | [{"type": "WhitespaceSplit"}, {"type": "Metaspace"} as one]:
            return one["replacement"] == "▁" and one.get("split") is not False
        case _:
            return False


def _stays_in_piece(token: dict[str, Any]) -> bool:
    content = token["content"]
    return content.isascii() and not re.search(r"\S\s", content) and not token.get("rstrip")
