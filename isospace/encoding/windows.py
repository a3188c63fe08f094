"""Overlapping windows over the tokens of a text that is longer than the encoder's limit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from isospace.encoding.registry.record import WindowsRecord
from isospace.encoding.tokenizer import Tokens
from isospace.transform.vectors import Float32, unit


def window_starts(tokens: int, capacity: int, stride: int) -> list[int]:
    """Return the first token of each window; together the windows cover all tokens.

    The last window ends with the last token. It overlaps more than the others, but is as long: a short remnant would
    count as much as a full window.

    Parameters
    ----------
    tokens
        Content tokens of the text.
    capacity
        Content tokens per window.
    stride
        Content tokens from the start of one window to the next; at most `capacity`.
    """
    if tokens <= capacity:
        return [0]
    return [*range(0, tokens - capacity, stride), tokens - capacity]


def cut_windows(tokens: Tokens, record: WindowsRecord) -> list[Tokens]:
    """Cut the tokens of one text into windows of at most `record.size` tokens.

    The special tokens and the prompt at both ends (`tokens.head`, `tokens.tail`) are repeated in every window.
    """
    content = len(tokens.ids) - tokens.head - tokens.tail
    capacity = record.size - tokens.head - tokens.tail
    windows = []
    for start in window_starts(content, capacity, record.stride):
        first = tokens.head + start
        last = min(first + capacity, tokens.head + content)
        indices = np.r_[0 : tokens.head, first:last, tokens.head + content : len(tokens.ids)]
        words = None if tokens.words is None else tokens.words[indices]
        windows.append(Tokens(tokens.ids[indices], words, tokens.head, tokens.tail))
    return windows


def pool_windows(vectors: Float32, counts: Sequence[int], *, pooling: str, normalize: bool) -> Float32:
    """Combine the vectors of each text's windows into one vector.

    Parameters
    ----------
    vectors
        (n, d) float32, the windows of each text in a row.
    counts
        Number of windows of each text; the sum is n.
    pooling
        `max` or `mean`.
    normalize
        Whether to scale the result to unit length, as the model's own vectors are.

    Returns
    -------
    numpy.ndarray
        (len(counts), d) float32; a text with a single window keeps that window's vector.
    """
    starts = np.cumsum([0, *counts[:-1]])
    if pooling == "max":
        combined = np.maximum.reduceat(vectors, starts, axis=0)
    else:
        combined = (np.add.reduceat(vectors, starts, axis=0) / np.asarray(counts, np.float32)[:, None]).astype(
            np.float32
        )
    several = np.asarray(counts) > 1
    if normalize and several.any():
        combined[several] = unit(combined[several].astype(np.float64))
    return np.asarray(combined, np.float32)
