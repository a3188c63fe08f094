"""The model as one graph: token IDs and pooling weights in, raw vectors out.

The modules of a sentence-transformers model run unchanged, except its pooling, which takes its weights as an input (see
`isospace.encoding.pooling`). The graph then needs no mask if nothing is padded, and serves every kind of pooling.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from isospace.encoding.graphs.cls_layer import FIRST_TOKENS, can_narrow_last_layer, narrow_last_layer
from isospace.encoding.pooling import POOLINGS, Pooling
from isospace.errors import EncoderError


class PooledModel(torch.nn.Module):
    """A sentence-transformers model whose pooling takes weights.

    Parameters
    ----------
    modules
        All modules of the model, in order; exactly one of them is its pooling.
    poolings
        Kinds of pooling; the results of several are concatenated.
    takes_types
        Whether the model takes token type IDs.

    Attributes
    ----------
    head_rows
        Smallest number of rows that the modules after the pooling compute at once. A product with few rows differs in
        the last bits, so that a text alone would differ from the same text in a batch.
    """

    def __init__(self, modules: Sequence[torch.nn.Module], poolings: Sequence[Pooling], *, takes_types: bool) -> None:
        super().__init__()
        index = pooling_index(modules)
        self.before = torch.nn.ModuleList(modules[:index])
        self.after = torch.nn.ModuleList(modules[index + 1 :])
        self.poolings = tuple(poolings)
        self.takes_types = takes_types
        self.head_rows = 1
        self._narrowed = False
        self._attentions: list[torch.Tensor] = []
        if "attention" in poolings:
            _return_attentions(_network(modules), self._attentions)

    @property
    def network(self) -> Any:
        """The transformers network in the first module."""
        return _network(list(self.before))

    def forward(
        self, input_ids: torch.Tensor, weights: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Map (n, length) int64 IDs and (n, modes, length) float32 weights to (n, d) float32 vectors."""
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
        """Run the modules after the pooling: (n, modes * hidden) float32 to (n, d) float32 vectors."""
        rows = len(pooled) if self.head_rows > 1 else None
        if rows is not None and rows < self.head_rows:
            pooled = torch.cat([pooled, pooled[-1:].expand(self.head_rows - rows, -1)])
        features: dict[str, Any] = {"sentence_embedding": pooled}
        for module in self.after:
            dtype = next((parameter.dtype for parameter in module.parameters()), torch.float32)
            features["sentence_embedding"] = features["sentence_embedding"].to(dtype)
            features = module(features)
        vectors: torch.Tensor = features["sentence_embedding"].float()
        return vectors if rows is None else vectors[:rows]

    @contextlib.contextmanager
    def with_narrow_last_layer(self) -> Iterator[None]:
        """Compute the last layer for the first tokens only, if pooling and network allow it."""
        network = self.network
        plain = len(self.before) == 1 and returns_last_layer(self.before[0])
        if self.poolings != ("cls",) or not plain or not can_narrow_last_layer(network):
            yield
            return
        self._narrowed = True
        try:
            with narrow_last_layer(network):
                yield
        finally:
            self._narrowed = False

    def _pool(self, hidden: torch.Tensor, weights: torch.Tensor, kind: Pooling) -> torch.Tensor:
        if kind == "max":
            return hidden.masked_fill(weights.unsqueeze(-1) == 0, -torch.inf).amax(dim=1)
        if kind == "attention":
            attention = self._attentions.pop().float().mean(dim=1)
            # The attention of the first token that is not padding; the weights start there unless a prompt is left out.
            first = (weights > 0).to(torch.int32).argmax(dim=1)
            rows = torch.arange(attention.shape[0], device=attention.device)
            attended = attention[rows, first] * weights
            weights = attended / attended.sum(dim=1, keepdim=True)
        return (hidden * weights.unsqueeze(-1)).sum(dim=1)


def pooling_index(modules: Sequence[torch.nn.Module]) -> int:
    """Return the position of the pooling among a model's modules.

    Raises
    ------
    EncoderError
        If there is not exactly one.
    """
    names = [type(module).__name__ for module in modules]
    if names.count("Pooling") != 1:
        raise EncoderError(
            f"the model consists of {', '.join(names)}; expected token embeddings, one Pooling, and further modules. "
            "Save it with sentence-transformers as Transformer, Pooling."
        )
    return names.index("Pooling")


def own_poolings(modules: Sequence[torch.nn.Module]) -> tuple[Pooling, ...]:
    """Return the kinds of pooling that a model's own files configure."""
    pooling: Any = modules[pooling_index(modules)]
    modes = pooling.pooling_mode
    kinds = (modes,) if isinstance(modes, str) else tuple(modes)
    if unknown := [kind for kind in kinds if kind not in POOLINGS]:
        raise EncoderError(
            f"the model's pooling is {unknown[0]}; expected {', '.join(POOLINGS)}. Save the model with one of these."
        )
    return kinds


def returns_last_layer(module: Any) -> bool:
    """Tell whether a Transformer module returns the hidden states of the network's last layer, and not of another."""
    text = (getattr(module, "modality_config", None) or {}).get("text") or {}
    taken = text.get("method_output_name", "last_hidden_state")
    return taken == "last_hidden_state" or tuple(taken or ()) == ("last_hidden_state",)


def returns_attentions(modules: Sequence[torch.nn.Module]) -> bool:
    """Tell whether a model's network can return its attentions; some implementations never compute them."""
    network = _network(modules)
    attentions: list[torch.Tensor] = []
    try:
        _return_attentions(network, attentions)
    except (ValueError, NotImplementedError):
        return False
    try:
        ids = torch.full((1, 4), 5, dtype=torch.int64, device=next(network.parameters()).device)
        with torch.inference_mode():
            network.forward(input_ids=ids, attention_mask=torch.ones_like(ids))
    finally:
        del network.forward
    return bool(attentions)


def _network(modules: Sequence[torch.nn.Module]) -> Any:
    return modules[0].model


def _return_attentions(network: Any, into: list[torch.Tensor]) -> None:
    """Make a network store the attentions of its last layer in a list."""
    # Only the eager implementation computes the attention matrix.
    network.set_attn_implementation("eager")
    network.config.output_attentions = True

    # sentence-transformers calls `forward` directly, which bypasses the hooks of a module.
    forward = type(network).forward

    def store_attentions(*arguments: Any, **keywords: Any) -> Any:
        outputs = forward(network, *arguments, **keywords)
        if attentions := getattr(outputs, "attentions", None):
            into[:] = [attentions[-1]]
        return outputs

    network.forward = store_attentions
