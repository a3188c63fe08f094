"""Opening: the local copy, without an encoder, and following the alias."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isospace.collection.alias import promote, resolve
from isospace.collection.snapshot import latest_manifest
from isospace.encoding.encoder import SentenceEncoder
from isospace.errors import (
    EncoderError,
    IntegrityError,
    IsospaceError,
    MismatchError,
    NotFoundError,
    QueryError,
    StoreError,
)
from isospace.operations.maintenance.vacuum import vacuum
from isospace.operations.maintenance.verify import verify_snapshot
from isospace.pipeline.config import PipelineConfig
from isospace.search.lexical_files import build_lexical
from isospace.search.lexical_record import lexical_record_path
from isospace.search.open_index import open_index
from isospace.search.spec import LexicalSpec
from isospace.storage.hashing import seal, unseal
from isospace.storage.store import open_store
from tests.conftest import Configure, sentences, write_jsonl
from tests.helpers.earlier_lexical import write_earlier_lexical
from tests.helpers.forking import in_fork
from tests.helpers.inline import embed_inline
from tests.isospace.service.conftest import config_of

QUERY = "the gene of the cell"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("index")
    embed_inline(config_of(folder, tiny_model, documents=sentences(90)))
    embed_inline(config_of(folder, tiny_model, documents=sentences(80)))
    return folder / "store"


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "store"))


def copies(cache: Path) -> list[Path]:
    return sorted((cache / "snapshots").iterdir())


def test_a_copy_is_made_once_and_mapped(store: Path, local_copies: Path) -> None:
    first = open_index(str(store), "c")
    stamps = {path: path.stat().st_mtime_ns for path in copies(local_copies)[0].iterdir()}
    second = open_index(str(store), "c")
    assert {path: path.stat().st_mtime_ns for path in copies(local_copies)[0].iterdir()} == stamps
    assert isinstance(second.view.copy.codes["float32"].array, np.memmap)
    assert first.search(QUERY) == second.search(QUERY)
    assert len(second.chunks) == len(second.vectors) == 80


@pytest.mark.parametrize(
    "name", ["float32.npy", "int8.npy", "chunks.arrow", "documents.arrow", "lexical.rows.npy", "copy.json"]
)
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_copy_is_made_again(store: Path, local_copies: Path, name: str, damage: str) -> None:
    expected = open_index(str(store), "c").search(QUERY, mode="hybrid")
    path = copies(local_copies)[0] / name
    data = bytearray(path.read_bytes())
    match damage:
        case "flip":
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
        case "cut":
            path.write_bytes(data[:-1])
        case "remove":
            path.unlink()
    assert open_index(str(store), "c").search(QUERY, mode="hybrid") == expected
    assert len(copies(local_copies)) == 1


def test_the_copy_of_another_snapshot_in_its_place_is_not_taken(store: Path, local_copies: Path) -> None:
    expected = open_index(str(store), "c", "2").search(QUERY, 90)
    (mine,) = copies(local_copies)
    first = open_index(str(store), "c", "1").search(QUERY, 90)
    (other,) = (path for path in copies(local_copies) if path != mine)
    shutil.rmtree(mine)
    other.rename(mine)
    assert open_index(str(store), "c", "2").search(QUERY, 90) == expected != first


def test_a_process_that_died_while_it_made_a_copy_leaves_nothing_that_is_taken(store: Path, local_copies: Path) -> None:
    code = """
