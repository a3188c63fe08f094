"""Pooling: from one vector a token to one vector a text.

Every pooling but two is a weighted sum whose weights follow from the tokens alone, so that one graph
computes them all: it is given weights of shape (n, modes, length) beside the token ids. `max` and
`attention` use the weights as a mask: what is zero takes no part.
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
    """Return what each token counts for.

    Parameters
    ----------
    kind
        `mean`: all alike. `cls`: the first token. `lasttoken`: the last. `weightedmean`: by position, 1, 2, 3, …
        (Muennighoff 2022, SGPT). `mean_sqrt_len_tokens`: the sum over the root of the length. `subword`: the pieces
        of a word share what one word counts for; special tokens count for nothing; without a word it is `mean`. `max`
        and `attention`: 1 where a token takes part.
    mask
        (n, length) bool: False for padding, on either side.
    prompt_tokens
        Leading tokens of each text that take no part.
    words
        (n, length) integers: the word of each token, -1 for none; for `subword`.

    Returns
    -------
    numpy.ndarray
        (n, length) float32; rows of the weighted means sum to 1.
    """
    position = np.cumsum(mask, axis=1)
    # A text that is nothing but its prompt is pooled over that, instead of over nothing.
    taken = mask & (position > prompt_tokens)
    taken = np.where(taken.any(axis=1, keepdims=True), taken, mask)
    match kind:
        case "mean":
            weights = _shares(taken.astype(np.float64))
        case "mean_sqrt_len_tokens":
            weights = taken / np.sqrt(taken.sum(axis=1, keepdims=True))
        case "weightedmean":
            weights = _shares(np.where(taken, position, 0).astype(np.float64))
        case "cls":
            weights = np.eye(mask.shape[1])[taken.argmax(axis=1)]
        case "lasttoken":
            weights = np.eye(mask.shape[1])[mask.shape[1] - 1 - taken[:, ::-1].argmax(axis=1)]
        case "subword":
            weights = _word_shares(taken, words if words is not None else np.full(mask.shape, -1))
        case "max" | "attention":
            weights = taken.astype(np.float64)
    return weights.astype(np.float32)


def pool(hidden: npt.NDArray[np.floating], weights: Float32, kind: Pooling) -> npt.NDArray[np.floating]:
    """Pool (n, length, d) token vectors to (n, d); the reference of what the graphs compute.

    `attention` is pooled as `mean` here, which is also what it falls back to where a model returns no attentions.
    """
    if kind == "max":
        lowest = np.asarray(-np.inf, hidden.dtype)
        return np.asarray(np.where(weights[:, :, None] > 0, hidden, lowest).max(axis=1))
    shares = _shares(weights) if kind == "attention" else weights
    return np.asarray((hidden * shares[:, :, None]).sum(axis=1))


def _shares(weights: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _word_shares(taken: npt.NDArray[np.bool_], words: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """Give every word one share, split evenly among its pieces."""
    result = np.zeros(taken.shape)
    for row, (mask, numbers) in enumerate(zip(taken, words, strict=True)):
        used = mask & (numbers >= 0)
        if not used.any():
            result[row] = mask / mask.sum()
            continue
        _, word, pieces = np.unique(numbers[used], return_inverse=True, return_counts=True)
        result[row, used] = 1.0 / (len(pieces) * pieces[word])
    return result
