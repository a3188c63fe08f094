"""Documents and configurations that tests embed."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

from isospace.pipeline.config import PipelineConfig
from tests.helpers.tiny import WORDS


def sentences(count: int, *, seed: int = 0, words: int = 12) -> dict[str, str]:
    """Documents by id; each text is its own."""
    chance = random.Random(seed)
    return {f"d{n:05d}": " ".join([*chance.choices(WORDS, k=words), f"number {seed} {n}."]) for n in range(count)}


def write_jsonl(path: Path, documents: dict[str, str]) -> Path:
    lines = [json.dumps({"doc_id": name, "text": text, "title": f"title {name}"}) for name, text in documents.items()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def configuration(
    model: Path, source: Path | str, store: Path, *, recipe: dict | None = None, runtime: dict | None = None
) -> PipelineConfig:
    """What `configure` builds, for a fixture that outlives a test."""
    base = {
        "documents": {"title_column": "title"},
        "encoder": {"model": str(model)},
        "chunking": {"overlap_tokens": 4},
        "transform": {"representations": ["float32", "int8", "binary", "float16"], "fit": {"kind": "center"}},
    }
    where = {"store": str(store), "collection": "c", "source": str(source), "device": "cpu"}
    return PipelineConfig.model_validate(
        {"recipe": {**base, **(recipe or {})}, "runtime": {**where, "part_documents": 50, **(runtime or {})}}
    )


def copied(config: PipelineConfig, folder: Path) -> PipelineConfig:
    """Copy a store and the source beside it into a folder, for a test that changes them."""
    source, store = Path(str(config.runtime.source)), Path(config.runtime.store)
    shutil.copytree(store.parent, folder, dirs_exist_ok=True)
    where = {"store": str(folder / store.name), "source": str(folder / source.name)}
    return config.model_copy(update={"runtime": config.runtime.model_copy(update=where)})
