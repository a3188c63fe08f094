"""The vectors that a teacher gives to single tokens: what a static model starts from."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from isospace.encoding.encoder import SentenceEncoder
from isospace.encoding.tokenizer import Tokenizer
from isospace.transform.vectors import Float32

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_BLOCK = 4096


def static_tokenizer(data: bytes, limit: int) -> Tokenizer:
    """Return a teacher's tokenizer as its static model has it: without special tokens, cut at `limit` tokens.

    sentence-transformers cuts where the file of the tokenizer says so.
    """
    content = json.loads(data)
    if (content.get("post_processor") or {}).get("type") != "ByteLevel":
        content["post_processor"] = None
    content["padding"] = None
    content["truncation"] = {"direction": "Right", "max_length": limit, "strategy": "LongestFirst", "stride": 0}
    return Tokenizer(json.dumps(content, ensure_ascii=False).encode(), is_never_empty=True)


def encode_tokens(
    teacher: SentenceEncoder, size: int, on_progress: Callable[[int], object] = lambda _: None
) -> Float32:
    """Return the (size, d) float32 vectors of texts that consist of one token each, between the special tokens.

    Parameters
    ----------
    on_progress
        Called with the number of tokens that are done.
    """
    head, tail = teacher.tokenizer.frame(teacher.record.prompts["document"])
    blocks = []
    for start in range(0, size, _BLOCK):
        ids = [[*head, token, *tail] for token in range(start, min(start + _BLOCK, size))]
        blocks.append(teacher.encode_ids(ids, "document"))
        on_progress(start + len(ids))
    return np.concatenate(blocks)


def count_tokens(tokenizer: Tokenizer, texts: Sequence[str], limit: int) -> csr_matrix:
    """Return the share of each token in each text, as a sparse (texts, vocabulary) float32 matrix.

    A static model without normalization maps a row to the product with its table.
    """
    from scipy.sparse import csr_matrix

    rows: list[npt.NDArray[np.int64]] = []
    columns: list[npt.NDArray[Any]] = []
    values: list[npt.NDArray[np.float32]] = []
    for row, tokens in enumerate(tokenizer.tokens(texts, limit=limit, detailed=False)):
        ids, counts = np.unique(tokens.ids, return_counts=True)
        rows.append(np.full(len(ids), row))
        columns.append(ids)
        values.append((counts / max(len(tokens.ids), 1)).astype(np.float32))
    shape = (len(texts), tokenizer.size)
    return csr_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=shape)


def weighted(vectors: Float32, shares: csr_matrix, *, smoothing: float = 1e-3) -> Float32:
    """Return token vectors without their mean, and weighted so that frequent tokens count little.

    The weight of a token is a / (a + p), where p is its share of all tokens of the corpus, and a the smoothing (Arora
    et al., "A Simple but Tough-to-Beat Baseline for Sentence Embeddings", 2017).
    """
    frequency = np.asarray(shares.sum(axis=0)).ravel()
    frequency = frequency / max(float(frequency.sum()), 1.0)
    weights = smoothing / (smoothing + frequency)
    result: Float32 = ((vectors - vectors.mean(axis=0)) * weights[:, None]).astype(np.float32)
    return result
