"""Describe a static model as an encoder, and compare it with the library that made it."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import Any

import numpy as np

from isospace.encoding.backends.static import static_backend
from isospace.encoding.encoder import SentenceEncoder
from isospace.encoding.registry.model_loading import own_prompts, require_room, windows_record
from isospace.encoding.registry.record import EncoderRecord, FileRecord
from isospace.encoding.spec import EncoderSpec
from isospace.encoding.static_model import DEFAULT_MAX_TOKENS, StaticModel
from isospace.errors import ConfigError, EncoderError
from isospace.transform.affine import ROLES
from isospace.transform.probe_texts import PROBE_TEXTS, TOKENIZER_TEXTS
from isospace.transform.vectors import Float32, row_cosines

_LOG = logging.getLogger(__name__)
_MAX_TOKENS = 1_000_000


def describe_static(files: dict[str, FileRecord], model: StaticModel, spec: EncoderSpec) -> EncoderRecord:
    """Build the identity of a static model.

    Raises
    ------
    ConfigError
        If the recipe sets what a static model does not have.
    """
    _require_supported(spec)
    # No position limits them, but a limit bounds the length of a chunk.
    limit = spec.max_tokens or model.max_tokens or DEFAULT_MAX_TOKENS
    if limit > _MAX_TOKENS:
        raise ConfigError(f"recipe.encoder.max_tokens = {limit}: expected at most {_MAX_TOKENS}.")
    prompts = spec.prompts.model_dump() if spec.prompts else own_prompts(model)
    require_room(model.tokenizer, prompts, limit)
    return EncoderRecord(
        library=model.library,
        files=files,
        dimension=model.table.dimension,
        max_tokens=limit,
        dtype=model.table.vectors.dtype.name,
        modules=model.modules,
        normalizes=model.normalizes,
        prompts=prompts,
        prompt_tokens={role: 0 for role in ROLES},
        pooling=("mean",),
        windows=windows_record(spec, model.tokenizer, prompts, limit),
    )


def _require_supported(spec: EncoderSpec) -> None:
    if spec.precision != "float32":
        raise ConfigError(
            f"recipe.encoder.precision = {spec.precision}: the model is static, and NumPy computes it from the table "
            "in its files. Leave precision out."
        )
    if spec.pooling not in (None, "mean"):
        raise ConfigError(
            f"recipe.encoder.pooling = {spec.pooling}: a static model is the mean of its token vectors. Leave pooling "
            "out."
        )
    if spec.preset not in ("auto", "none"):
        raise ConfigError(
            f"recipe.encoder.preset = {spec.preset}: presets describe transformers, and the model is static. Leave "
            "preset out."
        )


def static_encoder(record: EncoderRecord, model: StaticModel) -> SentenceEncoder:
    """Return the encoder of a static model that is in memory."""
    backend = static_backend(model.table, limit=record.max_tokens, normalizes=record.normalizes)
    return SentenceEncoder(record, model.tokenizer, backend)


def require_equal_to_library(record: EncoderRecord, model: StaticModel, folder: Path) -> None:
    """Compare the model with what its library computes, if the library is installed; else log that it was not.

    sentence-transformers stands in for model2vec, where it can read the model: of texts without an unknown token, both
    have the same vectors.

    Raises
    ------
    EncoderError
        If a vector differs by more than the encoder's tolerance, or is zero.
    """
    texts = comparable_texts(record, model)
    vectors = static_encoder(record, model).encode(texts, "document")
    if (zero := ~vectors.any(axis=1)).any():
        raise EncoderError(
            f"model {folder.name}: {texts[int(zero.argmax())][:40]!r} has the zero vector, so that no search can find "
            f"it; the table has zeros for its tokens (dtype {record.dtype}). Use the model in float32 or float16."
        )
    theirs, library = _library_vectors(record, model, folder)
    if theirs is None:
        _LOG.warning(
            "model %s: was not compared with what %s computes, since that is not installed",
            folder.name,
            record.library,
        )
        return
    prompted = [record.prompts["document"] + text for text in texts]
    cosines = row_cosines(vectors, theirs(prompted))
    if not cosines.min() >= record.min_cosine:
        worst = int(cosines.argmin())
        raise EncoderError(
            f"model {folder.name}: {texts[worst][:40]!r} has cosine {cosines[worst]:.6f} with what {library} computes, "
            f"expected at least {record.min_cosine}. The folder has a step that isospace does not know. Use another "
            "model."
        )


def comparable_texts(record: EncoderRecord, model: StaticModel) -> list[str]:
    """Return the probe texts that have tokens, no unknown one, and none beyond the limit.

    Of these every library has the same vector; what it cuts depends on more than the model.
    """
    texts = list(dict.fromkeys([*PROBE_TEXTS, *TOKENIZER_TEXTS]))
    prompt = record.prompts["document"]
    counts = model.tokenizer.unknown_counts([prompt + text for text in texts])
    return [
        text
        for text, (unknown, tokens) in zip(texts, counts, strict=True)
        if 0 < tokens <= record.max_tokens and not unknown
    ]


def _library_vectors(record: EncoderRecord, model: StaticModel, folder: Path) -> tuple[Any, str]:
    """Return a function from texts to (n, d) vectors of a library, or None, and the name of the library."""
    if record.library == "model2vec" and importlib.util.find_spec("model2vec") is not None:
        # Optional, and only here: sentence-transformers compares most of what it would.
        Model2Vec = importlib.import_module("model2vec").StaticModel

        loaded = Model2Vec.from_pretrained(folder, max_length=None)
        return lambda texts: np.asarray(loaded.encode(texts), np.float32), "model2vec"
    # It reads no table of integers.
    is_readable = (folder / "modules.json").is_file() and model.table.vectors.dtype.kind == "f"
    if not is_readable or importlib.util.find_spec("sentence_transformers") is None:
        return None, ""
    from isospace.encoding.registry.model_loading import load_sentence_transformer

    transformer = load_sentence_transformer(folder).float()

    def encode(texts: list[str]) -> Float32:
        return np.asarray(transformer.encode(texts, prompt="", show_progress_bar=False), np.float32)

    return encode, "sentence-transformers"
