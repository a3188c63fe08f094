"""Unpadded ("flattened") batches: texts of any lengths, concatenated into one sequence.

In an encoder, everything except positions, attention, and pooling works on single tokens. Here positions are an input,
attention is limited to each text, and pooling uses the start of each text. There is no list of supported models:
support is tested when a model is loaded, by encoding texts of several lengths together and separately.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from isospace.encoding.graphs.pooled_model import PooledModel, returns_last_layer
from isospace.encoding.graphs.varlen_attention import FlatLayout, use_varlen_attention
from isospace.errors import EncoderError

_LOG = logging.getLogger(__name__)
# The test texts are these and the longest text that the model takes. That one reveals what depends on the longest text
# of a call: rotary angles that are rescaled beyond some length, or windows that only a mask defines. Two lengths are
# equal.
_TEST_LENGTHS = (1200, 150, 40, 40, 17, 5)
# Minimum cosine between a text's vector in an unpadded batch and its vector alone. In a model whose texts attended to
# each other it was below 0.9.
_MIN_COSINE = {torch.float32: 0.99999, torch.float16: 0.999, torch.bfloat16: 0.999}
# The difference must also be below this share of the distance to the nearest other text: in some models all vectors are
# similar.
_MAX_SHARE_OF_DISTANCE = 0.1


@dataclass(frozen=True, slots=True)
class FlatModel:
    """A model that takes unpadded batches.

    Attributes
    ----------
    graph
        The model, with attention limited to each text.
    padding
        The padding token ID, for networks that skip it in positions and count from it, as RoBERTa does; None if
        positions count from zero.
    varlen
        See `FlatLayout`.
    """

    graph: PooledModel
    padding: int | None
    varlen: bool

    def positions(self, ids: npt.NDArray[np.int64], lengths: Sequence[int]) -> npt.NDArray[np.int64]:
        """Return the (tokens,) int64 position of each token in its text, from the (tokens,) IDs of all texts."""
        counts = np.asarray(lengths, np.int64)
        starts = np.cumsum(counts) - counts
        if self.padding is None:
            return np.arange(len(ids)) - np.repeat(starts, counts)
        # A text may contain the padding token itself, which the network's own positions skip.
        counted = (ids != self.padding).astype(np.int64)
        total = np.cumsum(counted)
        positions: npt.NDArray[np.int64] = (
            total - np.repeat((total - counted)[starts], counts)
        ) * counted + self.padding
        return positions

    def __call__(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        weights: torch.Tensor,
        cu_seqlens: torch.Tensor,
        lengths: Sequence[int],
    ) -> torch.Tensor:
        """Return the vectors of n texts.

        Parameters
        ----------
        ids, positions
            (tokens,) int64.
        weights
            (modes, tokens) float32 pooling weights.
        cu_seqlens
            (n + 1,) int32: start of each text, and the end of the last one.
        lengths
            The n lengths, in host memory; texts of equal length are fastest if they are adjacent.

        Returns
        -------
        torch.Tensor
            (n, d) float32 vectors.
        """
        features: dict[str, Any] = {"input_ids": ids[None], "position_ids": positions[None]}
        if self.graph.takes_types:
            features["token_type_ids"] = torch.zeros_like(features["input_ids"])
        layout = FlatLayout(tuple(lengths), cu_seqlens, self.varlen)
        hidden = self.graph.network(**features, flat_layout=layout).last_hidden_state[0].float()
        pooled = [_pool(hidden, weights[mode], cu_seqlens, kind) for mode, kind in enumerate(self.graph.poolings)]
        return self.graph.finish(torch.cat(pooled, dim=1))


def flatten(graph: PooledModel, *, limit: int) -> FlatModel:
    """Switch a model to unpadded batches, after testing that its vectors stay the same.

    Parameters
    ----------
    graph
        The model on its device, in its precision. After the switch it can no longer be called directly.
    limit
        The model's maximum number of tokens.

    Raises
    ------
    EncoderError
        If the model does not support unpadded batches: its network has its own attention (MPNet, DeBERTa, T5) or one
        that is not implemented here (Gemma 2's soft cap), its pooling needs attentions, or its vectors differ. The
        model is left unchanged.
    """
    network = graph.network
    name = type(network).__name__
    if len(graph.before) != 1 or "attention" in graph.poolings:
        raise EncoderError(f"{name} cannot be flattened: its pooling, or a module before it, may mix texts")
    if not returns_last_layer(graph.before[0]):
        raise EncoderError(f"{name} cannot be flattened: its module takes other hidden states than the last layer's")
    if not getattr(network, "is_backend_compatible", lambda: False)():
        raise EncoderError(f"{name} cannot be flattened: it has its own attention")
    parameter, before = next(network.parameters()), network.config._attn_implementation
    padding = padding_of_positions(network)
    texts = _random_texts(limit, network.get_input_embeddings().num_embeddings, padding)
    kernels = (True, False) if parameter.is_cuda and parameter.dtype != torch.float32 else (False,)
    reason = ""
    try:
        alone = _alone(graph, texts, parameter.device)
        if not use_varlen_attention(network):
            raise NotImplementedError("its attention cannot be replaced")
        for varlen in kernels:
            flat = FlatModel(graph, padding, varlen)
            reason = _difference(alone, flat, texts, parameter)
            if not reason:
                return flat
            _LOG.info(
                "%s, unpadded with %s: %s", name, "torch's varlen kernel" if varlen else "runs of equal length", reason
            )
    except (NotImplementedError, torch.OutOfMemoryError) as error:
        reason = " ".join(str(error).split())[:200]
    network.set_attn_implementation(before)
    raise EncoderError(f"{name} cannot be flattened: {reason}")


def padding_of_positions(network: torch.nn.Module) -> int | None:
    """Return the token ID that a network's position embeddings skip and count from, or None."""
    for module in network.modules():
        table = getattr(module, "position_embeddings", None)
        if isinstance(table, torch.nn.Embedding) and table.padding_idx is not None:
            return table.padding_idx
    return None


def _pool(hidden: torch.Tensor, weights: torch.Tensor, cu_seqlens: torch.Tensor, kind: str) -> torch.Tensor:
    """Pool the (tokens, d) hidden states of n texts to (n, d)."""
    if kind == "max":
        hidden, how = hidden.masked_fill(weights[:, None] == 0, -torch.inf), "max"
    else:
        hidden, how = hidden * weights[:, None], "sum"
    # This adds the tokens in order; atomic additions would add them in any order, with other last bits.
    return torch.segment_reduce(hidden, how, offsets=cu_seqlens.long(), axis=0, unsafe=True)


def _difference(
    alone: torch.Tensor, flat: FlatModel, texts: Sequence[npt.NDArray[np.int64]], parameter: torch.Tensor
) -> str:
    """Describe how vectors from one batch differ from those of single texts; empty if within tolerance."""
    try:
        together = _together(flat, texts, parameter.device)
    except (NotImplementedError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # networks and kernels that do not support this raise all kinds
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    cosines = torch.nn.functional.normalize(alone.double()) @ torch.nn.functional.normalize(together.double()).T
    own = float(cosines.diagonal().min())
    others = float((cosines - 2 * torch.eye(len(cosines), device=cosines.device)).max())
    required = max(_MIN_COSINE[parameter.dtype], 1 - max(_MAX_SHARE_OF_DISTANCE * (1 - others), 1e-5))
    return (
        ""
        if own >= required
        else f"a text among others has a cosine of {own:.6f} with itself alone, expected {required:.6f}"
    )


def _alone(graph: PooledModel, texts: Sequence[npt.NDArray[np.int64]], device: torch.device) -> torch.Tensor:
    vectors = []
    with torch.inference_mode():
        for ids in texts:
            weights = torch.full((1, len(graph.poolings), len(ids)), 1 / len(ids), device=device)
            vectors.append(graph(torch.from_numpy(ids)[None].to(device), weights))
    return torch.cat(vectors)


def _together(flat: FlatModel, texts: Sequence[npt.NDArray[np.int64]], device: torch.device) -> torch.Tensor:
    lengths, ids = [len(text) for text in texts], np.concatenate(texts)
    cu_seqlens = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32, device=device)
    modes = len(flat.graph.poolings)
    weights = torch.cat([torch.full((modes, length), 1 / length, device=device) for length in lengths], dim=1)
    positions = torch.from_numpy(flat.positions(ids, lengths)).to(device)
    with torch.inference_mode():
        return flat(torch.from_numpy(ids).to(device), positions, weights, cu_seqlens, lengths)


def _random_texts(limit: int, vocabulary: int, padding: int | None) -> list[npt.NDArray[np.int64]]:
    random = np.random.default_rng(0)
    texts = [random.integers(min(10, vocabulary - 1), vocabulary, min(n, limit)) for n in (limit, *_TEST_LENGTHS)]
    if padding is not None:
        for text in texts:
            text[len(text) // 2] = padding
    return texts
