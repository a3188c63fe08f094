"""Attention within each text of an unpadded batch, with the interface that transformers' models call."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

# The name under which transformers' models find this module's attention.
ATTENTION = "isospace_varlen"
# Arguments that some models pass to their attention, and that the kernels here do not support.
_UNSUPPORTED = ("softcap", "s_aux", "sinks", "position_bias", "block_table", "indices", "block_indices")


@dataclass(frozen=True, slots=True)
class FlatLayout:
    """Positions of the texts in an unpadded batch.

    Attributes
    ----------
    lengths
        Tokens of each of n texts.
    cu_seqlens
        (n + 1,) int32 on the device: start of each text, and the end of the last one.
    varlen
        Whether torch's kernel for varying lengths computes all texts at once (on a GPU, in 16 bits). If False, the
        usual kernel computes each run of texts of equal length.
    windows
        Masks of local attention by (window, causal), built once per call for the longest text.
    """

    lengths: tuple[int, ...]
    cu_seqlens: torch.Tensor
    varlen: bool
    windows: dict[tuple[int, bool], torch.Tensor] = field(default_factory=dict)

    def window(self, length: int, window: int, *, causal: bool) -> torch.Tensor:
        """Return the (length, length) bool mask of the tokens that each token attends to."""
        if (window, causal) not in self.windows:
            longest = max(self.lengths)
            near = torch.ones(longest, longest, dtype=torch.bool, device=self.cu_seqlens.device).triu_(1 - window)
            self.windows[window, causal] = near.tril_(0 if causal else window - 1)
        # The mask depends on distances only, so shorter texts share it.
        return self.windows[window, causal][:length, :length]


def use_varlen_attention(network: Any) -> bool:
    """Make a transformers network use `attend`; return False if its attention cannot be replaced."""
    AttentionInterface.register(ATTENTION, attend)
    network.set_attn_implementation(ATTENTION)
    # A network with its own attention only logs that nothing changed.
    return bool(network.config._attn_implementation == ATTENTION)


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    flat_layout: FlatLayout,
    scaling: float | None = None,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Compute attention within each text.

    Parameters
    ----------
    module
        The attention module of the network.
    query, key, value
        (1, heads, tokens, size); key and value may have fewer heads.
    attention_mask
        Must be None.
    flat_layout
        Positions of the texts.
    scaling
        Factor of the products; 1 / sqrt(size) if None.
    is_causal
        Whether a token attends only to those before it; the module decides if None.
    sliding_window
        A token attends only to tokens less than this distance away.
    others
        Further arguments that the model passes.

    Returns
    -------
    tuple
        (1, tokens, heads, size), and None for the attentions, which are never computed.

    Raises
    ------
    NotImplementedError
        If the model passes a mask or an unsupported argument.
    """
    if attention_mask is not None:
        raise NotImplementedError("attention with a mask")
    if unsupported := [name for name in _UNSUPPORTED if others.get(name) is not None]:
        raise NotImplementedError(f"attention with {unsupported[0]}")
    causal = bool(getattr(module, "is_causal", False) if is_causal is None else is_causal)
    kernel = _all_at_once if flat_layout.varlen else _by_length
    return kernel(query[0], key[0], value[0], flat_layout, scaling, causal, sliding_window)[None], None


def _all_at_once(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: FlatLayout,
    scale: float | None,
    causal: bool,
    window: int | None,
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    back, longest = -1 if window is None else window - 1, max(layout.lengths)
    attended = varlen_attn(
        query.transpose(0, 1),
        key.transpose(0, 1),
        value.transpose(0, 1),
        layout.cu_seqlens,
        layout.cu_seqlens,
        longest,
        longest,
        scale=scale,
        window_size=(back, 0 if causal else back),
        enable_gqa=query.shape[0] != key.shape[0],
        # Otherwise the other texts decide how many splits a text is computed in, which changes its last bits.
        num_splits=1,
    )
    assert isinstance(attended, torch.Tensor)
    return attended


def _by_length(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: FlatLayout,
    scale: float | None,
    causal: bool,
    window: int | None,
) -> torch.Tensor:
    """Compute attention with one call per run of texts of equal length."""
    # Fused kernels accept fewer key heads only in 16 bits and without a mask; otherwise torch falls back to a kernel
    # that computes the whole attention matrix in memory.
    groups = query.shape[0] // key.shape[0]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=0), value.repeat_interleave(groups, dim=0)
    out = query.new_empty(query.shape[1], query.shape[0], value.shape[2])
    start = 0
    for length, run in groupby(layout.lengths):
        texts = sum(1 for _ in run)
        tokens = slice(start, start + texts * length)
        q, k, v = (
            part[:, tokens].view(-1, texts, length, part.shape[2]).transpose(0, 1) for part in (query, key, value)
        )
        mask = None if window is None or length <= window else layout.window(length, window, causal=causal)
        attended = scaled_dot_product_attention(q, k, v, mask, is_causal=causal and mask is None, scale=scale)
        out[tokens] = attended.transpose(1, 2).flatten(0, 1)
        start = tokens.stop
    return out
