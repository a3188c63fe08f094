"""Tokenize texts piece by piece, each distinct piece once: most words of a text have been seen before.

This is for tokenizers that work on the pieces one by one; `isospace.encoding.piece_rules` says which ones do, and where
they cut.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from isospace.encoding.piece_rules import Cut, cut_of, is_safe, safe_characters
from isospace.encoding.tokenizer import Tokenizer
from isospace.transform.probe_texts import PROBE_TEXTS, TOKENIZER_TEXTS

Ints = npt.NDArray[np.int32]
# When so many pieces or tokens are known, all are forgotten: about 60 MB.
MOST_PIECES, MOST_TOKENS = 200_000, 1_000_000
_GROUP = 512
# Precedes the first piece of a text among the known pieces; others begin with a space.
_FIRST = "^"
# Stands before another piece, so that it is not at the start of a text when it is tokenized.
_BEFORE = "x"


@dataclass(frozen=True, eq=False, slots=True)
class Spans:
    """All tokens of a text without special tokens.

    Attributes
    ----------
    ids
        (length,) int32.
    starts, ends
        (length,) int32 character offsets.
    """

    ids: Ints
    starts: Ints
    ends: Ints


@dataclass
class PieceTokenizer:
    """Gives what `tokenizer` gives, faster; thread-safe.

    Attributes
    ----------
    cut
        Where texts are cut into pieces.
    """

    tokenizer: Tokenizer
    cut: Cut
    _known: _Known = field(default_factory=lambda: _Known(), repr=False)

    def spans(self, texts: Sequence[str]) -> list[Spans]:
        """Return the tokens of texts."""
        if not texts:
            return []
        starts, ends, bases, first = _pieces(texts, self.cut)
        joined = "\n".join(texts)
        keys = [joined[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
        if self.cut == "words":
            for number in np.unique(first[:-1][np.diff(first) > 0]).tolist():
                keys[number] = _FIRST + keys[number]
        known = self._with(keys)
        rows = np.fromiter(map(known.rows.__getitem__, keys), np.int64, len(keys))
        counts = known.counts[rows]
        last = np.cumsum(counts)
        inside = np.arange(last[-1] if len(last) else 0) - np.repeat(last - counts, counts)
        places = np.repeat(known.begins[rows], counts) + inside
        # Offsets count from the start of each text.
        of_piece = np.searchsorted(bases, starts, "right") - 1
        shift = np.repeat(starts - bases[of_piece], counts)
        cuts = np.concatenate([[0], last])[first]
        ids = known.ids[places]
        begins, stops = (known.starts[places] + shift).astype(np.int32), (known.ends[places] + shift).astype(np.int32)
        return [Spans(ids[a:b], begins[a:b], stops[a:b]) for a, b in pairwise(cuts.tolist())]

    def ids(self, texts: Sequence[str]) -> list[Ints]:
        """Return (length,) int32 token IDs of each text without special tokens."""
        return [spans.ids for spans in self.spans(texts)]

    def _with(self, keys: Sequence[str]) -> _Known:
        """Return the known pieces, with these among them."""
        known = self._known
        if known.is_full:
            known = self._known = _Known()
        missing = [key for key in dict.fromkeys(keys) if key not in known.rows]
        for start in range(0, len(missing), _GROUP):
            group = missing[start : start + _GROUP]
            known.add(group, self._tokenized(group))
        return known

    def _tokenized(self, keys: Sequence[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        if self.cut == "spaces":
            return [(ids, offsets) for offsets, ids in self.tokenizer.spans(keys)]
        texts = [key[1:] if key[0] == _FIRST else _BEFORE + key for key in keys]
        skipped = len(self.tokenizer.all_ids([_BEFORE], special=False)[0])
        found = []
        for key, (offsets, ids) in zip(keys, self.tokenizer.spans(texts), strict=True):
            if key[0] == _FIRST:
                found.append((ids, offsets))
            else:
                found.append((ids[skipped:], [(start - 1, end - 1) for start, end in offsets[skipped:]]))
        return found


def open_pieces(tokenizer: Tokenizer) -> PieceTokenizer | None:
    """Return a tokenizer that works piece by piece; None if texts may have other tokens than their pieces.

    The rules of its file must be known to have this property, and texts of every kind must show it.
    """
    cut = cut_of(tokenizer.data)
    if cut is None:
        return None
    pieces = PieceTokenizer(tokenizer, cut)
    return pieces if _keeps_safe_characters(pieces) and _agrees(pieces) else None


def _keeps_safe_characters(pieces: PieceTokenizer) -> bool:
    """Return whether no safe character is normalized to nothing, or to what begins or ends in a space."""
    normalizer = pieces.tokenizer.copy().normalizer
    if pieces.cut == "spaces" or normalizer is None:
        return True
    found = map(normalizer.normalize_str, safe_characters())
    return all(one and not one[0].isspace() and not one[-1].isspace() for one in found)


def _agrees(pieces: PieceTokenizer) -> bool:
    texts = [*PROBE_TEXTS, *TOKENIZER_TEXTS]
    texts = [*texts, " ".join(texts), "", " "]
    head, tail = pieces.tokenizer.frame("")
    found, expected = pieces.spans(texts), pieces.tokenizer.spans(texts)
    whole = pieces.tokenizer.all_ids(texts)
    return all(
        one.ids.tolist() == ids
        and list(zip(one.starts.tolist(), one.ends.tolist(), strict=True)) == offsets
        and framed == [*head, *ids, *tail]
        for one, (offsets, ids), framed in zip(found, expected, whole, strict=True)
    )


class _Known:
    """The tokens of pieces that were tokenized; rows are added and never changed."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self.begins, self.counts = np.empty(1024, np.int64), np.empty(1024, np.int64)
        self.ids, self.starts, self.ends = (np.empty(4096, np.int32) for _ in range(3))
        self._size = self._tokens = 0
        self._lock = threading.Lock()

    @property
    def is_full(self) -> bool:
        return self._size > MOST_PIECES or self._tokens > MOST_TOKENS

    def add(self, keys: Sequence[str], found: Sequence[tuple[list[int], list[tuple[int, int]]]]) -> None:
        with self._lock:
            for key, (ids, offsets) in zip(keys, found, strict=True):
                if key not in self.rows:
                    self._add(key, ids, offsets)

    def _add(self, key: str, ids: list[int], offsets: list[tuple[int, int]]) -> None:
        row, begin, end = self._size, self._tokens, self._tokens + len(ids)
        if row == len(self.begins):
            self.begins, self.counts = _grown(self.begins, row + 1), _grown(self.counts, row + 1)
        if end > len(self.ids):
            self.ids, self.starts, self.ends = (_grown(one, end) for one in (self.ids, self.starts, self.ends))
        self.begins[row], self.counts[row] = begin, len(ids)
        self.ids[begin:end] = ids
        for place, (start, stop) in enumerate(offsets, begin):
            self.starts[place], self.ends[place] = start, stop
        self._size, self._tokens = row + 1, end
        # Another thread finds the row only now.
        self.rows[key] = row


