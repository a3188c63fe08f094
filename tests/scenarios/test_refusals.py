"""One changed byte, a missing file, a space of another model: each refused, with file or field named."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy

from isospace.collection.raw_vectors import read_vectors
from isospace.collection.snapshot import latest_manifest
from isospace.encoding.embedder import load_space, open_space
from isospace.encoding.encoder import SentenceEncoder
from isospace.encoding.registry.register import prepare_encoder
from isospace.encoding.spec import EncoderSpec
from isospace.errors import IntegrityError, IsospaceError, MismatchError, NotFoundError, QueryError
from isospace.operations.maintenance.verify import verify_snapshot
from isospace.search.open_index import open_index
from isospace.storage.hashing import seal, sha256, unseal
from isospace.storage.store import open_store
from isospace.transform.space import PARAMS
from tests.conftest import Configure, sentences, write_jsonl
from tests.helpers.inline import embed_inline
from tests.helpers.tiny import build_tiny_model


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A store with two snapshots, a deletion and a quarantine; copied before it is damaged."""
    from isospace.pipeline.config import PipelineConfig

    folder = tmp_path_factory.mktemp("made")
    documents = sentences(60)
    recipe = {
        "documents": {"title_column": "title"},
        "encoder": {"model": str(tiny_model)},
        "chunking": {"overlap_tokens": 4},
    }
    runtime = {
        "store": str(folder / "store"),
        "collection": "c",
        "source": str(folder / "d.jsonl"),
        "part_documents": 25,
    }
    config = PipelineConfig.model_validate({"recipe": recipe, "runtime": runtime})
    write_jsonl(folder / "d.jsonl", documents)
    embed_inline(config)
    documents.pop("d00004")
    path = write_jsonl(folder / "d.jsonl", documents | {"new": "something new"})
    path.write_text(path.read_text() + '{"doc_id": "blank", "text": ""}\n')
    embed_inline(config)
    return folder / "store"


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


# What no reader of a snapshot trusts: notes of earlier runs, and plans that are checked against the chunks.
# A listing that is damaged counts as none, and so does a kept sample.
IGNORED = ("reports", "plans", "rates.json", "described", "listings", "samples")


def artifacts(store: Path) -> list[str]:
    names = [path.relative_to(store).as_posix() for path in sorted(store.rglob("*")) if path.is_file()]
    return [name for name in names if not any(part in IGNORED for part in name.split("/"))]


