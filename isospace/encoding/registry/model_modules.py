"""Which modules of sentence-transformers a model may consist of, and what they make of its vectors.

Modules hand a dictionary of features on. Here the keys are followed from module to module, so that a module whose input
is not there is refused by name before anything is encoded, instead of failing in the middle of a graph. Modules that
come with a model's own code are not known; they are compared with sentence-transformers when the model is registered.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import Any

from isospace.encoding.pooling import Pooling
from isospace.errors import ConfigError, EncoderError

_LOG = logging.getLogger(__name__)
_TOKENS, _SENTENCE, _LAYERS = "token_embeddings", "sentence_embedding", "all_layer_embeddings"
_LIBRARY = "sentence_transformers."
# What they do that a graph of one text, without padding, does not.
_REFUSED = {
    "CNN": "a convolution mixes a text with its padding, so that its vectors depend on the batch",
    "LSTM": "it needs lengths of sentences, which no Transformer passes on",
    "BoW": "it counts words and runs no transformer",
    "WordEmbeddings": "it looks words up and runs no transformer",
    "WordWeights": "it weights the words of a vocabulary that only WordEmbeddings has",
    "Router": "a Router inside of another's route is not supported",
}
_FIRST = ("Transformer", "StaticEmbedding")
_EXPECTED = (
    "Use a model of Transformer, Pooling, and further modules such as Dense, LayerNorm, and Normalize "
    "(docs/models.md#modules)."
)
# Settings of a Transformer that change tokens by task; sentence-transformers applies them in encode_query and
# encode_document alone.
_BY_TASK = ("query_length", "document_length", "query_expansion")
# Where learned tables of positions are, by the names that the networks of transformers use.
_POSITION_TABLES = ("position_embeddings", "position_embedding", "embed_positions", "wpe")


def require_supported(modules: Sequence[Any], name: str) -> None:
    """Refuse a model with a module that isospace does not compute as sentence-transformers does.

    Parameters
    ----------
    modules
        All modules of the model, in order.
    name
        The model's name, for the message.

    Raises
    ------
    EncoderError
        The message names the module and its position.
    """
    for number, module in enumerate(modules):
        kind = _kind(module)
        if kind in _REFUSED:
            raise _refusal(name, number, kind, _REFUSED[kind])
        if number and kind in _FIRST:
            raise _refusal(name, number, kind, "it reads texts, which only the first module can")
    _require_plain_transformer(modules[0], name)
    kinds = [_kind(module) or type(module).__name__ for module in modules]
    if kinds.count("Pooling") != 1:
        raise EncoderError(
            f"model {name}: consists of {', '.join(kinds)}; expected token embeddings, one Pooling, and further "
            "modules. Save it with sentence-transformers as Transformer, Pooling."
        )
    _follow(modules, name)


def normalizes(modules: Sequence[Any]) -> bool:
    """Tell whether the last module that changes a text's vector normalizes it to unit length."""
    unit = False
    for module in modules[[_kind(one) for one in modules].index("Pooling") + 1 :]:
        kind = _kind(module)
        if kind == "Dropout" or (kind and _SENTENCE not in _outputs(module)):
            continue
        # Of a module that is not known, nobody knows what it leaves.
        unit = kind == "Normalize" and module.module_input_name == _SENTENCE
    return unit


def vector_dimension(modules: Sequence[Any], poolings: Sequence[Pooling], own: Sequence[Pooling]) -> int:
    """Return the dimension of a model's vectors, by running the modules after the pooling.

    Parameters
    ----------
    modules
        All modules of the model, in order.
    poolings, own
        Kinds of pooling that run, and those that the model's files configure.

    Raises
    ------
    ConfigError
        If the modules do not take what another pooling gives them.
    EncoderError
        If they do not fit together.
    """
    import torch

    index = [_kind(module) for module in modules].index("Pooling")
    width = int(modules[index].get_embedding_dimension()) // len(own) * len(poolings)
    head, names = modules[index + 1 :], ", ".join(type(module).__name__ for module in modules)
    # A copy in float32: some operations are missing in half precision on a CPU.
    after = copy.deepcopy(torch.nn.ModuleList(head)).float().eval()
    features: dict[str, Any] = {_SENTENCE: torch.ones(2, width)}
    try:
        with torch.inference_mode():
            for module in after:
                features = module(features)
        rows, dimension = features[_SENTENCE].shape
    except Exception as error:  # a model's own code raises whatever it likes
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        if len(poolings) != len(own):
            raise ConfigError(
                f"recipe.encoder.pooling = {poolings[0]!r}: the model concatenates {len(own)} poolings before "
                f"{', '.join(type(module).__name__ for module in head)}. Leave pooling empty for this model."
            ) from error
        raise EncoderError(
            f"the model consists of {names}: the modules after Pooling cannot compute a vector from its {width} "
            f"components ({reason}). {_EXPECTED}"
        ) from error
    if rows != 2:
        raise EncoderError(f"the model consists of {names}: returns {rows} vectors for 2 texts. {_EXPECTED}")
    return int(dimension)


