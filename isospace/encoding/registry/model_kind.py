"""Tell by its files whether a model is a dense text encoder, before its weights are read as those of one.

sentence-transformers loads a cross-encoder, a sparse, or a multi-vector encoder as a dense one: it drops the head and
takes the mean of the rest, and nobody ever trained what comes out.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from isospace.encoding.static_model import is_static
from isospace.errors import EncoderError

_LOG = logging.getLogger(__name__)
_CROSS = "a cross-encoder, which scores pairs of texts and has no vector of one text"
_SPARSE = "a sparse encoder, whose vectors have one component for each token of the vocabulary"
_MULTI = "a multi-vector encoder, which has one vector for each token"
_RERANK = "Use it to rerank (isospace search --reranker FOLDER), and a dense encoder here."
_BESIDE = "Name it in recipe.sparse, beside a dense encoder here."
_DENSE = "Use a dense encoder (modules.json: Transformer, Pooling)."
# As sentence-transformers writes them, from version 5 on, into config_sentence_transformers.json.
_TYPES = {
    "CrossEncoder": (_CROSS, _RERANK),
    "SparseEncoder": (_SPARSE, _BESIDE),
    "MultiVectorEncoder": (_MULTI, _DENSE),
}
# Modules that only such models have.
_MODULES = {
    "LogitScore": (_CROSS, _RERANK),
    "MLMTransformer": (_SPARSE, _BESIDE),
    "SpladePooling": (_SPARSE, _BESIDE),
    "SparseStaticEmbedding": (_SPARSE, _BESIDE),
    "SparseAutoEncoder": (_SPARSE, _BESIDE),
    "CSRSparsity": (_SPARSE, _BESIDE),
    "MultiVectorMask": (_MULTI, _DENSE),
}
# First modules that run no transformer.
_UNSUPPORTED = frozenset({"WordEmbeddings", "BoW", "CLIPModel"})
# Heads of networks in transformers that were trained for one task, without which the rest has no use.
_HEADS = {
    "ForSequenceClassification": ("a cross-encoder or classifier", _RERANK),
    "ForTokenClassification": ("a classifier of tokens", _DENSE),
    "ForQuestionAnswering": ("a model that marks answers in a text", _DENSE),
    "ForMultipleChoice": ("a model that chooses among answers", _DENSE),
    "ForNextSentencePrediction": ("a classifier of pairs of sentences", _DENSE),
}


def require_dense(folder: Path) -> None:
    """Refuse a model whose files say that it is no dense encoder, or none that isospace can run.

    Raises
    ------
    EncoderError
        If it is a cross-encoder, a sparse or multi-vector encoder, a classifier, or a model without a transformer.
    """
    settings, network = _read(folder / "config_sentence_transformers.json"), _read(folder / "config.json")
    listed = _read(folder / "modules.json")
    modules = [str(_entry(one, "type")).rpartition(".")[2] for one in _list(listed)]
    if (kind := str(_entry(settings, "model_type"))) in _TYPES:
        raise _refusal(folder, f'config_sentence_transformers.json: "model_type": "{kind}"', *_TYPES[kind])
    if special := [name for name in modules if name in _MODULES]:
        raise _refusal(folder, f"modules.json: {', '.join(modules)}", *_MODULES[special[0]])
    if modules and modules[0] in _UNSUPPORTED:
        raise EncoderError(
            f"model {folder.name}: its first module is {modules[0]}, which isospace cannot run; expected a "
            "Transformer or StaticEmbedding. Use a model whose modules.json lists Transformer, Pooling."
        )
    if "Pooling" not in modules and not is_static(folder):
        _require_no_head(folder, network)


def require_sparse_kind(folder: Path) -> None:
    """Refuse a model whose files do not say that it is a sparse encoder, or a masked language model.

    Raises
    ------
    EncoderError
        If it is a dense or multi-vector encoder, a cross-encoder, or another network.
    """
    settings, network = _read(folder / "config_sentence_transformers.json"), _read(folder / "config.json")
    modules = [str(_entry(one, "type")).rpartition(".")[2] for one in _list(_read(folder / "modules.json"))]
    kind = str(_entry(settings, "model_type") or "")
    heads = [name for name in _list(_entry(network, "architectures")) if isinstance(name, str)]
    is_sparse = any(_MODULES.get(name, ("",))[0] == _SPARSE for name in modules)
    if kind == "SparseEncoder" or is_sparse or (not modules and any(name.endswith("ForMaskedLM") for name in heads)):
        return
    evidence = f'"model_type": "{kind}"' if kind else ", ".join(modules or heads) or "no config.json"
    remedy = "Name it in recipe.encoder." if kind == "SentenceTransformer" or "Pooling" in modules else ""
    raise EncoderError(
        f"model {folder.name}: is no sparse encoder ({evidence}); expected one of sentence-transformers' SparseEncoder "
        f"(modules.json: SpladePooling), or a network for masked language modeling. {remedy}".rstrip()
    )


def _require_no_head(folder: Path, network: Any) -> None:
    """Refuse a network with the head of another task, where no module says how its vectors are pooled."""
    architectures = [name for name in _list(_entry(network, "architectures")) if isinstance(name, str)]
    for name in architectures:
        if head := next((head for head in _HEADS if name.endswith(head)), None):
            raise _refusal(folder, f"config.json: {name}", *_HEADS[head])
    if architectures:
        _LOG.warning(
            "model %s: a plain %s without a Pooling module; the mean of its token vectors is taken, for which it may "
            "not have been trained. If it is a sparse encoder (SPLADE) or a reranker, use a dense encoder instead",
            folder.name,
            architectures[0],
        )


def _refusal(folder: Path, evidence: str, kind: str, remedy: str) -> EncoderError:
    return EncoderError(
        f"model {folder.name}: is {kind} ({evidence}); expected a dense encoder. Its vectors would be noise. {remedy}"
    )


def _entry(document: Any, key: str) -> Any:
    return document.get(key) if isinstance(document, dict) else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _read(path: Path) -> Any:
    """Return a JSON file; an empty list if it is missing or damaged, which whoever loads the model says."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
