"""Small static models, written as sentence-transformers and model2vec write them."""

from __future__ import annotations

import json
import string
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from tests.helpers.tiny import WORDS

_LETTERS = string.ascii_lowercase + string.digits
WORDS_AND_PARTS = ["[UNK]", "[CLS]", "[SEP]", *WORDS, *_LETTERS, *string.punctuation, *(f"##{c}" for c in _LETTERS)]


def tokenizer_json(limit: int | None = None) -> dict:
    """Return a tokenizer whose file adds [CLS] and [SEP], as no static model does, and may truncate."""
    vocabulary = {word: number for number, word in enumerate(WORDS_AND_PARTS)}
    truncation = {"direction": "Right", "max_length": limit, "strategy": "LongestFirst", "stride": 0}
    added = [
        {"id": vocabulary[name], "content": name, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}
        for name in ("[UNK]", "[CLS]", "[SEP]")
    ]  # fmt: skip
    return {
        "version": "1.0",
        "truncation": truncation if limit else None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                       "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]},
        "decoder": None,
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": vocabulary},
    }  # fmt: skip


def random_table(dimension: int = 16, *, seed: int = 0, dtype: str = "float32") -> np.ndarray:
    """Return vectors for the tokens of `tokenizer_json`, of very different lengths."""
    chance = np.random.default_rng(seed)
    table = chance.standard_normal((len(WORDS_AND_PARTS), dimension)) * 10.0 ** chance.uniform(
        -3, 1, (len(WORDS_AND_PARTS), 1)
    )
    return table.astype(dtype)


def write_sentence_transformers(
    folder: Path,
    *,
    table: np.ndarray | None = None,
    subfolder: str = "0_StaticEmbedding",
    modules: tuple[str, ...] = ("Normalize",),
    settings: dict | None = None,
    limit: int | None = None,
) -> Path:
    """Write a `StaticEmbedding` as `SentenceTransformer.save_pretrained` does; return the folder."""
    part = folder / subfolder
    part.mkdir(parents=True, exist_ok=True)
    save_file({"embedding.weight": random_table() if table is None else table}, part / "model.safetensors")
    (part / "tokenizer.json").write_text(json.dumps(tokenizer_json(limit)))
    names = ["StaticEmbedding", *modules]
    paths = [subfolder, *(f"{n}_{name}" for n, name in enumerate(modules, 1))]
    package = "sentence_transformers.models"
    listed = [
        {"idx": n, "name": str(n), "path": path, "type": f"{package}.{name}"}
        for n, (name, path) in enumerate(zip(names, paths, strict=True))
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    if settings is not None:
        (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    return folder


def write_model2vec(
    folder: Path,
    *,
    normalize: bool = True,
    quantized: bool = False,
    table: np.ndarray | None = None,
    **config: object,
) -> Path:
    """Write a model as `StaticModel.save_pretrained` does, with a mapping and weights if quantized."""
    folder.mkdir(parents=True, exist_ok=True)
    vectors = random_table() if table is None else table
    tensors = {"embeddings": vectors}
    if quantized:
        chance = np.random.default_rng(1)
        tensors = {
            "embeddings": np.ascontiguousarray(vectors[:20]),
            "mapping": chance.integers(0, 20, len(vectors)),
            "weights": chance.uniform(0.1, 2.0, len(vectors)),
        }
    save_file(tensors, folder / "model.safetensors")
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json()))
    described = {"model_type": "model2vec", "architectures": ["StaticModel"], "normalize": normalize, **config}
    (folder / "config.json").write_text(json.dumps(described))
    listed = [{"idx": 0, "name": "0", "path": ".", "type": "sentence_transformers.models.StaticEmbedding"}]
    if normalize:
        listed.append({"idx": 1, "name": "1", "path": "1_Normalize", "type": "sentence_transformers.models.Normalize"})
    (folder / "modules.json").write_text(json.dumps(listed))
    return folder
