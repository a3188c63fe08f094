"""The last layer for the first tokens alone, where a model pools nothing but its first one.

Of the last layer, such a model needs every token's key and value, and the rest for one token. What is left out is some
80 per cent of that layer: 7 per cent of a network of twelve layers, 13 per cent of one of six.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

# Not one: torch was seen to have other bits for calls of few rows, so that a text alone would differ from one in a
# batch.
FIRST_TOKENS = 16
# Alike in what is used of them: attention.self with query, key and value; attention.output; feed_forward_chunk.
_LAYERS = ("BertLayer", "RobertaLayer", "XLMRobertaLayer")


def has_narrow_layer(network: Any) -> bool:
    """Tell whether a network ends with a layer that `narrow_layer` knows."""
    layers: Any = getattr(getattr(network, "encoder", None), "layer", ())
    if not layers or type(layers[-1]).__name__ not in _LAYERS:
        return False
    # Code that came with a model has classes of these names, too, and attentions of its own.
    return type(layers[-1]).__module__.startswith("transformers.models.") and not layers[-1].is_decoder


@contextlib.contextmanager
def narrow_layer(network: Any) -> Iterator[None]:
    """Have a network return the hidden states of its first tokens alone: (n, min(16, length), d) float32.

    Parameters
    ----------
    network
        One that `has_narrow_layer` accepts; it is as it was afterwards.
    """
    layer = network.encoder.layer[-1]
    own = layer.attention.self

    def heads(linear: torch.nn.Module, rows: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = linear(rows)
        shape = (*found.shape[:-1], own.num_attention_heads, own.attention_head_size)
        return found.view(shape).transpose(1, 2)

    def first_tokens(hidden: torch.Tensor, attention_mask: torch.Tensor | None = None, *_: Any, **__: Any) -> Any:
        first = hidden[:, :FIRST_TOKENS]
        mask = None if attention_mask is None else attention_mask[..., :FIRST_TOKENS, :]
        context = torch.nn.functional.scaled_dot_product_attention(
            heads(own.query, first), heads(own.key, hidden), heads(own.value, hidden), mask, scale=own.scaling
        )
        return layer.feed_forward_chunk(layer.attention.output(context.transpose(1, 2).flatten(2), first))

    layer.forward = first_tokens
    try:
        yield
    finally:
        del layer.forward
