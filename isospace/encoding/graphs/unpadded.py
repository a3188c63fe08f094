"""Flattened batches: texts one behind the other in one sequence, so that nothing is padded whatever their lengths.

All of an encoder but positions, attention and pooling looks at one token at a time. Positions are given, attention is
kept within each text, and pooling goes by where texts begin. Whether a model lets itself be flattened is not looked up
in a list: texts of several lengths are computed so and alone, and it is not flattened where they differ.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from isospace.encoding.graphs.pooled_model import PooledModel
from isospace.encoding.graphs.varlen_attention import FlatLayout, use_varlen_attention
from isospace.errors import EncoderError

_LOG = logging.getLogger(__name__)
# Beside the longest text there can be: what depends on the longest of a call (rotary angles that are rescaled beyond
# some length, windows that only a mask tells) then shows in the others. Two are of one length.
_TRIED_LENGTHS = (1200, 150, 40, 40, 17, 5)
# Least cosine of a text flattened with the same text alone. Where texts saw each other it was below 0.9.
_LEAST_COSINE = {torch.float32: 0.99999, torch.float16: 0.999, torch.bfloat16: 0.999}
# And the most of what lies between it and the nearest other text: some models' vectors are all alike.
_MOST_OF_OTHERS = 0.1


@dataclass(frozen=True, slots=True)
class FlatModel:
    """A model that takes flattened batches.

    Attributes
    ----------
    graph
        The model, its network set to attend within texts.
    padding
        The token id that positions leave out and count from, as RoBERTa and its kin do; None where they count from
        zero.
    varlen
        See `FlatLayout`.
    """

    graph: PooledModel
    padding: int | None
    varlen: bool

    def positions(self, ids: npt.NDArray[np.int64], lengths: Sequence[int]) -> npt.NDArray[np.int64]:
        """Return the (tokens,) int64 position of every token in its text, from the (tokens,) ids of all."""
        counts = np.asarray(lengths, np.int64)
        starts = np.cumsum(counts) - counts
        if self.padding is None:
            return np.arange(len(ids)) - np.repeat(starts, counts)
        # A text may have that token in its words, and the network's own positions pass over it.
        taken = (ids != self.padding).astype(np.int64)
        total = np.cumsum(taken)
        found: npt.NDArray[np.int64] = (total - np.repeat((total - taken)[starts], counts)) * taken + self.padding
        return found

    def __call__(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        weights: torch.Tensor,
        cu_seqlens: torch.Tensor,
        lengths: Sequence[int],
    ) -> torch.Tensor:
        """Compute n texts.

        Parameters
        ----------
        ids, positions
            (tokens,) int64.
        weights
            (modes, tokens) float32 pooling weights.
        cu_seqlens
            (n + 1,) int32, cumulative.
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
        layout = FlatLayout(tuple(lengths), cu_seqlens, self.varlen)
        hidden = self.graph.network(**features, flat_layout=layout).last_hidden_state[0].float()
        pooled = [_pool(hidden, weights[mode], cu_seqlens, kind) for mode, kind in enumerate(self.graph.poolings)]
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
        If it cannot be flattened: its network brings an attention of its own (MPNet, DeBERTa, T5), or one that nothing
        here computes (Gemma 2's soft cap); its pooling needs attentions; or its vectors are other ones. It then goes on
        as
        it was.
    """
    network = graph.network
    name = type(network).__name__
    if len(graph.before) != 1 or "attention" in graph.poolings:
        raise EncoderError(f"{name} cannot be flattened: its pooling, or a module before that, may look across texts")
    if not getattr(network, "is_backend_compatible", lambda: False)():
        raise EncoderError(f"{name} cannot be flattened: it brings an attention of its own")
    parameter, before = next(network.parameters()), network.config._attn_implementation
    padding = padding_of_positions(network)
    texts = _random_texts(limit, network.get_input_embeddings().num_embeddings, padding)
    kernels = (True, False) if parameter.is_cuda and parameter.dtype != torch.float32 else (False,)
    reason = ""
    try:
        alone = _alone(graph, texts, parameter.device)
        if not use_varlen_attention(network):
            raise NotImplementedError("it does not take another attention")
        for varlen in kernels:
            flat = FlatModel(graph, padding, varlen)
            reason = _difference(alone, flat, texts, parameter)
            if not reason:
                return flat
            _LOG.info(
                "%s, flattened with %s: %s", name, "torch's varlen kernel" if varlen else "runs of equal length", reason
            )
    except (NotImplementedError, torch.OutOfMemoryError) as error:
        reason = " ".join(str(error).split())[:200]
    network.set_attn_implementation(before)
    raise EncoderError(f"{name} cannot be flattened: {reason}")


def padding_of_positions(network: torch.nn.Module) -> int | None:
    """Return the token id that a network's embedded positions leave out, and count from."""
    for module in network.modules():
        table = getattr(module, "position_embeddings", None)
        if isinstance(table, torch.nn.Embedding) and table.padding_idx is not None:
            return table.padding_idx
    return None


def _pool(hidden: torch.Tensor, weights: torch.Tensor, cu_seqlens: torch.Tensor, kind: str) -> torch.Tensor:
    """Pool (tokens, d) hidden states of n texts: (n, d)."""
    if kind == "max":
        hidden, how = hidden.masked_fill(weights[:, None] == 0, -torch.inf), "max"
    else:
        hidden, how = hidden * weights[:, None], "sum"
    # One token after the other, in their order: additions by atomics would come in any order.
    return torch.segment_reduce(hidden, how, offsets=cu_seqlens.long(), axis=0, unsafe=True)


def _difference(
    alone: torch.Tensor, flat: FlatModel, texts: Sequence[npt.NDArray[np.int64]], parameter: torch.Tensor
) -> str:
    """Say in what texts among others differ from texts alone, beyond what precision leaves; nothing if in nothing."""
    try:
        together = _together(flat, texts, parameter.device)
    except (NotImplementedError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a kernel or a network raises that was made otherwise
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    cosines = torch.nn.functional.normalize(alone.double()) @ torch.nn.functional.normalize(together.double()).T
    own = float(cosines.diagonal().min())
    others = float((cosines - 2 * torch.eye(len(cosines), device=cosines.device)).max())
    enough = max(_LEAST_COSINE[parameter.dtype], 1 - max(_MOST_OF_OTHERS * (1 - others), 1e-5))
    return (
        ""
        if own >= enough
        else f"a text among others has a cosine of {own:.6f} with itself alone, expected {enough:.6f}"
    )


def _alone(graph: PooledModel, texts: Sequence[npt.NDArray[np.int64]], device: torch.device) -> torch.Tensor:
    found = []
    with torch.inference_mode():
        for ids in texts:
            weights = torch.full((1, len(graph.poolings), len(ids)), 1 / len(ids), device=device)
            found.append(graph(torch.from_numpy(ids)[None].to(device), weights))
    return torch.cat(found)


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
    texts = [random.integers(min(10, vocabulary - 1), vocabulary, min(n, limit)) for n in (limit, *_TRIED_LENGTHS)]
    if padding is not None:
        for text in texts:
            text[len(text) // 2] = padding
    return texts
