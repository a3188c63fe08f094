"""Runs without a model: a configuration, a store, and the parts that stages hand on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from isospace.collection.snapshot import Manifest
from isospace.pipeline.chunk import CHUNK_SCHEMA, ChunkPart
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.run import Run
from isospace.storage.parquet import write_parquet
from isospace.storage.paths import CollectionPaths
from isospace.storage.store import open_store

ENCODER_ID, CHUNKING_ID = "e" * 64, "c" * 64


def bare_config(folder: Path, *, recipe: Mapping[str, Any] | None = None, **runtime: Any) -> PipelineConfig:
    """Return a configuration whose model is never loaded; the source is d.jsonl in the folder."""
    where = {"store": str(folder / "store"), "collection": "c", "source": str(folder / "d.jsonl")}
    base = {"encoder": {"model": "none"}, "transform": {"representations": ["float32", "int8"]}}
    return PipelineConfig.model_validate({"recipe": {**base, **(recipe or {})}, "runtime": {**where, **runtime}})


def bare_run(
    folder: Path, *, config: PipelineConfig | None = None, base: Manifest | None = None, **changes: Any
) -> Run:
    """Return a run on top of a snapshot, which has to be in the store."""
    used = config or bare_config(folder)
    given: dict[str, Any] = {
        "run_id": "this run",
        "config": used,
        "encoder_id": ENCODER_ID,
        "chunking_id": CHUNKING_ID,
        "base_sequence": base.sequence if base else None,
        "space_id": None,
        "rebuild": base is None,
        "damaged": (),
        "scratch": folder / "scratch",
        "work": used.runtime.store,
        "transform": used.recipe.transform,
        "tombstones": 0,
    }
    (folder / "scratch").mkdir(exist_ok=True)
    return Run(**{**given, **changes})


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def text_hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def write_chunk_part(run: Run, name: str, texts: Iterable[str], *, tokens: int = 10, prefix: str = "") -> ChunkPart:
    """Write chunks of one document each, all of the same number of tokens, and a file in place of the documents."""
    store, paths = open_store(run.work), CollectionPaths(run.collection)
    rows = [
        {
            "chunk_id": f"{name}{n}", "doc_id": f"{name}{n}", "uri": "u", "title": "", "start": 0, "end": len(text),
            "n_tokens": tokens, "prefix": prefix, "text": text, "chunk_hash": text_hash(prefix + text),
        }
        for n, text in enumerate(texts)
    ]  # fmt: skip
    chunks = write_parquet(store, paths.chunks(name), pa.Table.from_pylist(rows, CHUNK_SCHEMA))
    named = pa.table({"doc_id": [row["doc_id"] for row in rows], "metadata": ["{}" for _ in rows]})
    documents = write_parquet(store, paths.documents(name), named)
    return ChunkPart(name, documents, chunks, 0, 0)
