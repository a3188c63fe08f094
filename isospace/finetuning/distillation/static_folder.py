"""Write a static model as sentence-transformers does, without that library."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import safetensors.numpy

from isospace.encoding.tokenizer import Tokenizer
from isospace.transform.vectors import Float32

_PACKAGE = "sentence_transformers.models"


def write_static_folder(
    folder: Path, table: Float32, tokenizer: Tokenizer, *, normalizes: bool, description: str
) -> Path:
    """Write table and tokenizer as `StaticEmbedding`, with `Normalize` if vectors have unit length.

    Parameters
    ----------
    table
        (vocabulary, d) float32.
    description
        Markdown for the model card.
    """
    part = folder / "0_StaticEmbedding"
    part.mkdir(parents=True, exist_ok=True)
    safetensors.numpy.save_file({"embedding.weight": np.ascontiguousarray(table)}, part / "model.safetensors")
    (part / "tokenizer.json").write_bytes(tokenizer.data)
    names = ["StaticEmbedding", *(["Normalize"] if normalizes else [])]
    modules = [
        {"idx": number, "name": str(number), "path": f"{number}_{name}", "type": f"{_PACKAGE}.{name}"}
        for number, name in enumerate(names)
    ]
    settings: dict[str, object] = {
        "model_type": "SentenceTransformer",
        "prompts": {},
        "default_prompt_name": None,
        "similarity_fn_name": "cosine",
    }
    _write_json(folder / "modules.json", modules)
    _write_json(folder / "config_sentence_transformers.json", settings)
    (folder / "README.md").write_text(description, encoding="utf-8")
    return folder


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
