"""Static models: a tokenizer and a table with one vector for each token; a text's vector is their mean.

Two libraries write such folders: sentence-transformers (`StaticEmbedding`) and model2vec. Neither adds special tokens.
They differ in what they do with unknown tokens: sentence-transformers keeps them, model2vec drops them. A folder that
model2vec wrote names sentence-transformers' modules too; it is read as model2vec reads it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from isospace.encoding.tokenizer import Tokenizer
from isospace.errors import EncoderError
from isospace.transform.vectors import Float32, Float64

Library = Literal["sentence-transformers", "model2vec"]

# model2vec's own limit where its config.json names none. sentence-transformers has no limit for these models: a mean
# over more tokens says little of any of them, so that chunks get the same one.
DEFAULT_MAX_TOKENS = 512
_FIRST = "StaticEmbedding"
_WEIGHTS = "model.safetensors"
_SAVE = "Save the model again with the library that made it."
_BLOCK = 1024
_DTYPES = ("float32", "float16", "float64", "int8")


@dataclass(frozen=True)
class TokenTable:
    """The vectors of the tokens.

    Attributes
    ----------
    vectors
        (rows, d) in the dtype of the file.
    mapping
        (vocabulary,) row of each token; None if token and row are the same.
    weights
        (vocabulary,) factor of each token's vector; None for 1.
    """

    vectors: npt.NDArray[Any]
    mapping: npt.NDArray[np.int64] | None = None
    weights: npt.NDArray[np.float32] | None = None

    @property
    def size(self) -> int:
        """Number of tokens that have a vector."""
        return len(self.vectors) if self.mapping is None else len(self.mapping)

    @property
    def dimension(self) -> int:
        """Dimensions of a vector (d)."""
        return int(self.vectors.shape[1])

    def rows(self, ids: npt.NDArray[np.integer]) -> Float32:
        """Return the (…, d) float32 vectors of tokens of any shape."""
        rows = self.vectors.take(ids if self.mapping is None else self.mapping.take(ids), axis=0)
        rows = rows.astype(np.float32, copy=False)
        return rows if self.weights is None else rows * self.weights.take(ids)[..., None]

    @cached_property
    def bounds(self) -> Float64:
        """Largest absolute component of the tokens in each dimension, (d,) float64; not finite if one is not."""
        # Without their sign bits, floats are ordered like the integers of the same bits: that is ten times as fast as
        # comparing float16, and NaN and infinity come out largest.
        values, kind = self.vectors, f"u{self.vectors.itemsize}"
        if values.dtype.kind == "f":
            unsigned = np.iinfo(kind).max >> 1
            bits = [(values[start : start + _BLOCK].view(kind) & unsigned).max(axis=0) for start in self._starts()]
            largest: Float64 = np.max(bits, axis=0).view(values.dtype).astype(np.float64)
        else:
            largest = np.abs(values.astype(np.int64)).max(axis=0).astype(np.float64)
        return largest if self.weights is None else largest * float(np.abs(self.weights).max())

    def _starts(self) -> range:
        return range(0, len(self.vectors), _BLOCK)


@dataclass(frozen=True, slots=True)
class StaticModel:
    """A static model, as its folder describes it.

    Attributes
    ----------
    tokenizer
        Its tokenizer as isospace runs it: without special tokens, and with the unknown tokens that the library keeps.
    modules
        Class names, as sentence-transformers names them.
    normalizes
        Whether vectors have unit length.
    max_tokens
        The limit in the model's files: model2vec's `max_length`, or where tokenizer.json truncates, which
        sentence-transformers lets it do. None if they have none.
    prompts, default_prompt_name
        As sentence-transformers stores them.
    """

    table: TokenTable
    tokenizer: Tokenizer
    library: Library
    modules: tuple[str, ...]
    normalizes: bool
    max_tokens: int | None
    prompts: dict[str, str]
    default_prompt_name: str | None


def is_static(folder: Path) -> bool:
    """Tell by its files whether a folder holds a static model."""
    modules = _modules(folder)
    return modules[0][0] == _FIRST if modules else _is_model2vec(_read(folder / "config.json"))


def weights_path(folder: Path) -> Path:
    """Return the path of a static model's table."""
    modules = _modules(folder)
    return (folder / modules[0][1] if modules else folder) / _WEIGHTS