import os, sys
from isospace.search.local import group
from isospace.search.open_index import open_index
group.publish = lambda *_: os._exit(9)
open_index(sys.argv[1], "c")
"""
    done = subprocess.run([sys.executable, "-c", code, str(store)], check=False, capture_output=True)
    assert done.returncode == 9
    assert [path.name.startswith(".making-") for path in copies(local_copies)] == [True]
    assert len(open_index(str(store), "c").vectors) == 80
    old = time.time() - 100_000
    os.utime(copies(local_copies)[0], (old, old))
    open_index(str(store), "c", "1")
    assert not any(path.name.startswith(".making-") for path in copies(local_copies))


def test_two_processes_that_make_the_same_copy_both_open_it(store: Path, local_copies: Path) -> None:
    code = (
        "import sys; from isospace.search.open_index import open_index; "
        "print(len(open_index(sys.argv[1], 'c', encode=False).view.copy))"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(store)], stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    assert [process.communicate()[0].strip() for process in processes] == ["80"] * 4
    assert len(copies(local_copies)) == 1


def test_only_the_latest_copies_of_a_collection_stay(store: Path, tiny_model: Path, local_copies: Path) -> None:
    counts = (90, 80, 70, 60, 50)
    for seed, count in enumerate(counts[2:], start=1):
        embed_inline(config_of(store.parent, tiny_model, documents=sentences(count, seed=seed)))
    indexes = [open_index(str(store), "c", str(n), encode=False) for n in range(1, 6)]
    assert len(copies(local_copies)) == 3
    # Those that are mapped go on to work.
    assert [len(index.vectors.copy()) for index in indexes] == list(counts)


def test_a_cache_that_cannot_be_written_is_named(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ISOSPACE_CACHE", str(tmp_path / "file"))
    with pytest.raises(StoreError, match="ISOSPACE_CACHE"):
        open_index(str(store), "c")


def test_a_full_disk_is_an_error_and_leaves_nothing(
    store: Path, local_copies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StoreError, match="No space left on device"):
        open_index(str(store), "c")
    assert copies(local_copies) == []


def test_a_copy_is_used_where_nothing_can_be_written(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = open_index(str(store), "c").search(QUERY)

    def refused(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    for name in ("note", "make_group"):
        monkeypatch.setattr(f"isospace.search.local.copy.{name}", refused)
    assert open_index(str(store), "c").search(QUERY) == expected


def test_a_copy_that_another_process_has_made_meanwhile_is_kept(
    store: Path, local_copies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from isospace.search.local import group

    write = group.write_group

    def slow(*given: Any) -> Any:
        monkeypatch.setattr(group, "write_group", write)
        open_index(str(store), "c")
        return write(*given)

    monkeypatch.setattr(group, "write_group", slow)
    assert len(open_index(str(store), "c").vectors) == 80
    assert len(copies(local_copies)) == 1


def test_vectors_that_were_kept_are_compared_with_the_space_they_are_of(store: Path) -> None:
    index = open_index(str(store), "c")
    vectors = index.space.embed([QUERY], "query")
    assert index.search_vectors(vectors, 3, space_id=index.space.space_id) == index.search_vectors(vectors, 3)
    with pytest.raises(MismatchError, match="Embed the queries again"):
        index.search_vectors(vectors, 3, space_id="0" * 64)


def test_a_snapshot_without_the_representation_is_a_problem_and_the_old_one_stays(
    tmp_path: Path, tiny_model: Path
) -> None:
    embed_inline(config_of(tmp_path, tiny_model, documents=sentences(40)))
    index = open_index(str(tmp_path / "store"), "c", representation="binary")
    plain = index.search(QUERY, 5, mode="quantized", rescore=0)
    assert plain == index.search(QUERY, 5, mode="quantized", rescore=0, representation="binary")
    embed_inline(config_of(tmp_path, tiny_model, documents=sentences(50), transform={"representations": ["float32"]}))
    with pytest.raises(MismatchError, match="binary"):
        index.refresh()
    assert "binary" in index.problem
    assert index.manifest.sequence == 1


def test_without_an_encoder_vectors_are_searched_and_texts_are_not(store: Path) -> None:
    whole = open_index(str(store), "c")
    bare = open_index(str(store), "c", encode=False)
    raw = whole.space.encode([QUERY], "query")
    expected = whole.search(QUERY, 7)
    assert bare.search_raw(raw, 7) == expected
    assert bare.search_vectors(whole.space.embed([QUERY], "query"), 7) == expected
    assert bare.search(QUERY, 7, mode="lexical") == whole.search(QUERY, 7, mode="lexical")
    with pytest.raises(EncoderError, match="encode=True"):
        bare.search(QUERY)
    with pytest.raises(QueryError, match="needs texts"):
        bare.search_vectors(raw, mode="hybrid")


def test_numpy_and_arrow_alone_are_enough_without_an_encoder(store: Path) -> None:
    code = """
