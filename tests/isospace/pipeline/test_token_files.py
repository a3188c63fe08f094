"""Kept token IDs save time and change nothing: without them, or if they are damaged, texts are tokenized again."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.numpy

from isospace.collection.vector_files import vector_part_path
from isospace.encoding.encoder import SentenceEncoder
from isospace.encoding.registry.register import prepare_encoder
from isospace.encoding.tokenizer import Tokenizer, Tokens
from isospace.pipeline import token_files
from isospace.pipeline.chunk import write_chunks
from isospace.pipeline.config import PipelineConfig, engine_of
from isospace.pipeline.embed import embed_corpus, plan_run
from isospace.pipeline.encode.plan import plan_shards
from isospace.pipeline.encode.shards import EncodePlan, encode_shard, read_shard
from isospace.pipeline.run import Run, start_run
from isospace.pipeline.scan.diff import scan_source
from isospace.pipeline.token_files import discard_tokens, keep_tokens, kept_tokens, token_file
from isospace.storage.store import open_store
from tests.conftest import Configure, sentences, write_jsonl
from tests.helpers.runs import bare_run, text_hash

TOKENIZER = "t" * 64
TEXTS = ["a", "", "the gene", "of"]
HASHES = [text_hash(text) for text in TEXTS]
IDS = [np.array(ids, np.int32) for ids in ([2, 5, 3], [], [2, 65_535, 9, 3], [2, 7, 3])]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return bare_run(tmp_path)


def found(run: Run, rows: Sequence[int] = (0, 1, 2, 3), tokenizer: str = TOKENIZER) -> list[list[int] | None]:
    kept = kept_tokens(run, "p", tokenizer, rows, [HASHES[row] for row in rows])
    assert all(ids is None or ids.dtype == np.int32 for ids in kept)
    return [None if ids is None else ids.tolist() for ids in kept]


@pytest.mark.parametrize("largest", [65_535, 65_536, 2**31 - 1])
def test_any_rows_come_back_in_any_order(run: Run, largest: int) -> None:
    ids = [*IDS[:2], np.array([2, largest, 9, 3], np.int32), IDS[3]]
    assert keep_tokens(run, "p", TOKENIZER, HASHES, ids)
    assert found(run) == [one.tolist() for one in ids]
    assert found(run, [3, 0, 2]) == [ids[row].tolist() for row in (3, 0, 2)]
    assert found(run, []) == []
    stored = safetensors.numpy.load_file(token_file(run, "p"))["ids"]
    assert stored.itemsize == (2 if largest < 65_536 else 4)


def test_ids_of_another_tokenizer_encoder_text_or_part_are_not_used(run: Run) -> None:
    keep_tokens(run, "p", TOKENIZER, HASHES, IDS)
    assert found(run, tokenizer="u" * 64) == [None] * 4
    assert found(replace(run, encoder_id="f" * 64)) == [None] * 4
    assert kept_tokens(run, "q", TOKENIZER, [0], HASHES[:1]) == [None]
    # Row 1 with the hash of another text; the others stay.
    kept = kept_tokens(run, "p", TOKENIZER, [0, 1], [HASHES[0], HASHES[3]])
    assert [ids is None for ids in kept] == [False, True]


def test_a_damaged_row_is_not_used(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    keep_tokens(run, "p", TOKENIZER, HASHES, IDS)
    path = token_file(run, "p")
    data = bytearray(path.read_bytes())
    place = data.index(np.array([65_535, 9], np.uint16).tobytes())
    data[place + 2] ^= 1
    path.write_bytes(data)
    assert found(run) == [IDS[0].tolist(), [], None, IDS[3].tolist()]
    assert "1 of 4 rows are damaged; their texts are tokenized again" in caplog.text


@pytest.mark.parametrize("damage", ["empty", "cut", "junk", "fewer rows", "no sums", "a folder"])
def test_a_damaged_file_is_not_used(run: Run, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    keep_tokens(run, "p", TOKENIZER, HASHES, IDS)
    path = token_file(run, "p")
    whole = path.read_bytes()
    metadata = {"encoder_id": run.encoder_id, "tokenizer": TOKENIZER}
    arrays = safetensors.numpy.load_file(path)
    path.unlink()
    if damage == "empty":
        path.touch()
    elif damage == "cut":
        path.write_bytes(whole[:-1])
    elif damage == "junk":
        path.write_bytes(b"\x00\xff" * 100)
    elif damage == "fewer rows":
        fewer = {name: array[:2] if name != "ids" else array for name, array in arrays.items()}
        path.write_bytes(safetensors.numpy.save(fewer, metadata=metadata))
    elif damage == "no sums":
        path.write_bytes(safetensors.numpy.save({"ids": arrays["ids"], "ends": arrays["ends"]}, metadata=metadata))
    else:
        path.mkdir()
    assert found(run) == [None] * 4
    assert "cannot be read" in caplog.text


@pytest.mark.parametrize(("free", "kept"), [(0, False), (100, False), (5_000, True)])
def test_a_tenth_of_the_disk_stays_free(run: Run, monkeypatch: pytest.MonkeyPatch, free: int, kept: bool) -> None:
    disk = SimpleNamespace(total=10_000, free=free)
    monkeypatch.setattr(token_files.shutil, "disk_usage", lambda path: disk)
    assert keep_tokens(run, "p", TOKENIZER, HASHES, IDS) == kept
    assert token_file(run, "p").exists() == kept


def test_a_file_of_the_size_of_what_is_left_is_not_kept(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_tokens(run, "p", TOKENIZER, HASHES, IDS)
    size = token_file(run, "p").stat().st_size
    discard_tokens(run)
    for free, kept in ((1_000 + size, True), (999 + size, False)):
        disk = SimpleNamespace(total=10_000, free=free)
        monkeypatch.setattr(token_files.shutil, "disk_usage", lambda path, disk=disk: disk)
        assert keep_tokens(run, "p", TOKENIZER, HASHES, IDS) == kept


def test_a_full_disk_is_only_slower(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(path: Path, data: bytes) -> None:
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    assert not keep_tokens(run, "p", TOKENIZER, HASHES, IDS)
    assert "No space left on device" in caplog.text
    assert list(token_file(run, "p").parent.iterdir()) == []
    assert found(run) == [None] * 4


def test_a_part_without_chunks_has_no_file(run: Run) -> None:
    assert not keep_tokens(run, "p", TOKENIZER, [], [])
    discard_tokens(run)
    assert found(run, []) == []


@dataclass
class Prepared:
    """A run that has cut its documents into chunks."""

    run: Run
    plan: EncodePlan
    encoder: SentenceEncoder
    parts: list[str]

    def encode(self) -> list[bytes]:
        """Encode all shards; return the files of raw vectors."""
        paths = [vector_part_path(self.run.encoder_id, shard.shard_id) for shard in self.plan.shards]
        for shard, path in zip(self.plan.shards, paths, strict=True):
            self.run.store.delete(path)
            encode_shard(self.run, shard, self.encoder)
        return [self.run.store.read(path) for path in paths]


def prepare(config: PipelineConfig, scratch: Path) -> Prepared:
    scratch.mkdir()
    encoder = prepare_encoder(open_store(config.runtime.store), config.recipe.encoder, engine_of(config.runtime))
    assert isinstance(encoder, SentenceEncoder)
    run = start_run(config, encoder.record, scratch)
    parts = [write_chunks(run, documents, encoder.counter()) for documents in scan_source(run).parts]
    plan = plan_shards(run, parts, limit=encoder.record.longest)
    return Prepared(run, plan, encoder, [part.name for part in parts])


@pytest.fixture
def prepared(configure: Configure, encoder_store: Path, tmp_path: Path) -> Prepared:
    shutil.copytree(encoder_store, tmp_path / "store")
    source = write_jsonl(tmp_path / "d.jsonl", sentences(60))
    config = configure(source, runtime={"shard_tokens": 600, "part_documents": 25})
    return prepare(config, tmp_path / "scratch")


def asked(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which each text is added that the encoder tokenizes."""
    texts: list[str] = []
    original = Tokenizer.tokens

    def noted(self: Tokenizer, given: Sequence[str], **options: object) -> list[Tokens]:
        texts.extend(given)
        return original(self, given, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Tokenizer, "tokens", noted)
    return texts


