"""The query side of an inference-free sparse encoder: token IDs and a table of weights, without torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from isospace.encoding.registry.files import fetch_files
from isospace.encoding.sparse.record import SparseEncoderRecord
from isospace.errors import EncoderError
from isospace.storage import paths as layout
from isospace.storage.store import Store
from isospace.transform.affine import Role
from isospace.transform.sparse import SparseVectors, joined_rows

_ROUTER, _TOKENIZER, _SETTINGS, _WEIGHTS = (
    "router_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "model.safetensors",
)


@dataclass(frozen=True)
class LookupEncoder:
    """Encodes queries alone.

    Attributes
    ----------
    tokenizer
        The `tokenizers.Tokenizer`.
    weights
        (vocabulary,) float32.
    limit
        How many tokens of a text are used.
    """

    record: SparseEncoderRecord
    tokenizer: Any
    weights: npt.NDArray[np.float32]
    limit: int

    @property
    def vocabulary(self) -> int:
        """Number of components of a vector."""
        return self.record.vocabulary

    def tokenize(self, texts: Sequence[str], role: Role) -> list[list[int]]:
        """Return the token IDs of queries, without special tokens."""
        _require_queries(role)
        prompt = self.record.routes[role].prompt
        found = self.tokenizer.encode_batch([prompt + text for text in texts], add_special_tokens=False)
        return [list(one.ids[: self.limit]) for one in found]

    def count_cut(self, texts: Sequence[str], role: Role) -> int:
        """Return 0: weights that are looked up have no limit worth a message."""
        _require_queries(role)
        return 0

    def encode(self, texts: Sequence[str], role: Role) -> SparseVectors:
        """Return the raw sparse vectors of queries: the weight of each different token."""
        rows = []
        for ids in self.tokenize(texts, role):
            terms = np.unique(np.array(ids, np.int32))
            rows.append((terms[self.weights[terms] != 0], self.weights[terms][self.weights[terms] != 0]))
        return joined_rows(rows)


def open_lookup(store: Store, record: SparseEncoderRecord) -> LookupEncoder | None:
    """Open the query side of an inference-free encoder; None if its files are not those of a plain lookup.

    Raises
    ------
    IntegrityError
        If a file is missing or was changed.
    """
    if not record.routes["query"].inference_free or len(record.routes["query"].modules) != 1:
        return None
    prefix = layout.encoder_model(record.encoder_id)
    if _ROUTER not in record.files:
        return None
    router = fetch_files(store, prefix, {_ROUTER: record.files[_ROUTER]})
    module = _query_module(router / _ROUTER)
    names = [f"{module}/{name}" for name in (_TOKENIZER, _SETTINGS, _WEIGHTS)]
    if module is None or any(name not in record.files for name in names):
        return None
    folder = fetch_files(store, prefix, {name: record.files[name] for name in names}) / module
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError:
        return None
    tokenizer = Tokenizer.from_file(str(folder / _TOKENIZER))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    limit = json.loads((folder / _SETTINGS).read_text(encoding="utf-8")).get("model_max_length")
    weights = safetensors.numpy.load_file(folder / _WEIGHTS).get("weight")
    if weights is None or weights.shape != (record.vocabulary,):
        return None
    return LookupEncoder(record, tokenizer, weights.astype(np.float32), min(int(limit or 2**31), 2**31))


def _query_module(path: Path) -> str | None:
    """Return the folder of the only module of the query route."""
    try:
        modules = json.loads(path.read_text(encoding="utf-8"))["structure"]["query"]
    except (ValueError, KeyError, TypeError):
        return None
    return modules[0] if isinstance(modules, list) and len(modules) == 1 and isinstance(modules[0], str) else None


def _require_queries(role: Role) -> None:
    if role != "query":
        raise EncoderError("this sparse encoder was opened for queries alone: its document side needs the network.")