import sys
blocked = (
    *("torch", "tokenizers", "openvino", "sentence_transformers", "faiss", "prefect", "duckdb", "polars", "bm25s"),
    "fastapi",
)
sys.modules.update(dict.fromkeys(blocked))
import numpy as np
from isospace.search.open_index import open_index
from isospace.search.spec import LexicalSpec
from isospace.storage.hashing import seal, unseal
index = open_index(sys.argv[1], "c", encode=False)
hits = index.search_raw(np.load(sys.argv[2]), 5)
print([hit.chunk_id for hit in hits[0]])
"""
    index = open_index(str(store), "c")
    path = store / "raw.npy"
    np.save(path, index.space.encode([QUERY], "query"))
    done = subprocess.run(
        [sys.executable, "-c", code, str(store), str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str([hit.chunk_id for hit in index.search(QUERY, 5)[0]])


def test_searching_text_loads_neither_torch_nor_prefect(store: Path) -> None:
    code = """
import sys
from isospace.search.open_index import open_index
from isospace.search.spec import LexicalSpec
from isospace.storage.hashing import seal, unseal
hits = open_index(sys.argv[1], "c").search("the gene", 3, mode="hybrid")
assert len(hits[0]) == 3
loaded = {"torch", "prefect", "sentence_transformers", "transformers", "duckdb", "polars", "faiss"} & set(sys.modules)
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", code, str(store)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_refresh_follows_the_alias_and_keeps_the_encoder(store: Path) -> None:
    opened = open_store(store)
    index = open_index(opened, "c")
    encoder = index.space.encoder
    assert index.manifest.sequence == 2
    assert not index.refresh()
    promote(opened, "c", "production", resolve(opened, "c", "1"), reason="test")
    assert index.refresh()
    assert index.manifest.sequence == 1
    assert len(index.vectors) == 90
    assert index.space.encoder is encoder


def test_a_snapshot_that_cannot_be_opened_leaves_the_old_one(store: Path, local_copies: Path) -> None:
    opened = open_store(store)
    index = open_index(opened, "c")
    expected = index.search(QUERY)
    broken = resolve(opened, "c", "1")
    path = store / broken.parts[0].segment.path
    data = path.read_bytes()
    path.write_bytes(data[:-1] + b"?")
    promote(opened, "c", "production", broken, reason="test")
    with pytest.raises(IntegrityError, match=path.name):
        index.refresh()
    assert path.name in index.problem
    assert index.search(QUERY) == expected
    path.write_bytes(data)
    assert index.refresh()
    assert index.problem == ""


def test_searches_go_on_while_the_alias_moves_to_and_fro(store: Path) -> None:
    opened = open_store(store)
    index = open_index(opened, "c", watch_seconds=0.02)
    both = [resolve(opened, "c", "1"), resolve(opened, "c", "2")]
    expected = {m.sequence: open_index(opened, "c", str(m.sequence)).search(QUERY, 90) for m in both}
    failures: list[object] = []
    seen: set[int] = set()
    ended = threading.Event()

    def ask() -> None:
        from isospace.search.options import SearchOptions

        while not ended.is_set():
            try:
                answer = index.answer(QUERY, SearchOptions(k=90))
                seen.add(answer.snapshot)
                if answer.hits != expected[answer.snapshot]:
                    failures.append(answer.snapshot)
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for move in range(12):
        promote(opened, "c", "production", both[move % 2], reason="test")
        time.sleep(0.15)
    ended.set()
    for thread in threads:
        thread.join()
    index.close()
    assert failures == []
    assert seen == {1, 2}


