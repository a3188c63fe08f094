"""Load a sparse encoder with sentence-transformers, and encode texts with it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from isospace.encoding.engine import Engine, usable_gpus
from isospace.encoding.forks import require_loaded_here
from isospace.encoding.registry.model_kind import require_sparse_kind
from isospace.encoding.registry.record import FileRecord
from isospace.encoding.sparse.record import SparseEncoderRecord, SparseRoute
from isospace.encoding.sparse.spec import SparseSpec
from isospace.encoding.tokenizer import Tokenizer
from isospace.encoding.tokenizer_rules import noticing_texts, rule_texts
from isospace.errors import EncoderError, missing_package
from isospace.transform.affine import ROLES, Role
from isospace.transform.probe_texts import PROBE_TEXTS, TOKENIZER_TEXTS
from isospace.transform.sparse import MOST_TERMS, SparseVectors, joined_rows, require_sparse

# A masked language model computes a logit for each token of the vocabulary at each position: 512 tokens and 30,522
# words are 62 MB. Larger calls are slower on a CPU, and so are more positions at once when they are pooled.
_BATCH_TOKENS, _POOLED_POSITIONS = 512, 16
_PROMPT_NAMES: dict[Role, tuple[str, ...]] = {"document": ("document", "passage", "corpus"), "query": ("query",)}


@dataclass(frozen=True)
class SparseEncoder:
    """A sparse encoder in memory; thread-safe.

    Attributes
    ----------
    model
        sentence-transformers' `SparseEncoder`.
    """

    record: SparseEncoderRecord
    model: Any
    device: str = "cpu"
    process: int = field(default_factory=os.getpid)
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    @property
    def vocabulary(self) -> int:
        """Number of components of a vector."""
        return self.record.vocabulary

    @property
    def provenance(self) -> dict[str, str]:
        """What computes the vectors: library, device, processor."""
        import torch

        libraries = f"sentence-transformers {importlib.metadata.version('sentence-transformers')}"
        return {
            "engine": f"torch {torch.__version__}, {libraries}",
            "device": self.device,
            "processor": platform.processor() or platform.machine(),
            "precision": "float32",
        }

    def tokenize(self, texts: Sequence[str], role: Role) -> list[list[int]]:
        """Return the token IDs that the model receives for each text, cut to its limit."""
        prompt = self.record.routes[role].prompt
        with self.lock:
            return [_token_ids(self.model, prompt + text, role) for text in texts]

    def probe_texts(self) -> list[str]:
        """Return texts that notice the rules of the tokenizers: each rule changes one of them, as far as found."""
        texts: list[str] = []
        for role in ROLES:
            tokenizer = getattr(_first_module(self.model, role).tokenizer, "backend_tokenizer", None)
            if tokenizer is not None:
                rules = Tokenizer(tokenizer.to_str().encode())
                known = [*PROBE_TEXTS, *TOKENIZER_TEXTS, *rule_texts(rules.data)]
                texts += [*known, *noticing_texts(rules, known)[0]]
        return list(dict.fromkeys(texts))

    def count_cut(self, texts: Sequence[str], role: Role) -> int:
        """Return how many texts the model's limit cuts; weights that are looked up have no limit."""
        route = self.record.routes[role]
        if route.inference_free:
            return 0
        prompt, limit = route.prompt, self.record.max_tokens
        with self.lock:
            tokenizer = _first_module(self.model, role).tokenizer
            counts = [len(tokenizer(prompt + text, truncation=False, verbose=False)["input_ids"]) for text in texts]
        return sum(count > limit for count in counts)

    def encode(self, texts: Sequence[str], role: Role) -> SparseVectors:
        """Return the raw sparse vectors of n texts, in their order.

        Documents are encoded in batches of exactly equal token count, never padded, and queries one by one, so that a
        query does not depend on those that are searched with it.

        Raises
        ------
        EncoderError
            If the model returns weights that are not finite, or negative; or in a fork.
        """
        require_loaded_here(self.process, "the sparse encoder")
        prompt = self.record.routes[role].prompt
        rows: list[Any] = [None] * len(texts)
        with self.lock:
            for batch in self._batches(texts, role):
                for place, row in zip(batch, self._rows([prompt + texts[place] for place in batch], role), strict=True):
                    rows[place] = row
        vectors = joined_rows(rows)
        if not np.isfinite(vectors.values).all() or (vectors.values < 0).any():
            raise EncoderError(
                f"the sparse encoder returned a weight that is negative or not finite, for role {role}; expected "
                "weights of 0 or more. Check the model: the activation of its last module must not be negative."
            )
        require_sparse(vectors, self.vocabulary, "the sparse encoder's vectors")
        return vectors

    def _batches(self, texts: Sequence[str], role: Role) -> Iterator[list[int]]:
        if role == "query":
            yield from ([place] for place in range(len(texts)))
            return
        lengths = [len(ids) for ids in self.tokenize(texts, role)]
        order = sorted(range(len(texts)), key=lambda place: (lengths[place], place))
        for length, group in groupby(order, key=lambda place: lengths[place]):
            members, size = list(group), max(1, _BATCH_TOKENS // max(length, 1))
            yield from (members[start : start + size] for start in range(0, len(members), size))

    def _rows(self, texts: list[str], role: Role) -> list[tuple[Any, Any]]:
        found = _encoded(self.model, texts, role).coalesce()
        places, terms = (row.numpy() for row in found.indices())
        values = found.values().float().numpy()
        kept = values != 0
        places, terms, values = places[kept], terms[kept].astype(np.int32), values[kept]
        edges = np.searchsorted(places, np.arange(len(texts) + 1))
        return [(terms[a:b], values[a:b]) for a, b in pairwise(edges.tolist())]


def load_sparse_model(folder: Path, *, device: str = "cpu") -> Any:
    """Load a model as sentence-transformers' `SparseEncoder`.

    Raises
    ------
    EncoderError
        If the folder holds no sparse encoder, or it cannot be loaded.
    """
    require_sparse_kind(folder)
    try:
        from sentence_transformers import SparseEncoder as Library
        from transformers.utils import logging as transformers_logging
    except ModuleNotFoundError as error:
        raise EncoderError(missing_package("sentence_transformers", "a sparse encoder")) from error
    transformers_logging.disable_progress_bar()
    try:
        model = Library(str(folder), device=device, local_files_only=True)
    except Exception as error:  # the library lets the exceptions of many others through
        reason = " ".join(str(error).split())[:300]
        raise EncoderError(
            f"sparse model {folder.name}: sentence-transformers cannot load it ({reason}). Check that the folder holds "
            "a complete SparseEncoder."
        ) from error
    model.eval()
    for module in model.modules():
        if hasattr(module, "pooling_strategy") and hasattr(module, "chunk_size"):
            module.chunk_size = _POOLED_POSITIONS
    return model


def describe_sparse(files: dict[str, FileRecord], model: Any, spec: SparseSpec) -> SparseEncoderRecord:
    """Build the identity of a loaded sparse model, and apply the recipe's limit to it.

    Raises
    ------
    EncoderError
        If it has no limit, too large a vocabulary, or a limit below the recipe's.
    """
    own = model.max_seq_length
    if own is None and spec.max_tokens is None:
        raise EncoderError(f"sparse model {spec.model}: names no limit of tokens. Set recipe.sparse.max_tokens.")
    if own is not None and spec.max_tokens is not None and spec.max_tokens > own:
        raise EncoderError(
            f"recipe.sparse.max_tokens = {spec.max_tokens}: the model takes at most {own} tokens. Lower it."
        )
    limit = int(spec.max_tokens or own)
    # The library knows the number of components only once a text was encoded.
    sizes = {role: int(_encoded(model, ["a"], role).shape[1]) for role in ROLES}
    vocabulary = sizes["document"]
    if vocabulary != sizes["query"] or vocabulary > MOST_TERMS:
        raise EncoderError(
            f"sparse model {spec.model}: has {vocabulary:,} components for documents and {sizes['query']:,} for "
            f"queries; expected equal numbers, and at most {MOST_TERMS:,}."
        )
    return SparseEncoderRecord(
        files=files,
        vocabulary=vocabulary,
        max_tokens=limit,
        routes={role: _route(model, role) for role in ROLES},
    )


def limit_tokens(model: Any, record: SparseEncoderRecord) -> None:
    """Make a loaded model cut texts at the limit of its record."""
    for role in ROLES:
        module = _first_module(model, role)
        if not record.routes[role].inference_free and module.max_seq_length != record.max_tokens:
            module.max_seq_length = record.max_tokens


def sparse_device(engine: Engine | None) -> str:
    """Return the device that an engine means for torch."""
    chosen = engine or Engine()
    if chosen.device != "auto":
        return chosen.device
    return "cuda:0" if chosen.backend in ("auto", "torch") and usable_gpus() else "cpu"


def _route(model: Any, role: Role) -> SparseRoute:
    modules = _modules(model, role)
    pooling = next((m for m in modules if hasattr(m, "pooling_strategy")), None)
    prompts = {name: prompt for name, prompt in (model.prompts or {}).items() if prompt}
    return SparseRoute(
        modules=tuple(type(module).__name__ for module in modules),
        pooling=getattr(pooling, "pooling_strategy", ""),
        activation=getattr(pooling, "activation_function", ""),
        inference_free=type(modules[0]).__name__ == "SparseStaticEmbedding",
        prompt=next((prompts[name] for name in _PROMPT_NAMES[role] if name in prompts), ""),
    )


def _modules(model: Any, role: Role) -> list[Any]:
    """Return the modules that texts of a role pass through; a router has others for each role."""
    found: list[Any] = []
    for module in model:
        routes = getattr(module, "sub_modules", None)
        if routes is None:
            found.append(module)
        elif role in routes:
            found += list(routes[role])
        else:
            raise EncoderError(
                f"the sparse model has the routes {', '.join(routes)}; expected query and document. Save it with "
                "Router.for_query_document."
            )
    return found


def _first_module(model: Any, role: Role) -> Any:
    return _modules(model, role)[0]


def _encoded(model: Any, texts: list[str], role: Role) -> Any:
    """Return torch's sparse (n, vocabulary) tensor of n texts, which are encoded in one call."""
    return model.encode(
        texts,
        # Whoever calls this has put the prompt before the text.
        prompt="",
        task=role,
        batch_size=len(texts),
        show_progress_bar=False,
        convert_to_tensor=True,
        convert_to_sparse_tensor=True,
        save_to_cpu=True,
    )


def _token_ids(model: Any, text: str, role: Role) -> list[int]:
    # Versions of sentence-transformers before 6 call it tokenize.
    prepare = getattr(model, "preprocess", None) or model.tokenize
    return [int(token) for token in prepare([text], task=role)["input_ids"][0]]
