"""What goes wrong between index and query, one injected fault at a time: each is refused, and its stage is named.

The table in docs/faults.md is made here: ISOSPACE_WRITE_DOCS=1 python -m pytest tests/isospace/test_faults.py
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy

from isospace.alias import resolve
from isospace.config import EncoderSpec, PipelineConfig
from isospace.encoder import SentenceEncoder
from isospace.errors import IsospaceError
from isospace.fingerprint import seal, sha256, unseal
from isospace.index import open_index
from isospace.opening import load_space, open_space
from isospace.preparing import prepare_encoder
from isospace.probes import PROBE_TEXTS
from isospace.retrieval.rerank import open_reranker
from isospace.snapshot import latest_manifest
from isospace.space import PARAMS, PROBES, SpaceRecord
from isospace.store import open_store
from tests.conftest import sentences, write_jsonl
from tests.inline import embed_inline
from tests.isospace.service.conftest import serving
from tests.tiny import build_tiny_model

DOCS = Path(__file__).parents[2] / "docs" / "faults.md"
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


@dataclass(frozen=True)
class Fault:
    name: str
    stage: str
    says: str
    inject: Callable[[Path, World], object]


FAULTS: list[Fault] = []


def fault(name: str, stage: str, says: str) -> Callable[[Callable[[Path, World], object]], None]:
    return lambda inject: FAULTS.append(Fault(name, stage, says, inject))


def configuration(folder: Path, model: Path, fit: dict[str, str], count: int) -> PipelineConfig:
    queries = folder / "queries.txt"
    queries.write_text("\n".join(f"gene search {text[:20]}" for text in sentences(60, seed=3).values()))
    recipe = {
        "documents": {"title_column": "title"}, "encoder": {"model": str(model), "prompts": PROMPTS},
        "chunking": {"overlap_tokens": 4},
        "transform": {"fit": fit, "queries": {"file": str(queries)}, "representations": REPRESENTATIONS},
    }  # fmt: skip
    source = write_jsonl(folder / "d.jsonl", sentences(count))
    runtime = {"store": str(folder / "store"), "collection": "c", "source": str(source), "part_documents": 150}
    return PipelineConfig.model_validate({"recipe": recipe, "runtime": runtime})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("faults")
    model = build_tiny_model(folder / "model")
    embed_inline(configuration(folder, model, {"kind": "zscore"}, 320))
    embed_inline(configuration(folder, model, CENTRE, 320))
    config = configuration(folder, model, CENTRE, 310)
    embed_inline(config)
    scratch = open_store(folder / "others")
    shutil.copytree(model, folder / "plain")
    modules = (folder / "plain" / "modules.json").read_text()
    (folder / "plain" / "modules.json").write_text(re.sub(r",\s*\{[^{}]*Normalize[^{}]*\}", "", modules))

    def encoder(path: Path, **given: Any) -> SentenceEncoder:
        return prepare_encoder(scratch, EncoderSpec.model_validate({"model": str(path), "prompts": PROMPTS, **given}))

    return World(
        store=folder / "store",
        other_seed=encoder(build_tiny_model(folder / "seed", seed=7)),
        other_pooling=encoder(build_tiny_model(folder / "cls", pooling="cls")),
        unnormalized=encoder(folder / "plain"),
        shorter=encoder(model, max_tokens=12),
        unprompted=encoder(model, prompts={"query": "", "document": ""}),
    )


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
    """Change parameters or record, mend every hash, and open what came out."""
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
    """Write a segment again, and mend its hash in the manifest."""
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


@fault("the query prompt is forgotten", "tokens", "tokens differ for role query")
def _(copy: Path, world: World) -> object:
    return opened(copy, Prompting.of(honest(copy), query=""))


@fault("the document prompt is forgotten", "tokens", "tokens differ for role document")
def _(copy: Path, world: World) -> object:
    return opened(copy, Prompting.of(honest(copy), document=""))


@fault("the roles are swapped", "tokens", "tokens differ for role document")
def _(copy: Path, world: World) -> object:
    return opened(copy, Prompting.of(honest(copy), query=PROMPTS["document"], document=PROMPTS["query"]))


@fault("both prompts are configured away", "files", "Differing: prompts")
def _(copy: Path, world: World) -> object:
    return opened(copy, world.unprompted)


@fault("another checkpoint of the same architecture", "files", "Differing: files")
def _(copy: Path, world: World) -> object:
    return opened(copy, world.other_seed)


@fault("another checkpoint under the right name", "raw vectors", "raw vectors differ for role document")
def _(copy: Path, world: World) -> object:
    return opened(copy, lying(copy, world.other_seed))


@fault("another pooling", "files", "Differing: files, pooling")
def _(copy: Path, world: World) -> object:
    return opened(copy, world.other_pooling)


@fault("another pooling under the right name", "raw vectors", "raw vectors differ for role document")
def _(copy: Path, world: World) -> object:
    encode = world.other_pooling.encode
    borrowing = type("Borrowing", (SentenceEncoder,), {"encode": lambda _, texts, role: encode(texts, role)})
    encoder = honest(copy)
    return opened(copy, borrowing(encoder.record, encoder.tokenizer, encoder.backend))


@fault("the maximum length is changed", "files", "Differing: max_tokens")
def _(copy: Path, world: World) -> object:
    return opened(copy, world.shorter)


@fault("texts are cut at another length than recorded", "raw vectors", "raw vectors differ for role document")
def _(copy: Path, world: World) -> object:
    encoder = honest(copy)
    cutting = type("Cutting", (SentenceEncoder,), {"tokenize": lambda _, texts, role: encoder.tokenize(texts, role)})
    return opened(copy, cutting(encoder.record, Cut(encoder.tokenizer.data), encoder.backend))


class Cut:
    """A tokenizer that cuts at eight tokens."""

    def __init__(self, data: bytes) -> None:
        from isospace.tokens import Tokenizer

        self.whole = Tokenizer(data)

    def tokens(self, texts: Any, **given: Any) -> Any:
        return self.whole.tokens(texts, **{**given, "limit": 8})


@fault("the model's own normalization is skipped", "raw vectors", "times as long as recorded")
def _(copy: Path, world: World) -> object:
    return opened(copy, lying(copy, world.unnormalized))


@fault("raw vectors lose dimensions", "raw vectors", r"raw vectors have the shape \(\d+, 8\)")
def _(copy: Path, world: World) -> object:
    return opened(copy, Changing.of(honest(copy), lambda vectors: np.ascontiguousarray(vectors[:, :8])))


@fault("raw vectors come in half precision of bfloat16", "raw vectors", "raw vectors differ")
def _(copy: Path, world: World) -> object:
    def coarse(vectors: np.ndarray) -> np.ndarray:
        return (vectors.view(np.uint32) & np.uint32(0xFFF00000)).view(np.float32)

    return opened(copy, Changing.of(honest(copy), coarse))


@fault("raw vectors come in another byte order", "raw vectors", "raw vectors differ")
def _(copy: Path, world: World) -> object:
    def swapped(vectors: np.ndarray) -> np.ndarray:
        return np.nan_to_num(vectors.byteswap().view(np.float32), posinf=0.0, neginf=0.0).clip(-1e30, 1e30)

    return opened(copy, Changing.of(honest(copy), swapped))


@fault("a byte of the tokenizer file is changed", "files", "tokenizer.json: has SHA-256")
def _(copy: Path, world: World) -> object:
    flip(one(copy, "encoders/*/exports/tokenizer/*/tokenizer.json"))
    return opened(copy)


@fault("the tokenizer of another model, hashes mended", "tokens", "tokens differ for role document")
def _(copy: Path, world: World) -> object:
    encoder = honest(copy)
    text = encoder.tokenizer.data.decode().replace('"lowercase":true', '"lowercase":false')
    assert text != encoder.tokenizer.data.decode()
    from isospace.tokens import Tokenizer

    return opened(copy, replace(encoder, tokenizer=Tokenizer(text.encode())))


@fault("a byte of the graph is changed", "files", "graph.bin: has SHA-256")
def _(copy: Path, world: World) -> object:
    flip(one(copy, "encoders/*/exports/openvino/*/graph.bin"))
    return opened(copy)


@fault("the description of the encoder is edited", "files", "encoder.json")
def _(copy: Path, world: World) -> object:
    path = one(copy, f"encoders/{newest(copy).encoder_id}/encoder.json")
    path.write_text(path.read_text().replace("search: ", "Search: "))
    return opened(copy)


@fault("the mean of another space", "transform", "transform differs for role document")
def _(copy: Path, world: World) -> object:
    other = other_arrays(copy)
    return forged_space(copy, lambda arrays, _: arrays.update(offsets=other["offsets"]))


@fault("the matrix of another space", "transform", "transform differs for role document")
def _(copy: Path, world: World) -> object:
    other = other_arrays(copy)
    return forged_space(
        copy, lambda arrays, _: arrays.update(matrix=other["matrix"], row_exponents=other["row_exponents"])
    )


@fault("L2 normalization is skipped", "transform", "transform differs for role document")
def _(copy: Path, world: World) -> object:
    return forged_space(copy, lambda _, record: record["spec"].update(normalization="none"))


@fault("the means of the roles are swapped", "transform", "transform differs for role document")
def _(copy: Path, world: World) -> object:
    return forged_space(copy, lambda arrays, _: arrays.update(offsets=arrays["offsets"][::-1]))


@fault("parameters in another byte order", "transform", "differs|is damaged|differ")
def _(copy: Path, world: World) -> object:
    return forged_space(
        copy, lambda arrays, _: arrays.update(offsets=np.nan_to_num(arrays["offsets"].byteswap()).clip(-1e15, 1e15))
    )


@fault("the scales of int8 are those of another space", "codes", r"codes \(int8\) differs")
def _(copy: Path, world: World) -> object:
    other = other_arrays(copy)
    return forged_space(copy, lambda arrays, _: arrays.update({"int8.scale": other["int8.scale"]}))


@fault("the scales of int8 are taken from the batch at hand", "codes", r"codes \(int8\) differs")
def _(copy: Path, world: World) -> object:
    batch = open_space(open_store(copy), newest(copy).space_id).embed(["the cell", "the gene"], "query")
    return forged_space(
        copy, lambda arrays, _: arrays.update({"int8.scale": np.abs(batch).max(axis=0) / np.float32(127)})
    )


@fault("the codebooks of another space", "codes", r"codes \(pq4\) differs")
def _(copy: Path, world: World) -> object:
    other = other_arrays(copy)
    return forged_space(copy, lambda arrays, _: arrays.update({"pq4.codebooks": other["pq4.codebooks"]}))


@fault("the binary threshold is moved", "codes", r"codes \(binary\) differs")
def _(copy: Path, world: World) -> object:
    return forged_space(
        copy, lambda arrays, _: arrays.update({"binary.threshold": arrays["binary.threshold"] + np.float32(0.2)})
    )


@fault("a byte of the parameters is changed", "files", "params.safetensors")
def _(copy: Path, world: World) -> object:
    flip(copy / "spaces" / newest(copy).space_id / PARAMS)
    return opened(copy)


@fault("the probes of another space", "files", "probes.safetensors")
def _(copy: Path, world: World) -> object:
    first = resolve(open_store(copy), "c", "1").space_id
    shutil.copy(copy / "spaces" / first / PROBES, copy / "spaces" / newest(copy).space_id / PROBES)
    return opened(copy)


@fault("the folder of another space under this name", "files", "has .* bytes, its manifest says|is space|SHA-256")
def _(copy: Path, world: World) -> object:
    first, now = resolve(open_store(copy), "c", "1").space_id, newest(copy).space_id
    shutil.rmtree(copy / "spaces" / now)
    shutil.copytree(copy / "spaces" / first, copy / "spaces" / now)
    return opened(copy)


@fault("the manifest names an older space of the collection", "segments", "field space_id")
def _(copy: Path, world: World) -> object:
    return forge_manifest(copy, space_id=resolve(open_store(copy), "c", "1").space_id)


@fault("a segment of an older space", "segments", "field space_id is")
def _(copy: Path, world: World) -> object:
    first = resolve(open_store(copy), "c", "1").space_id
    named = {b"space_id": first.encode()}
    return forge_segment(copy, lambda table: table.replace_schema_metadata({**table.schema.metadata, **named}))


@fault("the rows of a segment are in another order than its chunks", "segments", "field chunk_id differs")
def _(copy: Path, world: World) -> object:
    return forge_segment(copy, lambda table: table.take(list(range(table.num_rows))[::-1]))


@fault("a segment lacks a representation", "segments", "column int8 is missing")
def _(copy: Path, world: World) -> object:
    return forge_segment(copy, lambda table: table.drop_columns(["int8"]))


@fault("codes of a segment have another width", "segments", "column binary has the type")
def _(copy: Path, world: World) -> object:
    def wider(table: pa.Table) -> pa.Table:
        place = table.column_names.index("binary")
        return table.set_column(place, "binary", pa.array([b"123"] * table.num_rows, pa.binary(3)))

    return forge_segment(copy, wider)


@fault("a snapshot is half written: a segment is missing", "snapshot", "is missing, and a manifest names it")
def _(copy: Path, world: World) -> object:
    (copy / newest(copy).parts[0].segment.path).unlink()
    return opened(copy)


@fault("a snapshot is half written: a segment is cut short", "snapshot", "bytes, its manifest says")
def _(copy: Path, world: World) -> object:
    path = copy / newest(copy).parts[0].segment.path
    path.write_bytes(path.read_bytes()[:-100])
    return opened(copy)


@fault("the list of deletions is lost", "snapshot", "deletions.* is missing")
def _(copy: Path, world: World) -> object:
    manifest = newest(copy)
    assert manifest.deletions is not None
    (copy / manifest.deletions.path).unlink()
    return opened(copy)


@fault("a manifest stands under another number", "snapshot", "not of its place")
def _(copy: Path, world: World) -> object:
    folder = copy / "collections/c/snapshots"
    shutil.copy(folder / "00000001.json", folder / "00000003.json")
    return opened(copy)


@fault("the snapshot that an alias names was replaced", "alias", "The snapshot was replaced")
def _(copy: Path, world: World) -> object:
    return forge_manifest(copy, snapshot_id="0" * 64)


@fault("the lexical index of another snapshot", "lexical index", "was built from other files")
def _(copy: Path, world: World) -> object:
    folder, manifest = copy / "collections/c/lexical", newest(copy)
    first = resolve(open_store(copy), "c", "2")
    shutil.copy(folder / f"{first.snapshot_id}.json", folder / f"{manifest.snapshot_id}.json")
    return opened(copy)


@fault("query vectors of another dimension", "request", r"query vectors have the shape \(1, 8\)")
def _(copy: Path, world: World) -> object:
    return open_index(str(copy), "c").search_vectors(np.ones((1, 8), np.float32))


@fault("query vectors of the space before the refit", "request", "They differ in spec, fitted")
def _(copy: Path, world: World) -> object:
    return asked(copy, "/search", {"query": "x"}, {"X-Isospace-Space": resolve(open_store(copy), "c", "1").space_id})


@fault("an embedding is asked for without its role", "request", "input_type is missing")
def _(copy: Path, world: World) -> object:
    return asked(copy, "/v1/embeddings", {"input": "x", "model": "c"}, {})


@fault("token ids without the role's prompt", "request", "lack what this encoder puts around a query")
def _(copy: Path, world: World) -> object:
    ids = world.unprompted.tokenize(["the cell"], "query")
    return asked(copy, "/v1/embeddings", {"input": ids, "model": "c", "input_type": "query"}, {})


@fault("a query longer than the encoder takes", "request", "Cut it into chunks: nothing is truncated here")
def _(copy: Path, world: World) -> object:
    return asked(copy, "/v1/embeddings", {"input": "word " * 100, "model": "c", "input_type": "query"}, {})


@fault("another reranker than the one that was measured", "reranker", "expected 0000")
def _(copy: Path, world: World) -> object:
    return open_reranker(one(copy, "encoders/*/model/model.safetensors").parent, expected="0" * 64)


def asked(copy: Path, path: str, body: dict[str, Any], headers: dict[str, str]) -> object:
    with serving(open_index(str(copy), "c")) as url:
        answer = httpx.post(url + path, json=body, headers=headers)
    assert answer.status_code in (400, 409)
    raise IsospaceError(answer.json()["error"]["message"])


@pytest.mark.parametrize("injected", FAULTS, ids=[one.name for one in FAULTS])
def test_a_fault_is_refused_and_its_stage_is_named(injected: Fault, world: World, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(world.store, tmp_path / "copy"))
    with pytest.raises(IsospaceError, match=injected.says):
        injected.inject(copy, world)


def test_without_a_fault_everything_opens(world: World) -> None:
    assert len(open_index(str(world.store), "c").search("the cell", 3)[0]) == 3
    assert (
        len(load_space(open_store(world.store), newest(world.store).space_id).probes["texts"]) >= len(PROBE_TEXTS) // 2
    )


def test_the_table_in_the_docs_is_this_one() -> None:
    rows = [f"| {n} | {one.name} | {one.stage} |" for n, one in enumerate(FAULTS, start=1)]
    text = "\n".join([HEAD, "| | fault | refused at |", "| ---: | --- | --- |", *rows, ""])
    if os.environ.get("ISOSPACE_WRITE_DOCS"):
        DOCS.write_text(text, encoding="utf-8")
    assert len(FAULTS) >= 25
    assert DOCS.read_text(encoding="utf-8") == text


HEAD = """# Faults that are refused

Each of these was injected into a sound store, one at a time, hashes mended where somebody could have mended them. Opening the
index, or the request, refused and named the stage. The table is made by `tests/isospace/test_faults.py`, which runs them.
"""
