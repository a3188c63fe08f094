"""What a text's length does to its vector.

Mean pooling lets every token count alike, so that what a long text says in one place is diluted; and a model
that was trained on short texts may put long ones elsewhere. Both show by length bucket.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from isospace.errors import NotFoundError
from isospace.search.index import Index
from isospace.transform.vectors import Float32

_NEIGHBOURS = 10
# Words of a passage that is looked for; whole texts of no more words find themselves trivially.
_EXCERPT_WORDS = 12


@dataclass(frozen=True, slots=True)
class LengthBucket:
    """Figures of the texts of one range of lengths.

    Attributes
    ----------
    shortest, longest
        Tokens.
    texts
        How many.
    norm
        Mean length of the raw vectors.
    self_retrieval
        Share of texts that are the first hit of an excerpt of themselves.
    popularity
        Mean number of other texts that have a text of this bucket among their ten nearest; 10 if length did not matter.
    neighbour_length
        Median of the tokens of a text's ten nearest, over its own.
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
    """Measure by length.

    Parameters
    ----------
    raw
        (n, d) raw vectors of texts.
    vectors
        (n, k) their vectors in a space, of unit length.
    excerpts
        (n, k) vectors of an excerpt of each text, as queries.
    tokens
        n token counts.
    buckets
        How many buckets of about equally many texts; fewer where lengths coincide.

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
    found = (excerpts.astype(np.float64) @ vectors.T.astype(np.float64)).argmax(axis=1) == np.arange(n)
    norms = np.linalg.norm(raw.astype(np.float64), axis=1)
    edges = np.unique(np.quantile(counts, np.linspace(0, 1, buckets + 1), method="lower"))
    bucket_of = np.clip(np.searchsorted(edges, counts, side="right") - 1, 0, max(len(edges) - 2, 0))
    return tuple(
        LengthBucket(
            shortest=int(counts[rows].min()),
            longest=int(counts[rows].max()),
            texts=len(rows),
            norm=float(norms[rows].mean()),
            self_retrieval=float(found[rows].mean()),
            popularity=float(popularity[rows].mean()),
            neighbour_length=float(np.median(ratio[rows])),
        )
        for rows in (np.flatnonzero(bucket_of == number) for number in range(max(len(edges) - 1, 1)))
        if len(rows)
    )


def length_bias_of(index: Index, *, sample: int = 1000, seed: int = 0) -> tuple[LengthBucket, ...]:
    """Measure a uniform sample of an index's chunks; encodes them and an excerpt of each.

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
    """Return the words in the middle of a text."""
    words = text.split()
    start = max((len(words) - _EXCERPT_WORDS) // 2, 0)
    return " ".join(words[start : start + _EXCERPT_WORDS])
