"""How the length of a text affects its vector.

Mean pooling gives every token the same weight, which dilutes single statements of a long text; and a model trained on
short texts may place long ones elsewhere. Figures by length show both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from isospace.errors import NotFoundError
from isospace.search.index import Index
from isospace.transform.vectors import Float32

_NEIGHBOURS = 10
# Words of an excerpt; texts of at most so many words find themselves trivially.
_EXCERPT_WORDS = 12


@dataclass(frozen=True, slots=True)
class LengthBucket:
    """Figures of the texts in one range of lengths.

    Attributes
    ----------
    shortest, longest
        Range of token counts.
    texts
        Number of texts.
    norm
        Mean norm of the raw vectors.
    self_retrieval
        Share of texts that are the first hit for an excerpt of themselves.
    popularity
        Mean number of other texts that have a text of this bucket among their ten nearest; 10 without any bias.
    neighbour_length
        Median over the texts of the ratio: median token count of its ten nearest neighbors over its own.
    """

    shortest: int
    longest: int
    texts: int
    norm: float
    self_retrieval: float
    popularity: float
    neighbour_length: float

    def as_dict(self) -> dict[str, float]:
        """Return the figures by name."""
        return asdict(self)


def measure_length_bias(
    raw: Float32, vectors: Float32, excerpts: Float32, tokens: Sequence[int], *, buckets: int = 5
) -> tuple[LengthBucket, ...]:
    """Measure figures by length of the text.

    Parameters
    ----------
    raw
        (n, d) raw vectors of texts.
    vectors
        (n, k) their vectors in a space, of unit length.
    excerpts
        (n, k) vectors of an excerpt of each text, embedded as queries.
    tokens
        n token counts.
    buckets
        Number of buckets with about the same number of texts; fewer if many lengths are equal.

    Returns
    -------
    tuple of LengthBucket
        The shortest texts first.
    """
    counts = np.asarray(tokens)
    n = len(counts)
    scores = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    np.fill_diagonal(scores, -np.inf)
    k = min(_NEIGHBOURS, n - 1)
    nearest = np.argpartition(-scores, k - 1, axis=1)[:, :k] if k else np.zeros((n, 0), np.int64)
    popularity = np.bincount(nearest.ravel(), minlength=n)
    ratio = np.median(counts[nearest], axis=1) / counts if k else np.ones(n)
    finds_itself = (excerpts.astype(np.float64) @ vectors.T.astype(np.float64)).argmax(axis=1) == np.arange(n)
    norms = np.linalg.norm(raw.astype(np.float64), axis=1)
    edges = np.unique(np.quantile(counts, np.linspace(0, 1, buckets + 1), method="lower"))
    bucket_of = np.clip(np.searchsorted(edges, counts, side="right") - 1, 0, max(len(edges) - 2, 0))
    return tuple(
        LengthBucket(
            shortest=int(counts[rows].min()),
            longest=int(counts[rows].max()),
            texts=len(rows),
            norm=float(norms[rows].mean()),
            self_retrieval=float(finds_itself[rows].mean()),
            popularity=float(popularity[rows].mean()),
            neighbour_length=float(np.median(ratio[rows])),
        )
        for rows in (np.flatnonzero(bucket_of == number) for number in range(max(len(edges) - 1, 1)))
        if len(rows)
    )


def length_bias_of(index: Index, *, sample: int = 1000, seed: int = 0) -> tuple[LengthBucket, ...]:
    """Measure a uniform sample of an index's chunks, by encoding each and an excerpt of it.

    Raises
    ------
    NotFoundError
        If the index holds fewer than two chunks.
    """
    texts = [
        prefix + text for prefix, text in zip(*(index.chunks[n].to_pylist() for n in ("prefix", "text")), strict=True)
    ]
    if len(texts) < 2:
        raise NotFoundError(f"{index!r}: length bias needs at least two chunks.")
    chosen = np.sort(np.random.default_rng(seed).permutation(len(texts))[:sample])
    drawn = [texts[row] for row in chosen]
    raw = index.space.encode(drawn, "document")
    excerpts = index.space.embed([excerpt(text) for text in drawn], "query")
    tokens = [len(ids) for ids in index.space.encoder.tokenize(drawn, "document")]
    return measure_length_bias(raw, index.space.transform(raw, "document"), excerpts, tokens)


def excerpt(text: str) -> str:
    """Return twelve words from the middle of a text."""
    words = text.split()
    start = max((len(words) - _EXCERPT_WORDS) // 2, 0)
    return " ".join(words[start : start + _EXCERPT_WORDS])
