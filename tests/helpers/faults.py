"""A world of two snapshots in two spaces, and ways to forge what stands in a store."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.numpy

from isospace.collection.alias import resolve
from isospace.collection.snapshot import latest_manifest
from isospace.encoding.embedder import open_space
from isospace.encoding.encoder import SentenceEncoder
from isospace.errors import IsospaceError
from isospace.pipeline.config import PipelineConfig
from isospace.search.open_index import open_index
from isospace.storage.hashing import seal, sha256, unseal
from isospace.storage.store import open_store
from isospace.transform.space import PARAMS, SpaceRecord
from tests.helpers.documents import sentences, write_jsonl
from tests.helpers.inline import embed_inline
from tests.helpers.serving import serving

CENTRE = {"kind": "center", "means": "by_role"}
REPRESENTATIONS = ["float32", "int8", "binary", {"kind": "pq", "subvectors": 4}]
PROMPTS = {"query": "search: ", "document": "text: "}


@dataclass(frozen=True)
class World:
    """Two snapshots of one collection in two spaces, and models that are not theirs."""

    store: Path
    other_seed: SentenceEncoder
    other_pooling: SentenceEncoder
    unnormalized: SentenceEncoder
    shorter: SentenceEncoder
    unprompted: SentenceEncoder
    windowed: Path
    """The store of a collection whose long texts are encoded in windows."""
    linked: Path
    """The store of a collection whose model has a module in a linked folder."""
    relinked: SentenceEncoder
    """That model after its weights have changed behind the link."""


@dataclass(frozen=True)
class Fault:
    name: str
    stage: str
    says: str
    inject: Callable[[Path, World], object]
    store: Literal["store", "windowed", "linked"] = "store"


FAULTS: list[Fault] = []


def fault(name: str, stage: str, says: str) -> Callable[[Callable[[Path, World], object]], None]:
    return lambda inject: FAULTS.append(Fault(name, stage, says, inject))


def small_configuration(folder: Path, model: Path, encoder: dict[str, Any]) -> PipelineConfig:
    """A collection of few documents, in one space without a fit."""
    folder.mkdir()
    recipe = {"encoder": {"model": str(model), **encoder}, "chunking": {"kind": "none"}}
    source = write_jsonl(folder / "d.jsonl", sentences(30))
    runtime = {"store": str(folder / "store"), "collection": "c", "source": str(source)}
    return PipelineConfig.model_validate({"recipe": recipe, "runtime": runtime})


def configuration(folder: Path, model: Path, fit: dict[str, str], count: int) -> PipelineConfig:
    queries = folder / "queries.txt"
    queries.write_text("\n".join(f"gene search {text[:20]}" for text in sentences(60, seed=3).values()))
    recipe = {
        "documents": {"title_column": "title"},
        "encoder": {"model": str(model), "prompts": PROMPTS},
        "chunking": {"overlap_tokens": 4},
        "transform": {"fit": fit, "queries": {"file": str(queries)}, "representations": REPRESENTATIONS},
    }
    source = write_jsonl(folder / "d.jsonl", sentences(count))
    runtime = {"store": str(folder / "store"), "collection": "c", "source": str(source), "part_documents": 150}
    return PipelineConfig.model_validate({"recipe": recipe, "runtime": runtime})


def grown(copy: Path, world: World, **runtime: Any) -> object:
    """Add documents to a copy of the store, in a run that refuses mixed bits."""
    config = configuration(copy.parent, world.store.parent / "model", CENTRE, 340)
    given = {**config.runtime.model_dump(), "store": str(copy), "mixed_bits": "refuse", **runtime}
    return embed_inline(PipelineConfig.model_validate({"recipe": config.recipe.model_dump(), "runtime": given}))


def newest(copy: Path) -> Any:
    manifest = latest_manifest(open_store(copy), "c")
    assert manifest is not None
    return manifest


def opened(copy: Path, encoder: Any = None) -> object:
    return open_index(str(copy), "c", encoder=encoder)


def honest(copy: Path) -> SentenceEncoder:
    encoder = open_space(open_store(copy), newest(copy).space_id).encoder
    assert isinstance(encoder, SentenceEncoder)
    return encoder


def lying(copy: Path, encoder: SentenceEncoder) -> SentenceEncoder:
    """Another encoder under the name of the right one."""
    return replace(encoder, record=honest(copy).record)


def forged_space(copy: Path, change: Callable[[dict[str, np.ndarray], dict[str, Any]], None]) -> object:
    """Change parameters or record, correct every hash, and open what came out."""
    store, manifest = open_store(copy), newest(copy)
    old = copy / "spaces" / manifest.space_id
    body = unseal((old / "space.json").read_bytes(), name="space.json")
    arrays = safetensors.numpy.load((old / PARAMS).read_bytes())
    change(arrays, body["record"])
    data = safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    body["record"]["params_sha256"] = sha256(data)
    body["space_id"] = SpaceRecord.model_validate(body["record"]).space_id
    new = copy / "spaces" / body["space_id"]
    shutil.copytree(old, new)
    (new / PARAMS).write_bytes(data)
    (new / "space.json").write_bytes(seal(body))
    return open_space(store, body["space_id"])


def other_arrays(copy: Path) -> dict[str, np.ndarray]:
    """The parameters of the first space of the collection."""
    first = resolve(open_store(copy), "c", "1").space_id
    return safetensors.numpy.load((copy / "spaces" / first / PARAMS).read_bytes())


def forge_manifest(copy: Path, **changed: Any) -> object:
    manifest = newest(copy)
    path = copy / "collections/c/snapshots" / f"{manifest.sequence:08d}.json"
    path.write_bytes(seal(manifest.model_copy(update=changed).model_dump(mode="json")))
    return opened(copy)


def forge_segment(copy: Path, change: Callable[[pa.Table], pa.Table]) -> object:
    """Write a segment again, and correct its hash in the manifest."""
    manifest = newest(copy)
    part = manifest.parts[-1]
    pq.write_table(change(pq.read_table(copy / part.segment.path)), copy / part.segment.path)
    data = (copy / part.segment.path).read_bytes()
    ref = part.segment.model_copy(update={"size": len(data), "sha256": sha256(data)})
    return forge_manifest(copy, parts=(*manifest.parts[:-1], part.model_copy(update={"segment": ref})))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def one(copy: Path, pattern: str) -> Path:
    return max(copy.glob(pattern), key=lambda path: path.stat().st_size)


class Prompting(SentenceEncoder):
    """Tokenizes and encodes under other prompts than it says."""

    prompts: dict[str, str] = {}  # noqa: RUF012

    def tokenize(self, texts: Any, role: Any) -> list[list[int]]:
        return self.tokenizer.ids([self.prompts[role] + text for text in texts])

    @classmethod
    def of(cls, encoder: SentenceEncoder, **prompts: str) -> Prompting:
        made = type("Prompted", (cls,), {"prompts": {**PROMPTS, **prompts}})
        return made(encoder.record, encoder.tokenizer, encoder.backend)


class Changing(SentenceEncoder):
    """Does something to its raw vectors."""

    def change(self, vectors: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def encode(self, texts: Any, role: Any) -> Any:
        return self.change(SentenceEncoder.encode(self, texts, role))

    @classmethod
    def of(cls, encoder: SentenceEncoder, change: Callable[[np.ndarray], np.ndarray]) -> Changing:
        made = type("Changed", (cls,), {"change": lambda self, vectors: change(vectors)})
        return made(encoder.record, encoder.tokenizer, encoder.backend)


def asked(copy: Path, path: str, body: dict[str, Any], headers: dict[str, str]) -> object:
    with serving(open_index(str(copy), "c")) as url:
        answer = httpx.post(url + path, json=body, headers=headers)
    assert answer.status_code in (400, 409)
    raise IsospaceError(answer.json()["error"]["message"])