def test_every_artifact_notices_one_flipped_byte_and_its_absence(
    made: Path, tmp_path: Path, tiny_encoder: SentenceEncoder
) -> None:
    manifest = latest_manifest(open_store(made), "c")
    assert manifest is not None
    # The serving database and the words of the older snapshot are verified with that snapshot.
    names = [
        name
        for name in artifacts(made)
        if not any(kind in name for kind in ("serving", "lexical")) or manifest.snapshot_id in name
    ]
    # Only the last manifest of the index of raw vectors is read.
    manifests = [name for name in names if "/index/manifests/" in name]
    names = [name for name in names if name not in manifests[:-1]]
    assert len(names) > 25
    copy = Path(shutil.copytree(made, tmp_path / "copy"))
    store = open_store(copy)
    assert verify_snapshot(store, "c").failures == ()
    for name in names:
        path = copy / name
        data = path.read_bytes()
        stem = Path(name).name
        for place in {len(data) // 2, len(data) - 1, 0}:
            damaged = bytearray(data)
            damaged[place] ^= 0x20
            path.write_bytes(damaged)
            assert mentions(store, stem), f"{name}: byte {place} flipped, and nobody noticed"
        path.unlink()
        # The next run draws a reference again where its record is absent.
        redrawn = "/references/" in name and name.endswith(".json")
        gone = redrawn or any(part in name for part in ("/snapshots/", "/aliases/", "vectors/"))
        assert gone or mentions(store, stem), f"{name}: deleted, and nobody noticed"
        path.write_bytes(data)
    assert verify_snapshot(store, "c").failures == ()


def mentions(store, stem: str) -> bool:
    try:
        failures = verify_snapshot(store, "c").failures
    except IsospaceError as error:
        failures = (str(error),)
    return any(stem in failure for failure in failures)


def test_a_flipped_byte_of_raw_vectors_is_noticed_or_without_effect(made: Path, copy: Path) -> None:
    """No manifest names these parts; their content is hashed inside them, so bytes that say nothing may change."""
    path = max((copy / "vectors").rglob("*.parquet"), key=lambda p: p.stat().st_size)
    encoder_id, name = path.parent.parent.name, path.relative_to(copy).as_posix()
    store, data = open_store(copy), path.read_bytes()
    hashes, vectors = read_vectors(store, name, encoder_id)
    noticed = 0
    for place in range(0, len(data), 37):
        damaged = bytearray(data)
        damaged[place] ^= 4
        path.write_bytes(damaged)
        try:
            found, again = read_vectors(store, name, encoder_id)
        except IntegrityError as error:
            noticed += name in str(error)
        else:
            assert found == hashes
            assert again.tobytes() == vectors.tobytes()
    assert noticed > 0.8 * len(range(0, len(data), 37))


@pytest.mark.parametrize("kind", ["chunks", "segments", "deletions", "spaces", "encoders", "snapshots", "aliases"])
def test_opening_refuses_what_it_would_read(copy: Path, kind: str) -> None:
    # The model's own files are read by torch alone, its reference vectors by runs; the default reads the exported
    # graph.
    names = [n for n in artifacts(copy) if kind in n.split("/") and "/model/" not in n and "reference" not in n]
    if kind == "snapshots":
        names = names[-1:]
    refused = 0
    for name in names:
        data = (copy / name).read_bytes()
        damaged = bytearray(data)
        damaged[len(data) // 2] ^= 1
        (copy / name).write_bytes(damaged)
        with pytest.raises(IsospaceError) as caught:
            open_index(str(copy), "c")
        assert Path(name).name in str(caught.value)
        (copy / name).write_bytes(data)
        refused += 1
    assert refused
    open_index(str(copy), "c")


def test_a_deleted_file_is_named(copy: Path) -> None:
    manifest = latest_manifest(open_store(copy), "c")
    assert manifest is not None
    path = manifest.parts[0].segment.path
    (copy / path).unlink()
    with pytest.raises(IntegrityError, match="is missing, and a manifest names it"):
        open_index(str(copy), "c")


def test_damaged_raw_vectors_are_not_transformed_again(
    made: Path, copy: Path, tiny_model: Path, tmp_path: Path
) -> None:
    from isospace.pipeline.config import PipelineConfig

    path = next(p for p in sorted((copy / "vectors").rglob("*.parquet")) if p.stat().st_size > 3000)
    data = bytearray(path.read_bytes())
    data[1500] ^= 1
    path.write_bytes(data)
    recipe = {
        "documents": {"title_column": "title"},
        "encoder": {"model": str(tiny_model)},
        "chunking": {"overlap_tokens": 4},
        "transform": {"fit": {"kind": "center"}},
    }
    runtime = {"store": str(copy), "collection": "c", "source": str(made.parent / "d.jsonl")}
    config = PipelineConfig.model_validate({"recipe": recipe, "runtime": runtime})
    with pytest.raises(IntegrityError, match=path.name):
        embed_inline(config)
    path.unlink()
    report = embed_inline(config)  # what the message says to do
    assert report.committed
    assert report.encoded > 0


def test_another_model_is_refused_and_what_differs_is_named(copy: Path, tmp_path: Path) -> None:
    other = build_tiny_model(tmp_path / "other", seed=7)
    encoder = prepare_encoder(open_store(copy), EncoderSpec(model=str(other)))
    with pytest.raises(MismatchError, match="Differing: files"):
        open_index(str(copy), "c", encoder=encoder)


def test_an_encoder_that_lies_about_its_identity_fails_the_probes(copy: Path, tmp_path: Path) -> None:
    manifest = latest_manifest(open_store(copy), "c")
    assert manifest is not None
    honest = open_space(open_store(copy), manifest.space_id)
    other = build_tiny_model(tmp_path / "other", seed=7)
    loaded = prepare_encoder(open_store(copy), EncoderSpec(model=str(other)))
    liar = replace(loaded, record=honest.encoder.record)
    with pytest.raises(MismatchError, match="raw vectors differ for role document"):
        open_index(str(copy), "c", encoder=liar)


def test_a_forgotten_prompt_fails_at_the_tokens(copy: Path) -> None:
    store = open_store(copy)
    manifest = latest_manifest(store, "c")
    assert manifest is not None
    honest = open_space(store, manifest.space_id)

    class Forgetful(SentenceEncoder):
        def tokenize(self, texts, role):
            return SentenceEncoder.tokenize(self, ["passage: " + text for text in texts], role)

    forgetful = Forgetful(honest.encoder.record, honest.encoder.tokenizer, honest.encoder.backend)  # type: ignore[attr-defined]
    with pytest.raises(MismatchError, match="tokens differ for role document"):
        open_index(store, "c", encoder=forgetful)


def test_changed_parameters_with_matching_hashes_fail_the_probes(copy: Path) -> None:
    """Somebody who rewrites parameters and all hashes still has to reproduce the recorded probes."""
    from isospace.transform.space import SpaceRecord, read_space

    store = open_store(copy)
    manifest = latest_manifest(store, "c")
    assert manifest is not None
    folder = f"spaces/{manifest.space_id}"
    files = {name: store.read(f"{folder}/{name}") for name in ("space.json", PARAMS, "probes.safetensors")}
    arrays = safetensors.numpy.load(files[PARAMS])
    arrays["int8.scale"] = arrays["int8.scale"] * np.float32(1.5)
    files[PARAMS] = safetensors.numpy.save(arrays)
    body = unseal(files["space.json"], name="space.json")
    body["record"]["params_sha256"] = sha256(files[PARAMS])
    body["space_id"] = SpaceRecord.model_validate(body["record"]).space_id
    files["space.json"] = seal(body)
    with pytest.raises(MismatchError, match=r"codes \(int8\) differs"):
        read_space(files, space_id=body["space_id"])


def test_a_segment_of_another_space_is_refused(copy: Path) -> None:
    store = open_store(copy)
    manifest = latest_manifest(store, "c")
    assert manifest is not None
    part = manifest.parts[0]
    table = pq.read_table(copy / part.segment.path)
    entries = {**(table.schema.metadata or {}), b"space_id": b"0" * 64}
    pq.write_table(table.replace_schema_metadata(entries), copy / part.segment.path)
    data = (copy / part.segment.path).read_bytes()
    forged = part.segment.model_copy(update={"size": len(data), "sha256": sha256(data)})
    parts = (part.model_copy(update={"segment": forged}), *manifest.parts[1:])
    changed = manifest.model_copy(update={"parts": parts})
    (copy / "collections/c/snapshots/00000002.json").write_bytes(seal(changed.model_dump(mode="json")))
    with pytest.raises(MismatchError, match="field space_id is 0000000000000000…"):
        open_index(store, "c")


def test_a_manifest_that_names_another_space_is_refused(copy: Path, configure: Configure, tmp_path: Path) -> None:
    store = open_store(copy)
    manifest = latest_manifest(store, "c")
    assert manifest is not None
    path = write_jsonl(tmp_path / "e.jsonl", sentences(30, seed=9))
    other = embed_inline(configure(path, runtime={"store": str(copy), "collection": "other"}))
    changed = manifest.model_copy(update={"space_id": other.space_id})
    (copy / "collections/c/snapshots/00000002.json").write_bytes(seal(changed.model_dump(mode="json")))
    with pytest.raises(MismatchError, match="field space_id"):
        open_index(store, "c")


def test_what_does_not_exist_is_said_with_what_does(copy: Path) -> None:
    with pytest.raises(NotFoundError, match=r"Collections there: c\."):
        open_index(str(copy), "nope")
    with pytest.raises(NotFoundError, match=r"Aliases: production\."):
        open_index(str(copy), "c", "staging")
    with pytest.raises(NotFoundError):
        load_space(open_store(copy), "0" * 64)


@pytest.mark.parametrize(
    ("text", "k", "message"), [("", 3, "not blank"), (" \n", 3, "not blank"), ("x", 0, "expected 1 or more")]
)
def test_a_query_that_cannot_be_answered_is_refused(made: Path, text: str, k: int, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        open_index(str(made), "c").search(text, k)


def test_more_hits_than_chunks_are_all_chunks(made: Path) -> None:
    index = open_index(str(made), "c")
    assert len(index.search("text", 10_000)[0]) == len(index.vectors) == 60


def test_a_representation_the_space_lacks_is_refused(made: Path) -> None:
    with pytest.raises(IsospaceError, match="binary"):
        open_index(str(made), "c", representation="binary")


def test_segments_hold_their_space_and_their_role(made: Path) -> None:
    paths = list((made / "collections/c/segments").rglob("*.parquet"))
    assert paths
    for path in paths:
        metadata = pq.read_schema(path).metadata
        assert metadata[b"space_id"].decode() == path.parent.name
        assert metadata[b"role"] == b"document"
        assert pq.read_schema(path).field("vector").type == pa.list_(pa.float32(), 16)