def test_a_snapshot_is_opened_from_s3_as_from_a_folder(
    store: Path, local_copies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        import httpx

        httpx.put(f"http://{host}:{port}/bucket").raise_for_status()
        remote = open_store("s3://bucket/prefix")
        for path in store.rglob("*"):
            if path.is_file() and "documents/" not in str(path.relative_to(store)).removeprefix("collections/c/")[:0]:
                remote.write(path.relative_to(store).as_posix(), path.read_bytes())
        found = open_index(remote, "c").search(QUERY, 7, mode="hybrid")
        assert found == open_index(str(store), "c").search(QUERY, 7, mode="hybrid")
    finally:
        server.stop()


def test_empty_collections_open_and_find_nothing(tmp_path: Path, tiny_model: Path) -> None:
    config = config_of(tmp_path, tiny_model, documents=sentences(30))
    embed_inline(config)
    index = open_index(config.runtime.store, "c")
    assert index.search([]) == []
    for mode in ("exact", "quantized", "lexical", "hybrid"):
        assert index.search(QUERY, 3, mode=mode, filter='doc_id == "none"') == [[]]


def test_a_text_that_shares_no_word_is_not_found_by_words(store: Path) -> None:
    index = open_index(str(store), "c")
    assert index.search("xylophone", 5, mode="lexical") == [[]]
    assert index.search("!?", 5, mode="lexical") == [[]]
    assert len(index.search("xylophone", 5, mode="hybrid")[0]) == 5


def test_a_store_without_a_lexical_index_says_so(store: Path) -> None:
    manifest = latest_manifest(open_store(store), "c")
    assert manifest is not None
    (store / lexical_record_path(manifest)).unlink()
    index = open_index(str(store), "c")
    with pytest.raises(QueryError, match="no lexical index"):
        index.search(QUERY, mode="hybrid")
    assert index.search(QUERY)


def test_another_lexical_specification_builds_another_index_and_no_snapshot(tmp_path: Path, tiny_model: Path) -> None:
    config = config_of(tmp_path, tiny_model, documents=sentences(40))
    first = embed_inline(config)
    before = open_index(config.runtime.store, "c").search("genes", 5, mode="lexical")
    again = config_of(tmp_path, tiny_model, documents=sentences(40), lexical={"stemmer": "english"})
    second = embed_inline(again)
    assert second.snapshot == first.snapshot
    assert second.encoded == 0
    index = open_index(config.runtime.store, "c")
    assert before == [[]]
    assert index.search("genes", 5, mode="lexical")[0]
    assert isinstance(index.view.lexical is not None and index.view.lexical.spec.stemmer, str)


def test_the_former_limit_of_chunks_limits_nothing(tmp_path: Path, tiny_model: Path) -> None:
    config = config_of(tmp_path, tiny_model, documents=sentences(40))
    small = config.model_copy(update={"runtime": config.runtime.model_copy(update={"lexical_chunks": 39})})
    assert PipelineConfig.model_validate(small.model_dump(mode="json")) == small
    embed_inline(small)
    store = open_store(config.runtime.store)
    assert verify_snapshot(store, "c").failures == ()
    index = open_index(store, "c")
    assert len(index.view.copy) > 39
    last = index.view.texts([len(index.view.copy) - 1])[0]
    assert index.search(last, mode="lexical")[0][0].text in last


def test_an_index_that_an_earlier_version_left_out_is_built_by_the_next_run(tmp_path: Path, tiny_model: Path) -> None:
    config = config_of(tmp_path, tiny_model, documents=sentences(40))
    embed_inline(config)
    store = open_store(config.runtime.store)
    path = lexical_record_path(resolve(store, "c", "production"))
    store.write(path, seal({"left_out": "40 chunks exceed runtime.lexical_chunks = 39"}))
    assert verify_snapshot(store, "c").failures == ()
    with pytest.raises(QueryError, match="has no lexical index"):
        open_index(store, "c").search(QUERY, mode="lexical")
    embed_inline(config)
    assert open_index(store, "c").search(QUERY, mode="lexical")[0]


def test_a_closed_store_is_an_isospace_error(tmp_path: Path) -> None:
    with pytest.raises(IsospaceError):
        open_index(str(tmp_path / "nothing"), "c")


def test_queries_that_are_none_are_refused(configure: Configure, tmp_path: Path) -> None:
    config = configure(write_jsonl(tmp_path / "d.jsonl", sentences(30)))
    embed_inline(config)
    with open_index(config.runtime.store, "c") as index:
        for wrong in (None, 7, [None], ["a", 3]):
            with pytest.raises(QueryError, match="expected a text, or a list of texts"):
                index.search(wrong)  # type: ignore[arg-type]
        with pytest.raises(QueryError, match="has no direction"):
            index.search_vectors(np.zeros((1, 16), np.float32))
    with pytest.raises(NotFoundError, match="The folder does not exist"):
        open_index(str(tmp_path / "elsewhere"), "c")


def test_an_index_of_the_first_version_answers_as_it_did_until_the_next_run_builds_another(store: Path) -> None:
    opened = open_store(store)
    manifest = resolve(opened, "c", "production")
    first = LexicalSpec(tokenizer=1, pattern=r"(?u)\b\w+\b")
    assert build_lexical(opened, manifest, first)
    path = lexical_record_path(manifest)
    body = unseal(opened.read(path), name=path)
    # As records were before they named a version.
    del body["spec"]["tokenizer"]
    opened.write(path, seal(body))
    lexical = open_index(opened, "c").view.lexical
    assert lexical is not None
    assert lexical.spec == first
    # The ligature is another word to the first version.
    rows, scores = lexical.best("gene", 100)
    assert len(rows)
    assert not len(lexical.best("ｇｅｎｅ", 100)[0])
    assert build_lexical(opened, manifest, LexicalSpec())
    newer = open_index(opened, "c").view.lexical
    assert newer is not None
    assert newer.spec.tokenizer == 3
    assert [array.tolist() for array in newer.best("ｇｅｎｅ", 100)] == [rows.tolist(), scores.tolist()]


def test_a_store_of_an_earlier_version_is_searched_by_words_without_a_run(
    store: Path, local_copies: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened = open_store(store)
    expected = open_index(opened, "c").search(QUERY, 7, mode="lexical")
    path = write_earlier_lexical(opened, resolve(opened, "c", "production"), LexicalSpec())
    # A local copy with the same words would be used.
    shutil.rmtree(local_copies / "snapshots")
    with caplog.at_level("INFO"):
        assert open_index(opened, "c").search(QUERY, 7, mode="lexical") == expected
    assert caplog.text.count("has a lexical index of an earlier version") == 1
    # The local copy has the words now.
    caplog.clear()
    with caplog.at_level("INFO"):
        assert open_index(opened, "c").search(QUERY, 7, mode="lexical") == expected
    assert "earlier version" not in caplog.text
    assert verify_snapshot(opened, "c").failures == ()
    assert build_lexical(opened, resolve(opened, "c", "production"), LexicalSpec())
    assert open_index(opened, "c").search(QUERY, 7, mode="lexical") == expected
    vacuum(opened, tmp_path / "scratch", retention_days=0.0)
    assert not opened.exists(path)
    assert verify_snapshot(opened, "c").failures == ()


def test_a_fork_refuses_to_embed_at_once_and_searches_what_needs_no_model(store: Path) -> None:
    index = open_index(str(store), "c")
    vectors = index.vectors[:2]
    asked: list[Callable[[], object]] = [
        lambda: index.search(QUERY, 3, mode="lexical"),
        lambda: index.search_vectors(vectors, 3),
        lambda: index.search_vectors(vectors, 3, mode="quantized"),
    ]
    for search in asked:
        assert in_fork(search) == str(search())
    index.search(QUERY)
    ids = index.space.encoder.tokenize(["a cell"], "query")
    encoder = index.space.encoder
    assert isinstance(encoder, SentenceEncoder)
    refused: list[Callable[[], object]] = [
        lambda: index.search("a text that is in no cache"),
        lambda: index.search("another", mode="hybrid"),
        lambda: index.space.embed(["a text"], "document"),
        lambda: encoder.encode_ids(ids, "query"),
        index.refresh,
    ]
    for work in refused:
        assert "its fork, process" in in_fork(work)
    # The remedy that the message names.
    assert in_fork(lambda: open_index(str(store), "c").search(QUERY, 3)) == str(index.search(QUERY, 3))


def test_a_fork_does_not_go_on_with_a_snapshot_that_nobody_follows(store: Path) -> None:
    with open_index(str(store), "c", watch_seconds=60) as index:
        assert "its fork, process" in in_fork(lambda: index.search(QUERY, 3, mode="lexical"))
