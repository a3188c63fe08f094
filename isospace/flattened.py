"""Flattened batches: texts one behind the other in one sequence, so that nothing is padded whatever their lengths.

All of an encoder but positions, attention and pooling looks at one token at a time. Positions are given, attention is
kept within each text, and pooling goes by the texts' bounds. Whether a model lets itself be flattened is not looked
up in a list: texts of several lengths are computed so and alone, and it is not flattened where they differ.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch.nn.functional import embedding_bag, scaled_dot_product_attention
from transformers import AttentionInterface

from isospace.errors import EncoderError
from isospace.graph import PooledModel

_LOG = logging.getLogger(__name__)
# The name under which transformers' models find this module's attention.
ATTENTION = "isospace_flattened"
# What else a model may ask of its attention, and none of the kernels here does.
_UNKNOWN = ("softcap", "s_aux", "position_bias", "block_table")
# Beyond the windows of models with local attention (ModernBERT: 128, EmbeddingGemma: 512), and two of one length.
_TRIED_LENGTHS = (1200, 150, 40, 40, 17, 5)
# Least cosine of a text flattened with the same text alone. Where texts saw each other it was below 0.9.
_LEAST_COSINE = {torch.float32: 0.99999, torch.float16: 0.999, torch.bfloat16: 0.999}


@dataclass(frozen=True, slots=True)
class Layout:
    """Where texts lie in a flattened batch.

    Attributes
    ----------
    lengths
        Tokens of each of n texts.
    bounds
        (n + 1,) int32 on the device: where each begins, and where the last one ends.
    in_one_call
        Whether one kernel attends within all texts (on a GPU, in 16 bits), or one call for each run of equal lengths.
    """

    lengths: tuple[int, ...]
    bounds: torch.Tensor
    in_one_call: bool


@dataclass(frozen=True, slots=True)
class FlatModel:
    """A model that takes flattened batches.

    Attributes
    ----------
    graph
        The model, its network set to `attend`.
    first_position
        Number of a text's first position: RoBERTa and its kin count from beyond their padding.
    in_one_call
        See `Layout`.
    """

    graph: PooledModel
    first_position: int
    in_one_call: bool

    def positions(self, lengths: Sequence[int]) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return the (tokens,) int64 position of every token in its text."""
        counts = np.asarray(lengths, np.int64)
        starts = np.cumsum(counts) - counts
        return np.arange(int(counts.sum())) - np.repeat(starts, counts) + self.first_position

    def __call__(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        weights: torch.Tensor,
        bounds: torch.Tensor,
        lengths: Sequence[int],
    ) -> torch.Tensor:
        """Compute n texts.

        Parameters
        ----------
        ids, positions
            (tokens,) int64.
        weights
            (modes, tokens) float32 pooling weights.
        bounds
            (n + 1,) int32.
        lengths
            Their n differences, on the host: texts of one length go together fastest if they lie together.

        Returns
        -------
        torch.Tensor
            (n, d) float32 vectors.
        """
        features: dict[str, Any] = {"input_ids": ids[None], "position_ids": positions[None]}
        if self.graph.takes_types:
            features["token_type_ids"] = torch.zeros_like(features["input_ids"])
        layout = Layout(tuple(lengths), bounds, self.in_one_call)
        hidden = self.graph.network(**features, flat_layout=layout).last_hidden_state[0].float()
        pooled = [_pool(hidden, weights[mode], bounds, kind) for mode, kind in enumerate(self.graph.poolings)]
        return self.graph.finish(torch.cat(pooled, dim=1))


def flatten(graph: PooledModel, *, limit: int) -> FlatModel:
    """Have a model take flattened batches, after it was seen to compute the same so.

    Parameters
    ----------
    graph
        The model on its device, in its precision. Once flattened, it can no longer be called itself.
    limit
        Most tokens that it takes.

    Raises
    ------
    EncoderError
        If it cannot be flattened: its network brings an attention of its own (MPNet, DeBERTa, T5), or one that nothing here
        computes (Gemma 2's soft cap); its pooling needs attentions; or its vectors are other ones. It is as it was then.
    """
    network = graph.network
    name = type(network).__name__
    if len(graph.before) != 1 or "attention" in graph.poolings:
        raise EncoderError(
            f"{name} cannot be flattened: what follows it looks across tokens. Leave runtime.flatten out."
        )
    if not getattr(network, "is_backend_compatible", lambda: False)():
        raise EncoderError(f"{name} cannot be flattened: it brings an attention of its own. Leave runtime.flatten out.")
    parameter, before = next(network.parameters()), network.config._attn_implementation
    lengths = [min(length, limit) for length in _TRIED_LENGTHS]
    texts = _random_texts(lengths, network.get_input_embeddings().num_embeddings, parameter.device)
    weights = [
        torch.full((1, len(graph.poolings), length), 1.0 / length, device=parameter.device) for length in lengths
    ]
    with torch.inference_mode():
        alone = torch.cat([graph(ids[None], weight) for ids, weight in zip(texts, weights, strict=True)])
        AttentionInterface.register(ATTENTION, attend)
        network.set_attn_implementation(ATTENTION)
        for in_one_call in (True, False) if parameter.is_cuda and parameter.dtype != torch.float32 else (False,):
            flat = FlatModel(graph, first_position(network), in_one_call)
            try:
                together = _call(flat, texts, weights)
            except Exception as error:  # whatever a network raises that was made otherwise
                reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            else:
                cosine = float(torch.cosine_similarity(alone.double(), together.double()).min())
                if cosine >= _LEAST_COSINE[parameter.dtype]:
                    return flat
                reason = f"a text among others has a cosine of {cosine:.6f} with itself alone"
            if in_one_call:
                _LOG.warning("attention goes by runs of equal length, since one call for all failed (%s)", reason)
    network.set_attn_implementation(before)
    raise EncoderError(f"{name} cannot be flattened: {reason}. Leave runtime.flatten out.")


