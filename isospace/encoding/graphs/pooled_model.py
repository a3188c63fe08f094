"""The model as one graph: token ids and pooling weights in, raw vectors out.

The modules of a sentence-transformers model run as they are, but for its pooling: that is given its
weights (see `isospace.encoding.pooling`), so that a graph needs no mask where nothing is padded, and every pooling
of one model is the same graph.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from isospace.encoding.graphs.cls_layer import FIRST_TOKENS, has_narrow_layer, narrow_layer
from isospace.encoding.pooling import POOLINGS, Pooling
from isospace.errors import EncoderError


class PooledModel(torch.nn.Module):
    """A sentence-transformers model whose pooling takes weights.

    Parameters
    ----------
    modules
        All modules of the model, in order, one of them its pooling.
    poolings
        What is pooled; several are concatenated.
    takes_types
        Whether the model is given token type ids.
    """

    def __init__(self, modules: Sequence[torch.nn.Module], poolings: Sequence[Pooling], *, takes_types: bool) -> None:
        super().__init__()
        place = pooling_place(modules)
        self.before = torch.nn.ModuleList(modules[:place])
        self.after = torch.nn.ModuleList(modules[place + 1 :])
        self.poolings = tuple(poolings)
        self.takes_types = takes_types
        self._narrowed = False
        self._attentions: list[torch.Tensor] = []
        if "attention" in poolings:
            _return_attentions(_network(modules), self._attentions)

    @property
    def network(self) -> Any:
        """The network of transformers in the first module."""
        return _network(list(self.before))

    def forward(
        self, input_ids: torch.Tensor, weights: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return (n, d) float32 vectors of (n, length) int64 ids and (n, modes, length) float32 weights."""
        features: dict[str, Any] = {"input_ids": input_ids}
        if self.takes_types:
            features["token_type_ids"] = torch.zeros_like(input_ids)
        if attention_mask is not None:
            features["attention_mask"] = attention_mask
        for module in self.before:
            features = module(features)
        hidden = features["token_embeddings"].float()
        if self._narrowed:
            weights = weights[:, :, :FIRST_TOKENS]
        pooled = [self._pool(hidden, weights[:, mode], kind) for mode, kind in enumerate(self.poolings)]
        return self.finish(torch.cat(pooled, dim=1))

    def finish(self, pooled: torch.Tensor) -> torch.Tensor:
        """Run the modules behind the pooling: (n, d) float32 vectors of (n, modes * hidden) float32 pooled ones."""
        features: dict[str, Any] = {"sentence_embedding": pooled}
        for module in self.after:
            kind = next((parameter.dtype for parameter in module.parameters()), torch.float32)
            features["sentence_embedding"] = features["sentence_embedding"].to(kind)
            features = module(features)
        vectors: torch.Tensor = features["sentence_embedding"].float()
        return vectors

    @contextlib.contextmanager
    def narrowed(self) -> Iterator[None]:
        """Leave out of the last layer what no pooling of the first token needs, where the network lets it."""
        network = self.network
        if self.poolings != ("cls",) or len(self.before) != 1 or not has_narrow_layer(network):
            yield
            return
        self._narrowed = True
        try:
            with narrow_layer(network):
                yield
        finally:
            self._narrowed = False

    def _pool(self, hidden: torch.Tensor, weights: torch.Tensor, kind: Pooling) -> torch.Tensor:
        if kind == "max":
            return hidden.masked_fill(weights.unsqueeze(-1) == 0, -torch.inf).amax(dim=1)
        if kind == "attention":
            attention = self._attentions.pop().float().mean(dim=1)
            # From the first token that is not padding, which is where the weights begin with no prompt left out.
            first = (weights > 0).to(torch.int32).argmax(dim=1)
            rows = torch.arange(attention.shape[0], device=attention.device)
            seen = attention[rows, first] * weights
            weights = seen / seen.sum(dim=1, keepdim=True)
        return (hidden * weights.unsqueeze(-1)).sum(dim=1)


def pooling_place(modules: Sequence[torch.nn.Module]) -> int:
    """Return where the pooling is among a model's modules.

    Raises
    ------
    EncoderError
        If there is not exactly one.
    """
    names = [type(module).__name__ for module in modules]
    if names.count("Pooling") != 1:
        raise EncoderError(
            f"the model consists of {', '.join(names)}; expected token embeddings, one Pooling, and what follows. "
            "Save it with sentence-transformers as Transformer, Pooling."
        )
    return names.index("Pooling")


def own_poolings(modules: Sequence[torch.nn.Module]) -> tuple[Pooling, ...]:
    """Return the poolings that a model was made with."""
    pooling: Any = modules[pooling_place(modules)]
    modes = pooling.pooling_mode
    named = (modes,) if isinstance(modes, str) else tuple(modes)
    if unknown := [name for name in named if name not in POOLINGS]:
        raise EncoderError(f"the model pools by {unknown[0]}; known: {', '.join(POOLINGS)}.")
    return named


def returns_attentions(modules: Sequence[torch.nn.Module]) -> bool:
    """Tell whether a model's network gives its attentions away; some implementations never form them."""
    network = _network(modules)
    found: list[torch.Tensor] = []
    try:
        _return_attentions(network, found)
    except (ValueError, NotImplementedError):
        return False
    try:
        ids = torch.full((1, 4), 5, dtype=torch.int64, device=next(network.parameters()).device)
        with torch.inference_mode():
            network.forward(input_ids=ids, attention_mask=torch.ones_like(ids))
    finally:
        del network.forward
    return bool(found)


def _network(modules: Sequence[torch.nn.Module]) -> Any:
    return modules[0].model


def _return_attentions(network: Any, into: list[torch.Tensor]) -> None:
    """Have a network leave the attentions of its last layer in a list."""
    # Only the plain implementation forms the matrix of attentions.
    network.set_attn_implementation("eager")
    network.config.output_attentions = True

    # sentence-transformers calls `forward` itself, which passes by every hook of a module.
    forward = type(network).forward

    def keeping(*arguments: Any, **named: Any) -> Any:
        outputs = forward(network, *arguments, **named)
        if attentions := getattr(outputs, "attentions", None):
            into[:] = [attentions[-1]]
        return outputs

    network.forward = keeping