def token_limit(model: Any) -> int:
    """Return the largest number of tokens that a model takes: what its files say, and its network has positions for.

    sentence-transformers cuts texts at `max_seq_length` alone, and fails on longer ones than there are positions.
    """
    stated = int(model.max_seq_length or model.tokenizer.model_max_length)
    positions = position_limit(model[0].model) if hasattr(model[0], "model") else None
    if positions is None or stated <= positions:
        return stated
    _LOG.warning(
        "the model's files say that it takes %s tokens (max_seq_length), but its network has positions for %d "
        "(config.json: max_position_embeddings = %s); %d is the limit",
        f"{stated:,}" if stated < 1 << 32 else "any number of",
        positions,
        getattr(model[0].model.config, "max_position_embeddings", "unknown"),
        positions,
    )
    return positions


def position_limit(network: Any) -> int | None:
    """Return for how many tokens a network has learned positions; None if it computes positions of any number.

    Tables of some networks have rows that no token uses: RoBERTa and MPNet count positions from the padding token on,
    so that 514 rows are for 512 tokens, and OPT and BART have an offset.
    """
    import torch

    limits = []
    for module in network.modules():
        for name in _POSITION_TABLES:
            table = getattr(module, name, None)
            if isinstance(table, torch.nn.Embedding):
                skipped = 0 if table.padding_idx is None else table.padding_idx + 1
                limits.append(table.num_embeddings - skipped - int(getattr(table, "offset", 0)))
    return min(limits, default=None)


def warn_of_similarity(model: Any, name: str, *, is_normalized: bool) -> None:
    """Warn if a model was not trained for what searches use by default, the cosine."""
    kind = str(getattr(model, "similarity_fn_name", "cosine"))
    if kind == "cosine" or is_normalized:
        return
    remedy = (
        "Set recipe.transform.normalization: none, so that the lengths of its vectors count"
        if kind == "dot"
        else "Searches rank by dot products, which are cosines with recipe.transform.normalization: l2"
    )
    _LOG.warning("model %s: compares vectors by %s (similarity_fn_name), and does not normalize. %s", name, kind, remedy)


def _follow(modules: Sequence[Any], name: str) -> None:
    """Follow the features from module to module; refuse a module whose input is missing."""
    available: set[str] | None = set()
    for number, module in enumerate(modules):
        kind = _kind(module)
        if not kind or (number == 0 and kind == "Transformer"):
            # Of a module that is not known, everything may come out.
            available = {_TOKENS, _LAYERS} if kind and available is not None else None
            continue
        if kind == "Pooling":
            # The pooling in the graph hands nothing but its result on.
            if available is not None and _TOKENS not in available:
                raise _refusal(name, number, kind, f"no module before it makes {_TOKENS}")
            available = {_SENTENCE}
            continue
        needed = _input(module)
        if available is not None and needed not in available:
            # It leaves features alone that it does not find.
            if kind == "Normalize":
                continue
            raise _refusal(name, number, kind, f"it reads {needed}, which no module before it hands on")
        if available is not None:
            available = available | set(_outputs(module))
    if available is not None and _SENTENCE not in available:
        raise EncoderError(f"model {name}: no module makes {_SENTENCE}. {_EXPECTED}")


def _require_plain_transformer(module: Any, name: str) -> None:
    """Refuse a first module that makes something else of a text than one vector for each token."""
    if _kind(module) != "Transformer":
        return
    output = getattr(module, "module_output_name", _TOKENS)
    modalities = getattr(module, "modality_config", None) or {"text": {}}
    if "text" not in modalities:
        takes = ", ".join(str(key) for key in modalities)
        raise _refusal(name, 0, "Transformer", f"it takes {takes}, not plain text (modality_config)")
    method = modalities["text"].get("method", "forward")
    taken = modalities["text"].get("method_output_name", "last_hidden_state")
    if output != _TOKENS or "pooler_output" in (taken or ()) or method != "forward":
        raise _refusal(
            name,
            0,
            "Transformer",
            f"its own head computes {output} ({method}: {taken}); expected one vector for each token",
        )
    processing = getattr(module, "processing_kwargs", None) or {}
    if settings := {key: processing[key] for key in ("common", "text") if processing.get(key)}:
        raise _refusal(name, 0, "Transformer", f"its tokens depend on settings beside tokenizer.json: {settings}")
    for setting in _BY_TASK:
        if (value := getattr(module, setting, None)) is not None:
            raise _refusal(name, 0, "Transformer", f"{setting} = {value} cuts or pads texts by task")


def _kind(module: Any) -> str:
    """Return the class name of a module of sentence-transformers; empty for a model's own code."""
    kind = type(module)
    return kind.__name__ if kind.__module__.startswith(_LIBRARY) else ""


def _input(module: Any) -> str:
    default = _LAYERS if _kind(module) == "WeightedLayerPooling" else _SENTENCE
    return str(getattr(module, "module_input_name", default))


def _outputs(module: Any) -> tuple[str, ...]:
    default = _TOKENS if _kind(module) == "WeightedLayerPooling" else _SENTENCE
    return (str(getattr(module, "module_output_name", default)),)


def _refusal(name: str, number: int, kind: str, reason: str) -> EncoderError:
    return EncoderError(f"model {name}: its module {number}, {kind}, cannot be run: {reason}. {_EXPECTED}")
