"""Windows over the tokens of a text that is longer than the encoder takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from isospace.encoding.registry.record import WindowsRecord
from isospace.encoding.tokenizer import Tokens
from isospace.transform.vectors import Float32, unit


def window_starts(tokens: int, capacity: int, stride: int) -> list[int]:
    """Return where windows of `capacity` tokens begin, so that together they hold every one of `tokens`.

    The last window ends with the last token: it is as long as the others and overlaps more, instead of being a
    remnant that would count as much as a whole window.

    Parameters
    ----------
    tokens
        Content tokens of the text.
    capacity
        Content tokens in a window.
    stride
        Content tokens from one window to the next; at most `capacity`.
    """
    if tokens <= capacity:
        return [0]
    return [*range(0, tokens - capacity, stride), tokens - capacity]


def cut_windows(tokens: Tokens, record: WindowsRecord) -> list[Tokens]:
    """Cut the tokens of one text into windows, each with the special tokens and the prompt of the whole.

    Parameters
    ----------
    tokens
        Of the whole text; `head` and `tail` tokens at its ends belong to every window.
    record
        Size, stride.

    Returns
    -------
    list of Tokens
        Each of at most `size` tokens.
    """
    content = len(tokens.ids) - tokens.head - tokens.tail
    capacity = record.size - tokens.head - tokens.tail
    windows = []
    for start in window_starts(content, capacity, record.stride):
        first = tokens.head + start
        last = min(first + capacity, tokens.head + content)
        kept = np.r_[0 : tokens.head, first:last, tokens.head + content : len(tokens.ids)]
        words = None if tokens.words is None else tokens.words[kept]
        windows.append(Tokens(tokens.ids[kept], words, tokens.head, tokens.tail))
    return windows


def pool_windows(vectors: Float32, counts: Sequence[int], *, pooling: str, normalize: bool) -> Float32:
    """Pool the vectors of consecutive windows.

    Parameters
    ----------
    vectors
        (n, d) float32, the windows of one text after those of another.
    counts
        Windows of each text; they add up to n.
    pooling
        `max` or `mean`.
    normalize
        Whether the result has unit length again, as the model's own vectors do.

    Returns
    -------
    numpy.ndarray
        (len(counts), d) float32; a text of one window has that window's vector.
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