def _grown(array: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    grown = np.empty(max(size, 2 * len(array)), array.dtype)
    grown[: len(array)] = array
    return grown


def _pieces(
    texts: Sequence[str], cut: Cut
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    r"""Cut texts that are joined by "\n".

    Returns
    -------
    starts, ends
        (pieces,) places of the pieces.
    bases
        (texts,) where each text begins.
    first
        (texts + 1,) number of the first piece of each text, and the number of pieces.
    """
    codes = np.frombuffer("\n".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
    sizes = np.fromiter(map(len, texts), np.int64, len(texts))
    bases = np.cumsum(sizes + 1) - sizes - 1
    if cut == "spaces":
        is_word = np.concatenate([[False], (codes != 32) & (codes != 10) & (codes != 9) & (codes != 13), [False]])
        edges = np.flatnonzero(is_word[1:] != is_word[:-1])
        starts, ends = edges[::2], edges[1::2]
    else:
        safe = is_safe(codes)
        inner = np.flatnonzero((codes[1:-1] == 32) & safe[:-2] & safe[2:]) + 1
        starts = np.union1d(inner, bases[sizes > 0])
        stops = (bases + sizes)[np.searchsorted(bases, starts, "right") - 1]
        ends = np.minimum(np.append(starts[1:], len(codes)), stops)
    return starts, ends, bases, np.append(np.searchsorted(starts, bases), len(starts))
