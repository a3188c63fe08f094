"""Weights of tokens by hand: the prompt is left out, on either side of which padding may be."""

from __future__ import annotations

import numpy as np
import pytest

from isospace.encoding.pooling import POOLINGS, pool, pooling_weights

# Two tokens of prompt, then four of text, padded to eight.
LEFT = np.array([[False, False, True, True, True, True, True, True]])
RIGHT = LEFT[:, ::-1].copy()
TEXT = {
    "mean": [1 / 4] * 4,
    "cls": [1, 0, 0, 0],
    "lasttoken": [0, 0, 0, 1],
    "weightedmean": [3 / 18, 4 / 18, 5 / 18, 6 / 18],
    "mean_sqrt_len_tokens": [1 / 2] * 4,
    "max": [1] * 4,
    "attention": [1] * 4,
    # Words of two, one, and one token.
    "subword": [1 / 6, 1 / 6, 1 / 3, 1 / 3],
}


@pytest.mark.parametrize("kind", POOLINGS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_tokens_of_the_prompt_have_no_weight(kind, side: str) -> None:
    mask = LEFT if side == "left" else RIGHT
    words = np.full((1, 8), -1)
    words[mask] = [0, 1, 2, 2, 3, 4]
    weights = pooling_weights(kind, mask, prompt_tokens=2, words=words)
    assert weights[mask].tolist() == pytest.approx([0, 0, *TEXT[kind]])
    assert weights[~mask].tolist() == [0, 0]


@pytest.mark.parametrize("kind", POOLINGS)
def test_a_text_that_is_all_prompt_is_pooled_over_the_prompt(kind) -> None:
    words = np.where(RIGHT, 0, -1)
    given = {prompt: pooling_weights(kind, RIGHT, prompt_tokens=prompt, words=words) for prompt in (0, 6, 9)}
    assert given[6].tolist() == given[9].tolist() == given[0].tolist()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("mean", [2.5, -2.5]), ("max", [4.0, -1.0]), ("cls", [1.0, -1.0]), ("lasttoken", [4.0, -4.0])],
)
def test_pooling_is_of_the_weighted_tokens_alone(kind, expected: list[float]) -> None:
    hidden = np.full((1, 8, 2), 99.0)
    hidden[0, 2:6] = [[1, -1], [2, -2], [3, -3], [4, -4]]
    weights = pooling_weights(kind, RIGHT, prompt_tokens=2)
    assert pool(hidden, weights, kind)[0].tolist() == pytest.approx(expected)
