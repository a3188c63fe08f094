"""Postings: which words occur in which rows, how often. Arrays that are mapped from a file and searched as they are.

A posting list holds the rows of one word, ascending, with the number of times the word occurs in each. It depends on
the texts and the rules for words alone; scores are computed from it when a query comes (`isospace.search.bm25`).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from isospace.errors import ConfigError, IntegrityError
from isospace.search.spec import LexicalSpec
from isospace.search.words import document_words

Mask = npt.NDArray[np.bool_]
_MOST_ROWS = 2**31 - 1
_DTYPES = {"words": "u1", "word_ends": "i8", "starts": "i8", "rows": "i4", "counts": "u1 u2 u4", "lengths": "i4"}


@dataclass(frozen=True, eq=False, slots=True)
class Postings:
    """The postings of n rows and w distinct words.

    Attributes
    ----------
    words
        uint8: the words in UTF-8, sorted by their bytes, one after the other.
    word_ends
        (w,) int64: where each word ends in `words`.
    starts
        (w + 1,) int64: word i has the postings from starts[i] to starts[i + 1].
    rows
        int32: the row of each posting, ascending within a word.
    counts
        uint8, or uint16 or uint32 if a word occurs more often in one row: the occurrences of the word in the row.
    lengths
        (n,) int32: the number of words in each row, without those that consist of others.
    """

    words: npt.NDArray[np.uint8]
    word_ends: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int32]
    counts: npt.NDArray[Any]
    lengths: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.lengths)

    def word(self, number: int) -> bytes:
        """Return a word in UTF-8."""
        start = int(self.word_ends[number - 1]) if number else 0
        return self.words[start : int(self.word_ends[number])].tobytes()

    def find(self, word: str) -> int | None:
        """Return the number of a word, by binary search; None if no row has it."""
        wanted, low, high = _encoded(word), 0, len(self.word_ends)
        while low < high:
            middle = (low + high) // 2
            if self.word(middle) < wanted:
                low = middle + 1
            else:
                high = middle
        return low if low < len(self.word_ends) and self.word(low) == wanted else None

    def of(self, number: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[Any]]:
        """Return the rows that have a word, ascending, and how often each has it."""
        own = slice(int(self.starts[number]), int(self.starts[number + 1]))
        return self.rows[own], self.counts[own]

    def load(self, chosen: Iterable[int]) -> None:
        """Do nothing: the postings are here."""

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def build_postings(texts: Iterable[Sequence[str]], spec: LexicalSpec) -> Postings:
    """Return the postings of texts, which come in batches; each text is a row."""
    known: dict[str, int] = {}
    # Four bytes for a word of a text: lists of integers would take ten times the memory.
    ids, sizes, lengths = array("i"), array("i"), array("i")
    for batch in texts:
        for words, length in document_words(batch, spec):
            lengths.append(length)
            sizes.append(len(words))
            ids.extend([known.setdefault(word, len(known)) for word in words])
    names = list(map(_encoded, known))
    order = np.array(sorted(range(len(names)), key=names.__getitem__), np.int64)
    place = np.empty(len(names), np.int64)
    place[order] = np.arange(len(names))
    found = postings_of_ids(
        [names[number] for number in order.tolist()], place[np.array(ids, np.int64)], np.array(sizes, np.int32)
    )
    return replace(found, lengths=np.array(lengths, np.int32))


def postings_of_ids(words: Sequence[bytes], ids: npt.NDArray[np.int64], lengths: npt.NDArray[np.int32]) -> Postings:
    """Return the postings of texts whose words are numbered.

    Parameters
    ----------
    words
        The distinct words in UTF-8, sorted; every one occurs.
    ids
        int64: the number of each word of all texts, in their order.
    lengths
        (n,) int32: how many words each text has.
    """
    rows = max(len(lengths), 1)
    pairs = ids * rows + np.repeat(np.arange(len(lengths)), lengths)
    pairs.sort()
    firsts = np.flatnonzero(np.diff(pairs, prepend=-1))
    counts = np.diff(firsts, append=len(pairs))
    pairs = pairs[firsts]
    return Postings(
        words=np.frombuffer(b"".join(words), np.uint8),
        word_ends=np.cumsum(np.fromiter(map(len, words), np.int64, len(words)), dtype=np.int64),
        starts=np.searchsorted(pairs, np.arange(len(words) + 1) * rows).astype(np.int64),
        rows=(pairs % rows).astype(np.int32),
        counts=counts.astype(np.min_scalar_type(int(counts.max(initial=0)))),
        lengths=lengths,
    )


def merge_postings(sources: Sequence[tuple[Postings, Mask | None]]) -> Postings:
    """Return the postings of the rows of several, one after the other: those of building from all their texts.

    Parameters
    ----------
    sources
        Postings, each with an (n,) mask of the rows that are kept; None keeps all. The rows are numbered anew, and
        words that no kept row has are left out.

    Raises
    ------
    ConfigError
        If there are more than 2^31 - 1 rows.
    """
    if not sources:
        return postings_of_ids([], np.zeros(0, np.int64), np.zeros(0, np.int32))
    lengths = np.concatenate([_kept(one.lengths, keep) for one, keep in sources])
    if len(lengths) > _MOST_ROWS:
        raise ConfigError(f"{len(lengths)} rows of postings: expected at most {_MOST_ROWS}. Merge fewer parts at once.")
    sizes = [_sizes(one, keep) for one, keep in sources]
    ranks, words, word_ends = _merged_words([one for one, _ in sources], sizes)
    totals = np.zeros(len(word_ends), np.int64)
    for rank, size in zip(ranks, sizes, strict=True):
        totals[rank] += size[size > 0]
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(totals)])
    most = max((int(_kept_postings(one, keep).max(initial=0)) for one, keep in sources), default=0)
    rows, counts = np.empty(starts[-1], np.int32), np.empty(starts[-1], np.min_scalar_type(most))
    free, first = starts[:-1].copy(), 0
    for (one, keep), rank, every in zip(sources, ranks, sizes, strict=True):
        size = every[every > 0]
        begins = np.cumsum(size) - size
        target = np.arange(size.sum()) + np.repeat(free[rank] - begins, size)
        rows[target] = _renumbered(one, keep) + np.int32(first)
        counts[target] = _kept_postings(one, keep)
        free[rank] += size
        first += len(one) if keep is None else int(np.count_nonzero(keep))
    return Postings(words, word_ends, starts, rows, counts, lengths)


def checked_postings(arrays: Mapping[str, npt.NDArray[Any]], name: str) -> Postings:
    """Return the postings that arrays hold; `name` is for messages.

    Raises
    ------
    IntegrityError
        If an array is missing, or what they hold are no postings.
    """
    if missing := [key for key in _DTYPES if key not in arrays]:
        raise IntegrityError(f"{name}: lacks {', '.join(missing)}. Delete it and run the pipeline again.")
    for key, known in _DTYPES.items():
        array = arrays[key]
        if array.ndim != 1 or array.dtype.str.lstrip("<|") not in known.split():
            raise IntegrityError(
                f"{name}: {key} has shape {array.shape} and dtype {array.dtype}, expected one dimension of "
                f"{' or '.join(known.split())}. Delete it and run the pipeline again."
            )
    postings = Postings(**{key: arrays[key] for key in _DTYPES})
    if problem := _problem(postings):
        raise IntegrityError(f"{name}: {problem}. Delete it and run the pipeline again.")
    return postings


def _problem(one: Postings) -> str:
    """Return what is wrong with postings; empty if nothing is."""
    occurring = np.diff(one.starts) > 0
    if len(one.starts) != len(one.word_ends) + 1 or one.starts[0] != 0 or not occurring.all():
        return "starts do not ascend from 0, one for each word and one more"
    if len(one.rows) != one.starts[-1] or len(one.counts) != one.starts[-1]:
        return f"has {len(one.rows)} rows and {len(one.counts)} counts, expected {one.starts[-1]}"
    if not (np.diff(one.word_ends, prepend=0) > 0).all() or len(one.words) != one.word_ends[-1:].sum():
        return "word_ends do not ascend to the end of words"
    if not _are_sorted(one):
        return "words are not sorted"
    if len(one.rows) and (one.rows.min() < 0 or one.rows.max() >= len(one)):
        return f"a row is not between 0 and {len(one) - 1}"
    ascending = np.diff(one.rows) > 0
    ascending[one.starts[1:-1] - 1] = True
    if not ascending.all():
        return "the rows of a word do not ascend"
    if not (one.counts > 0).all() or (np.bincount(one.rows, one.counts, len(one)) < one.lengths).any():
        return "the counts of a row add up to less than its length"
    if (one.lengths < 0).any():
        return "a length is negative"
    return ""


def _are_sorted(one: Postings) -> bool:
    import pyarrow.compute as pc

    words = _binary(one)
    return len(words) < 2 or bool(pc.all(pc.less(words[:-1], words[1:])).as_py())


def _encoded(word: str) -> bytes:
    # No text in a store has half a character, but a query may.
    return word.encode("utf-8", "surrogatepass")


def _binary(one: Postings) -> Any:
    """Return the words as an array of Arrow, without copying them."""
    import pyarrow as pa

    ends = np.concatenate([np.zeros(1, np.int64), one.word_ends])
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(np.ascontiguousarray(one.words))]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(one.word_ends), buffers)


def _merged_words(
    sources: Sequence[Postings], sizes: Sequence[npt.NDArray[np.int64]]
) -> tuple[list[npt.NDArray[np.int64]], npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return the place of each kept word of each source among all words, and these: their bytes and ends."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kept = [_binary(one).filter(pa.array(size > 0)) for one, size in zip(sources, sizes, strict=True)]
    encoded = pa.chunked_array(kept, pa.large_binary()).combine_chunks().dictionary_encode()
    order = pc.sort_indices(encoded.dictionary).to_numpy()
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    ranks = np.split(place[encoded.indices.to_numpy()], np.cumsum([len(words) for words in kept])[:-1])
    words = encoded.dictionary.take(pa.array(order))
    ends = np.cumsum(pc.binary_length(words).to_numpy(), dtype=np.int64)
    text = np.frombuffer(words.buffers()[2] or b"", np.uint8)[: ends[-1] if len(ends) else 0]
    return ranks, text.copy(), ends


def _kept(values: npt.NDArray[Any], keep: Mask | None) -> npt.NDArray[Any]:
    return values if keep is None else values[keep]


def _kept_postings(one: Postings, keep: Mask | None) -> npt.NDArray[Any]:
    return one.counts if keep is None else one.counts[keep[one.rows]]


def _sizes(one: Postings, keep: Mask | None) -> npt.NDArray[np.int64]:
    """Return how many kept rows have each word."""
    if keep is None:
        return np.diff(one.starts)
    before = np.concatenate([np.zeros(1, np.int64), np.cumsum(keep[one.rows], dtype=np.int64)])
    return np.diff(before[one.starts])


def _renumbered(one: Postings, keep: Mask | None) -> npt.NDArray[np.int32]:
    if keep is None:
        return one.rows
    numbers = np.cumsum(keep, dtype=np.int32) - np.int32(1)
    return numbers[one.rows[keep[one.rows]]]
