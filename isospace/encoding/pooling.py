"""Pooling: combine the token vectors of a text into one vector.

Every pooling except two is a weighted sum whose weights depend only on the tokens. One graph therefore computes them
all: it takes weights of shape (n, modes, length) along with the token IDs. `max` and `attention` use the weights as a
mask and ignore tokens with weight zero.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from isospace.transform.vectors import Float32

Pooling = Literal["mean", "cls", "max", "lasttoken", "weightedmean", "mean_sqrt_len_tokens", "attention", "subword"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)


def pooling_weights(
    kind: Pooling,
    mask: npt.NDArray[np.bool_],
    *,
    prompt_tokens: int = 0,
    words: npt.NDArray[np.integer] | None = None,
) -> Float32:
    """Return the pooling weight of each token.

    Parameters
    ----------
    kind
        `mean`: equal weights. `cls`: the first token only. `lasttoken`: the last token only. `weightedmean`:
        proportional to the position 1, 2, 3, … (Muennighoff 2022, SGPT). `mean_sqrt_len_tokens`: the sum divided by
        the square root of the length. `subword`: every word has the same weight, shared by its tokens, and special
        tokens have none; a text without words is pooled like `mean`. `max` and `attention`: 1 for every token that is
        pooled.
    mask
        (n, length) bool: False for padding, on either side.
    prompt_tokens
        Number of leading tokens of each text that are not pooled.
    words
        (n, length) integers: the word of each token, -1 for none. Needed for `subword`.

    Returns
    -------
    numpy.ndarray
        (n, length) float32; the weights of a mean sum to 1 in each row.
    """
    position = np.cumsum(mask, axis=1)
    # A text that consists of its prompt alone is pooled over the prompt: without any token it would have no vector.
    pooled = mask & (position > prompt_tokens)
    pooled = np.where(pooled.any(axis=1, keepdims=True), pooled, mask)
    match kind:
        case "mean":
            weights = _normalized(pooled.astype(np.float64))
        case "mean_sqrt_len_tokens":
            weights = pooled / np.sqrt(pooled.sum(axis=1, keepdims=True))
        case "weightedmean":
            weights = _normalized(np.where(pooled, position, 0).astype(np.float64))
        case "cls":
            weights = np.eye(mask.shape[1])[pooled.argmax(axis=1)]
        case "lasttoken":
            weights = np.eye(mask.shape[1])[mask.shape[1] - 1 - pooled[:, ::-1].argmax(axis=1)]
        case "subword":
            weights = _word_weights(pooled, words if words is not None else np.full(mask.shape, -1))
        case "max" | "attention":
            weights = pooled.astype(np.float64)
    return weights.astype(np.float32)


def pool(hidden: npt.NDArray[np.floating], weights: Float32, kind: Pooling) -> npt.NDArray[np.floating]:
    """Pool (n, length, d) token vectors to (n, d), as a reference for what the graphs compute.

    `attention` is computed as `mean`, its fallback for models that return no attentions.
    """
    if kind == "max":
        lowest = np.asarray(-np.inf, hidden.dtype)
        return np.asarray(np.where(weights[:, :, None] > 0, hidden, lowest).max(axis=1))
    factors = _normalized(weights) if kind == "attention" else weights
    return np.asarray((hidden * factors[:, :, None]).sum(axis=1))


def _normalized(weights: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _word_weights(pooled: npt.NDArray[np.bool_], words: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """Give every word the same weight, split evenly among its tokens."""
    result = np.zeros(pooled.shape)
    for row, (mask, numbers) in enumerate(zip(pooled, words, strict=True)):
        used = mask & (numbers >= 0)
        if not used.any():
            result[row] = mask / mask.sum()
            continue
        _, word, pieces = np.unique(numbers[used], return_inverse=True, return_counts=True)
        result[row, used] = 1.0 / (len(pieces) * pieces[word])
    return result