def read_static_model(folder: Path) -> StaticModel:
    """Read a static model with NumPy and the tokenizers package alone.

    Raises
    ------
    EncoderError
        If a file is missing or damaged, the model has another module than StaticEmbedding and Normalize, its table has
        a dtype that NumPy lacks, NaN, infinity, or fewer rows than the tokenizer has tokens, or it truncates vectors.
    """
    modules, config = _modules(folder), _read(folder / "config.json")
    if others := [name for name, _ in modules[1:] if name not in ("Normalize", "Dropout")]:
        raise EncoderError(
            f"model {folder.name}: has the module {others[0]} after StaticEmbedding; expected Normalize or nothing. "
            "Multiply the table by it, and save the model as StaticEmbedding and Normalize."
        )
    settings = _read(folder / "config_sentence_transformers.json")
    if settings.get("truncate_dim"):
        raise EncoderError(
            f"model {folder.name}: is saved with truncate_dim = {settings['truncate_dim']}; raw vectors are never "
            "truncated. Save the model without truncate_dim."
        )
    weights = weights_path(folder)
    library: Library = "model2vec" if _is_model2vec(config) else "sentence-transformers"
    names = tuple(name for name, _ in modules) or (_FIRST,)
    normalizes = "Normalize" in names
    tokenizer = _tokenizer(weights.with_name("tokenizer.json"), drops_unknown=library == "model2vec")
    limit = tokenizer.limit
    if library == "model2vec":
        normalizes = bool(config.get("normalize", False))
        limit = config.get("max_length", DEFAULT_MAX_TOKENS)
        names = (_FIRST, "Normalize") if normalizes else (_FIRST,)
    table = read_table(weights)
    if table.size < tokenizer.size:
        raise EncoderError(
            f"model {folder.name}: its table has vectors for {table.size} tokens, and its tokenizer {tokenizer.size} "
            f"tokens. {_SAVE}"
        )
    prompts, default = settings.get("prompts") or {}, settings.get("default_prompt_name")
    return StaticModel(table, tokenizer, library, names, normalizes, limit, prompts, default)


def read_table(path: Path) -> TokenTable:
    """Read the table of a static model from its safetensors file; see `read_static_model` for what is raised."""
    try:
        with safe_open(path, "numpy") as file:
            names = set(file.keys())
            key = next((name for name in ("embedding.weight", "embeddings") if name in names), None)
            if key is None:
                raise EncoderError(
                    f"{path.parent.name}/{path.name}: holds {', '.join(sorted(names)[:4]) or 'nothing'}; expected "
                    f"embedding.weight or embeddings. {_SAVE}"
                )
            vectors = file.get_tensor(key)
            mapping = file.get_tensor("mapping").astype(np.int64) if "mapping" in names else None
            weights = file.get_tensor("weights").astype(np.float32) if "weights" in names else None
    except (OSError, SafetensorError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise EncoderError(f"model {path.parent.name}: {path.name} cannot be read ({reason}). {_SAVE}") from error
    if vectors.ndim != 2 or vectors.dtype.name not in _DTYPES:
        raise EncoderError(
            f"{path.parent.name}/{path.name}: {key} is {vectors.dtype.name} of the shape {vectors.shape}; expected a "
            f"table of {', '.join(_DTYPES[:-1])}, or {_DTYPES[-1]}. {_SAVE}"
        )
    table = TokenTable(vectors.astype(np.float32) if vectors.dtype == np.float64 else vectors, mapping, weights)
    _require_sound(table, path)
    return table


def _require_sound(table: TokenTable, path: Path) -> None:
    """Refuse a table from which no finite vector can be computed."""
    name = f"{path.parent.name}/{path.name}"
    if table.mapping is not None and not (
        table.mapping.min(initial=0) >= 0 and table.mapping.max(initial=0) < len(table.vectors)
    ):
        raise EncoderError(f"{name}: mapping names rows outside of the {len(table.vectors)} of embeddings. {_SAVE}")
    if table.weights is not None and len(table.weights) != table.size:
        raise EncoderError(
            f"{name}: has {len(table.weights)} weights, expected one for each of {table.size} tokens. {_SAVE}"
        )
    if not table.size or not np.isfinite(table.bounds).all():
        raise EncoderError(f"{name}: the table is empty, or holds NaN or infinity. {_SAVE}")


def _tokenizer(path: Path, *, drops_unknown: bool) -> Tokenizer:
    """Return a tokenizer that adds no special token, whatever its file says: both libraries ask it for none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        processor = content.get("post_processor") or {}
    except (OSError, ValueError, AttributeError) as error:
        raise EncoderError(
            f"model {path.parent.name}: {path.name} cannot be read ({error}); expected the file of a fast tokenizer. "
            f"{_SAVE}"
        ) from error
    # This one changes offsets only.
    if processor.get("type") != "ByteLevel":
        content["post_processor"] = None
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    return Tokenizer(data, drops_unknown=drops_unknown, is_never_empty=True)


def _is_model2vec(config: dict[str, Any]) -> bool:
    return (
        config.get("model_type") == "model2vec"
        or config.get("architectures") == ["StaticModel"]
        # What model2vec saves of a model that was not distilled.
        or "embedding_dtype" in config
    )


def _modules(folder: Path) -> list[tuple[str, str]]:
    """Return the class name and path of each module that modules.json lists."""
    try:
        listed = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        return [(str(one["type"]).rpartition(".")[2], str(one["path"])) for one in listed]
    except (OSError, ValueError, TypeError, KeyError):
        return []


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
