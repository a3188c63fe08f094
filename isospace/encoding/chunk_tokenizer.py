"""The token IDs that an encoder receives for chunks, from the tokens of the document where they are the same.

A tokenizer like BERT's normalizes character by character, cuts at white space, and looks up each word alone. So the
tokens of a text are those of its pieces between white space, one after the other:

- Of the steps of `BertNormalizer`, only the canonical decomposition (NFD) looks at several characters: it sorts marks
  that follow each other. White space is none, and sorting does not move a mark over it (Unicode Standard Annex 15).
- `BertPreTokenizer` removes white space, and separates punctuation character by character.
- WordPiece depends on the word alone.
- Added tokens are searched in the whole text. Those accepted here are printable ASCII without white space, so that none
  reaches over white space or takes it in.

Tokenizers of other kinds may merge white space with the word behind it (byte-level BPE), or begin a text otherwise than
a word (SentencePiece). Their chunks are tokenized by themselves.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from isospace.encoding.tokenizer import Tokenizer
from isospace.ingest.chunk_tokens import SPACES
from isospace.ingest.token_counter import ChunkTokens, TextTokens, TokenIds
from isospace.transform.probe_texts import PROBE_TEXTS, TOKENIZER_TEXTS

_POST_PROCESSORS = ("BertProcessing", "TemplateProcessing")


@dataclass(frozen=True)
class ChunkTokenizer:
    """Makes the token IDs of chunks; a `TokenSource`.

    Attributes
    ----------
    prompt
        Put before every text.
    is_kept
        Whether the encoder takes these IDs instead of making its own.
    """

    tokenizer: Tokenizer
    prompt: str
    is_kept: bool = True

    @property
    def digest(self) -> str:
        """SHA-256 of the tokenizer's file."""
        return self.tokenizer.digest

    @cached_property
    def _is_separable(self) -> bool:
        """Whether the tokens of a piece between white space are the same in the text and alone."""
        return (not self.prompt or self.prompt[-1] in SPACES) and splits_at_spaces(self.tokenizer)

    @cached_property
    def _frame(self) -> tuple[TokenIds, TokenIds]:
        """The special tokens before and after a text."""
        head, tail = self.tokenizer.frame("")
        return np.array(head, np.int32), np.array(tail, np.int32)

    @cached_property
    def _special(self) -> int:
        return len(self.tokenizer.all_ids([""])[0])

    @cached_property
    def _prompt_ids(self) -> TokenIds:
        return np.array(self.tokenizer.all_ids([self.prompt], special=False)[0], np.int32)

    def read(self, texts: Sequence[str]) -> list[TextTokens]:
        """Return the tokens of texts without prompt and special tokens."""
        if not self._is_separable:
            return [TextTokens(offsets) for offsets in self.tokenizer.offsets(texts)]
        return [_text_tokens(offsets, ids) for offsets, ids in self.tokenizer.spans(texts)]

    def encode(self, texts: Sequence[str]) -> list[ChunkTokens]:
        """Return the tokens of texts as documents."""
        ids = self.tokenizer.all_ids([self.prompt + text for text in texts])
        # A token that begins in the prompt may reach into the text.
        is_counted = not self.prompt or self._is_separable
        return [self._chunk_tokens(np.array(one, np.int32), is_counted=is_counted) for one in ids]

    def join(self, prefixes: Sequence[str], pieces: Sequence[TokenIds]) -> list[ChunkTokens] | None:
        """Return the tokens of prefixes and pieces of texts as documents; None if they do not follow from the IDs.

        Parameters
        ----------
        prefixes
            Each is empty, or ends in white space.
        pieces
            The part of `TextTokens.ids` of each piece, which has white space around it in its text.
        """
        if not self._is_separable:
            return None
        distinct = list(dict.fromkeys(prefixes))
        found = self.tokenizer.all_ids([self.prompt + prefix for prefix in distinct], special=False)
        head, tail = self._frame
        before = {
            prefix: np.concatenate([head, np.array(ids, np.int32)]) for prefix, ids in zip(distinct, found, strict=True)
        }
        return [
            self._chunk_tokens(np.concatenate([before[prefix], piece, tail]), is_counted=True)
            for prefix, piece in zip(prefixes, pieces, strict=True)
        ]

    def _chunk_tokens(self, ids: TokenIds, *, is_counted: bool) -> ChunkTokens:
        unknown = self.tokenizer.unknown_id
        if unknown is None:
            return ChunkTokens(ids)
        counts = None
        if is_counted:
            total = len(ids) - self._special - len(self._prompt_ids)
            in_prompt = np.count_nonzero(self._prompt_ids == unknown)
            counts = int(np.count_nonzero(ids == unknown) - in_prompt), total
        return ChunkTokens(self.tokenizer.kept_ids(ids), counts)


def splits_at_spaces(tokenizer: Tokenizer) -> bool:
    """Return whether the tokens of a text are those of its pieces between white space.

    The rules of its file must be known to have this property, and texts of every kind must show it.
    """
    return _has_separable_rules(json.loads(tokenizer.data)) and _is_separable_on_probes(tokenizer)


def _has_separable_rules(rules: dict[str, Any]) -> bool:
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


def _is_separable_on_probes(tokenizer: Tokenizer) -> bool:
    texts = [*PROBE_TEXTS, *TOKENIZER_TEXTS]
    pieces = [piece for text in texts for piece in text.split(" ")]
    apart = [one for ids in tokenizer.all_ids(pieces, special=False) for one in ids]
    head, tail = tokenizer.frame("")
    whole = tokenizer.all_ids([" ".join(texts)])[0]
    return whole == [*head, *apart, *tail]


def _text_tokens(offsets: list[tuple[int, int]], ids: list[int]) -> TextTokens:
    covering = [(start, end) for start, end in offsets if end > start]
    starts = [start for start, _ in covering]
    # By its rules, every token covers text, and they are in its order. Otherwise, none can be cut out.
    if len(covering) < len(ids) or starts != sorted(starts):
        return TextTokens(covering)
    return TextTokens(covering, np.array(ids, np.int32))