def first_position(network: torch.nn.Module) -> int:
    """Return the number of a text's first position: positions that are embedded count from beyond their padding."""
    for module in network.modules():
        table = getattr(module, "position_embeddings", None)
        if isinstance(table, torch.nn.Embedding) and table.padding_idx is not None:
            return table.padding_idx + 1
    return 0


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    flat_layout: Layout,
    scaling: float | None = None,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within each text: what transformers calls in place of its own attention.

    Parameters
    ----------
    module
        Whose attention this is.
    query, key, value
        (1, heads, tokens, size); key and value may have fewer heads.
    attention_mask
        None.
    flat_layout
        Where texts lie.
    scaling
        Of the products; 1 / sqrt(size) if None.
    is_causal
        Whether a token sees those before it alone.
    sliding_window
        A token sees those less than so many away.
    others
        Refused if it is something that changes attention.

    Returns
    -------
    tuple
        (1, tokens, heads, size), and None for the attentions, which are never formed.
    """
    if attention_mask is not None or (asked := [name for name in _UNKNOWN if others.get(name) is not None]):
        raise NotImplementedError(
            "attention with a mask" if attention_mask is not None else f"attention with {asked[0]}"
        )
    causal = bool(getattr(module, "is_causal", False) if is_causal is None else is_causal)
    kernel = _in_one_call if flat_layout.in_one_call else _by_length
    return kernel(query[0], key[0], value[0], flat_layout, scaling, causal, sliding_window)[None], None


def _in_one_call(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: Layout,
    scale: float | None,
    causal: bool,
    window: int | None,
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    back = -1 if window is None else window - 1
    found = varlen_attn(
        query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1),
        layout.bounds, layout.bounds, max(layout.lengths), max(layout.lengths),
        scale=scale, window_size=(back, 0 if causal else back), enable_gqa=query.shape[0] != key.shape[0],
        # Otherwise a text's neighbours decide in how many parts it is computed, and so its last bits.
        num_splits=1,
    )  # fmt: skip
    assert isinstance(found, torch.Tensor)
    return found


def _by_length(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: Layout,
    scale: float | None,
    causal: bool,
    window: int | None,
) -> torch.Tensor:
    """Attend in a call for each run of texts of one length."""
    out = query.new_empty(query.shape[1], query.shape[0], value.shape[2])
    start = 0
    for length, run in groupby(layout.lengths):
        texts = sum(1 for _ in run)
        tokens = slice(start, start + texts * length)
        q, k, v = (
            part[:, tokens].view(-1, texts, length, part.shape[2]).transpose(0, 1) for part in (query, key, value)
        )
        near = (
            None if window is None or length < window else _window(length, window, causal=causal, device=query.device)
        )
        found = scaled_dot_product_attention(
            q, k, v, near, is_causal=causal and near is None, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
        )
        out[tokens] = found.transpose(1, 2).flatten(0, 1)
        start = tokens.stop
    return out


def _window(length: int, window: int, *, causal: bool, device: torch.device) -> torch.Tensor:
    """Return the (length, length) bool mask of what a token sees."""
    place = torch.arange(length, device=device)
    away = place[:, None] - place[None, :]
    return (away.abs() < window) & (away >= 0) if causal else away.abs() < window


def _pool(hidden: torch.Tensor, weights: torch.Tensor, bounds: torch.Tensor, kind: str) -> torch.Tensor:
    """Pool (tokens, d) hidden states of n texts: (n, d)."""
    if kind == "max":
        hidden, given, mode = hidden.masked_fill(weights[:, None] == 0, -torch.inf), None, "max"
    else:
        given, mode = weights, "sum"
    # One sum after the other, in the order of tokens: additions by atomics would come in any order.
    rows = torch.arange(len(hidden), device=hidden.device, dtype=bounds.dtype)
    return embedding_bag(rows, hidden, bounds, mode=mode, per_sample_weights=given, include_last_offset=True)


def _call(flat: FlatModel, texts: Sequence[torch.Tensor], weights: Sequence[torch.Tensor]) -> torch.Tensor:
    lengths, device = [len(ids) for ids in texts], texts[0].device
    positions = torch.from_numpy(flat.positions(lengths)).to(device)
    bounds = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32, device=device)
    return flat(torch.cat(list(texts)), positions, torch.cat([weight[0] for weight in weights], dim=1), bounds, lengths)


def _random_texts(lengths: Sequence[int], vocabulary: int, device: torch.device) -> list[torch.Tensor]:
    random = np.random.default_rng(0)
    # The lowest ids are special ones as a rule, and may stand for padding.
    return [
        torch.from_numpy(random.integers(min(10, vocabulary - 1), vocabulary, length)).to(device) for length in lengths
    ]
