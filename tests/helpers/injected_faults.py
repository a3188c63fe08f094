"""What goes wrong between index and query, one fault at a time."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa

from isospace.collection.alias import resolve
from isospace.encoding.embedder import open_space
from isospace.encoding.encoder import SentenceEncoder
from isospace.search.lexical_record import lexical_record_path
from isospace.search.open_index import open_index
from isospace.search.reranker import open_reranker
from isospace.storage.store import open_store
from isospace.transform.space import PARAMS, PROBES
from tests.helpers.faults import (
    FAULTS,
    PROMPTS,
    Changing,
    Prompting,
    World,
    asked,
    fault,
    flip,
    forge_manifest,
    forge_segment,
    forged_space,
    grown,
    honest,
    lying,
    newest,
    one,
    opened,
    other_arrays,
)


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


@fault("every text is cut at eight tokens", "truncation", "truncation differs for role document")
def _(copy: Path, world: World) -> object:
    encoder = honest(copy)
    cutting = type("Cutting", (SentenceEncoder,), {"tokenize": lambda _, texts, role: encoder.tokenize(texts, role)})
    return opened(copy, cutting(encoder.record, Cut(encoder.tokenizer.data), encoder.backend))


class Cut:
    """A tokenizer that cuts at eight tokens."""

    def __init__(self, data: bytes) -> None:
        from isospace.encoding.tokenizer import Tokenizer

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


@fault("the tokenizer of another model, hashes corrected", "tokens", "tokens differ for role document")
def _(copy: Path, world: World) -> object:
    encoder = honest(copy)
    text = encoder.tokenizer.data.decode().replace('"lowercase":true', '"lowercase":false')
    assert text != encoder.tokenizer.data.decode()
    from isospace.encoding.tokenizer import Tokenizer

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


@fault("the rows of a segment are in another order than its chunks", "segments", "its chunk_id column differs")
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


@fault("a manifest stands under another number", "snapshot", "does not match its path")
def _(copy: Path, world: World) -> object:
    folder = copy / "collections/c/snapshots"
    shutil.copy(folder / "00000001.json", folder / "00000003.json")
    return opened(copy)


@fault("the snapshot that an alias names was replaced", "alias", "The snapshot was replaced")
def _(copy: Path, world: World) -> object:
    return forge_manifest(copy, snapshot_id="0" * 64)


@fault("the lexical index of another snapshot", "lexical index", "was built from other files")
def _(copy: Path, world: World) -> object:
    first = resolve(open_store(copy), "c", "2")
    shutil.copy(copy / lexical_record_path(first), copy / lexical_record_path(newest(copy)))
    return opened(copy)


@fault("query vectors of another dimension", "request", r"query vectors have the shape \(1, 8\)")
def _(copy: Path, world: World) -> object:
    return open_index(str(copy), "c").search_vectors(np.ones((1, 8), np.float32))


@fault("kept query vectors of the space before the refit", "request", "Embed the queries again")
def _(copy: Path, world: World) -> object:
    before, now = (open_index(str(copy), "c", alias) for alias in ("1", "production"))
    vectors = before.space.embed(["the cell"], "query")
    return now.search_vectors(vectors, space_id=before.space.space_id)


@fault("a client that expects the space before the refit", "request", "They differ in spec, fitted")
def _(copy: Path, world: World) -> object:
    return asked(copy, "/search", {"query": "x"}, {"X-Isospace-Space": resolve(open_store(copy), "c", "1").space_id})


@fault("an embedding is asked for without its role", "request", "input_type is missing")
def _(copy: Path, world: World) -> object:
    return asked(copy, "/v1/embeddings", {"input": "x", "model": "c"}, {})


@fault("token ids without the role's prompt", "request", "lack what this encoder puts around a query")
def _(copy: Path, world: World) -> object:
    ids = world.unprompted.tokenize(["the cell"], "query")
    return asked(copy, "/v1/embeddings", {"input": ids, "model": "c", "input_type": "query"}, {})


@fault("a query longer than the encoder takes", "request", "Split it into chunks: texts are never truncated")
def _(copy: Path, world: World) -> object:
    return asked(copy, "/v1/embeddings", {"input": "word " * 100, "model": "c", "input_type": "query"}, {})


@fault("another reranker than the one that was measured", "reranker", "expected 0000")
def _(copy: Path, world: World) -> object:
    return open_reranker(one(copy, "encoders/*/model/model.safetensors").parent, expected="0" * 64)


@fault("vectors of another engine", "raw vectors of a run", r"come from openvino.*this run computes with torch")
def _(copy: Path, world: World) -> object:
    return grown(copy, world, backend="torch")


@fault("vectors of another instruction set", "raw vectors of a run", r"come from openvino.*ONEDNN_MAX_CPU_ISA=AVX")
def _(copy: Path, world: World) -> object:
    # A process of its own, which reads the setting when it loads the engine; AVX, since every x86 processor has more.
    with patch.dict(os.environ, {"ONEDNN_MAX_CPU_ISA": "AVX"}):
        return grown(copy, world, backend="openvino", workers={"kind": "processes", "count": 1})


INJECTED = tuple(FAULTS)