def test_no_text_of_a_run_is_tokenized_again_and_the_vectors_have_the_same_bits(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(prepared.parts) == 3
    assert len(prepared.plan.shards) > 2
    texts = asked(prepared, monkeypatch)
    # What computes the vectors is found out with the probes, which are tokenized.
    prepared.encode()
    texts.clear()
    kept = prepared.encode()
    assert texts == []
    token_file(prepared.run, prepared.parts[1]).write_bytes(b"junk")
    assert prepared.encode() == kept
    assert 0 < len(texts) < prepared.plan.to_encode
    discard_tokens(prepared.run)
    texts.clear()
    assert prepared.encode() == kept
    assert len(texts) == prepared.plan.to_encode


def test_ids_of_a_shard_are_those_of_its_texts(prepared: Prepared) -> None:
    digest = prepared.encoder.tokenizer.digest
    for shard in prepared.plan.shards:
        read = read_shard(prepared.run, shard, digest)
        assert [ids.tolist() for ids in read.ids if ids is not None] == prepared.encoder.tokenize(
            read.texts, "document"
        )
        assert read_shard(prepared.run, shard).ids == [None] * shard.chunks


def test_a_part_that_an_earlier_run_cut_has_no_ids_and_the_same_vectors(prepared: Prepared, tmp_path: Path) -> None:
    kept = prepared.encode()
    for shard in prepared.plan.shards:
        prepared.run.store.delete(vector_part_path(prepared.run.encoder_id, shard.shard_id))
    again = prepare(prepared.run.config, tmp_path / "again")
    assert not (again.run.scratch / "tokens").exists()
    assert again.encode() == kept


def test_a_dry_run_keeps_none(configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configure(write_jsonl(tmp_path / "d.jsonl", sentences(5)))
    monkeypatch.setattr("isospace.pipeline.chunk.keep_tokens", None)
    assert plan_run(config).describe()


def test_a_run_removes_them_once_it_has_encoded(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders: list[Path] = []
    original = token_files.discard_tokens

    def noted(run: Run) -> None:
        folders.append(token_file(run, "p").parent)
        assert len(list(folders[0].iterdir())) == 1
        original(run)
        assert not folders[0].exists()

    monkeypatch.setattr("isospace.pipeline.embed.discard_tokens", noted)
    embed_corpus(configure(write_jsonl(tmp_path / "d.jsonl", sentences(30))))
    assert len(folders) == 1
    # Token IDs tell the text of documents, and are never in the store.
    assert not list((tmp_path / "store").rglob("tokens*"))
