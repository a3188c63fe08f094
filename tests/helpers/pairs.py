"""Models beside the tiny one, for queries: another tokenizer and other prompts, in the same space or in none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.helpers.tiny import build_tiny_model

PROMPT = "search: "


def query_model(tiny: Path, folder: Path) -> Path:
    """Return a model of the same space: the weights of the tiny one, a tokenizer that keeps case, and a prompt."""
    shutil.copytree(tiny, folder)
    path = next(folder.rglob("tokenizer.json"))
    tokenizer = json.loads(path.read_text())
    tokenizer["normalizer"] = {**tokenizer["normalizer"], "lowercase": False, "strip_accents": False}
    path.write_text(json.dumps(tokenizer))
    settings = json.loads((folder / "config_sentence_transformers.json").read_text())
    settings["prompts"] = {"query": PROMPT, "document": ""}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    return folder


def foreign_model(folder: Path) -> Path:
    """Return a model of the same dimension that shares no space with the tiny one."""
    return build_tiny_model(folder, seed=1)


def save_router(folder: Path, documents: Path, queries: Path) -> Path:
    """Return a Router model of two models, saved by the library itself."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Router

    of = {name: list(SentenceTransformer(str(path), device="cpu")) for name, path in (("d", documents), ("q", queries))}
    router = Router.for_query_document(query_modules=of["q"][:-1], document_modules=of["d"][:-1])
    model = SentenceTransformer(modules=[router, of["d"][-1]], device="cpu", prompts={"query": PROMPT})
    model.save_pretrained(str(folder))
    return folder
