"""Attention within each of several texts that lie one behind the other in one sequence, as transformers' models call it."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

# The name under which transformers' models find this module's attention.
ATTENTION = "isospace_varlen"
# What else a model may ask of its attention, and none of the kernels here does.
_UNKNOWN = ("softcap", "s_aux", "sinks", "position_bias", "block_table", "indices", "block_indices")


@dataclass(frozen=True, slots=True)
class FlatLayout:
    """Where texts lie in a flattened batch.

    Attributes
    ----------
    lengths
        Tokens of each of n texts.
    cu_seqlens
        (n + 1,) int32 on the device, cumulative: where each begins, and where the last one ends.
    varlen
        Whether torch's kernel for varying lengths attends within all texts at once (on a GPU, in 16 bits), or the usual
        one within each run of equal lengths.
    windows
        Masks of local attention by (window, causal), made once a call for the longest text.
    """

    lengths: tuple[int, ...]
    cu_seqlens: torch.Tensor
    varlen: bool
    windows: dict[tuple[int, bool], torch.Tensor] = field(default_factory=dict)

    def window(self, length: int, window: int, *, causal: bool) -> torch.Tensor:
        """Return the (length, length) bool mask of what a token sees."""
        if (window, causal) not in self.windows:
            longest = max(self.lengths)
            near = torch.ones(longest, longest, dtype=torch.bool, device=self.cu_seqlens.device).triu_(1 - window)
            self.windows[window, causal] = near.tril_(0 if causal else window - 1)
        # The same for every text, since it depends on distances alone.
        return self.windows[window, causal][:length, :length]


def use_varlen_attention(network: Any) -> bool:
    """Have a network of transformers attend by `attend`; False where it does not let itself."""
    AttentionInterface.register(ATTENTION, attend)
    network.set_attn_implementation(ATTENTION)
    # A network that brings its own attention is told in a log that nothing was changed.
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
    """Attend within each text.

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
        Whether a token sees those before it alone; as the module says if None.
    sliding_window
        A token sees those less than so many away.
    others
        What else the model passes on.

    Returns
    -------
    tuple
        (1, tokens, heads, size), and None for the attentions, which are never formed.

    Raises
    ------
    NotImplementedError
        If the model asks for what changes attention otherwise.
    """
    if attention_mask is not None:
        raise NotImplementedError("attention with a mask")
    if asked := [name for name in _UNKNOWN if others.get(name) is not None]:
        raise NotImplementedError(f"attention with {asked[0]}")
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
    found = varlen_attn(
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
        # Otherwise a text's neighbours decide in how many parts it is computed, and so its last bits.
        num_splits=1,
    )
    assert isinstance(found, torch.Tensor)
    return found


def _by_length(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: FlatLayout,
    scale: float | None,
    causal: bool,
    window: int | None,
) -> torch.Tensor:
    """Attend in a call for each run of texts of one length."""
    # Fused kernels take fewer heads of keys only in 16 bits without a mask; what is left then forms all products in
    # memory.
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
        found = scaled_dot_product_attention(q, k, v, mask, is_causal=causal and mask is None, scale=scale)
        out[tokens] = found.transpose(1, 2).flatten(0, 1)
        start = tokens.stop
    return out
