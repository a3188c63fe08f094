from __future__ import annotations

import threading
from pathlib import Path

import pytest

from isospace.collection.snapshot import sequences
from isospace.errors import IntegrityError, StoreError
from isospace.storage.store import open_store
from tests.conftest import Configure, sentences, write_jsonl

pytestmark = pytest.mark.usefixtures("prefect_server")


def test_a_shard_that_fails_once_is_tried_again(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import isospace.pipeline.encode.workers.pool as workers
    from flows.embed_corpus import embed_corpus

    real, failures = workers.encode_shard, []

    def flaky(run, shard, encoder):
        if not failures:
            failures.append(shard.number)
            raise StoreError("the store failed for a moment")
        return real(run, shard, encoder)

    monkeypatch.setattr(workers, "encode_shard", flaky)
    config = configure(write_jsonl(tmp_path / "d.jsonl", sentences(60)), runtime={"shard_tokens": 500})
    report = embed_corpus(config)
    assert failures
    assert (report.documents, report.encoded) == (60, 60)


def test_a_damaged_file_is_not_tried_again(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import isospace.pipeline.encode.workers.pool as workers
    from flows.embed_corpus import embed_corpus

    attempts = []

    def damaged(run, shard, encoder):
        attempts.append(shard.number)
        raise IntegrityError("damaged")

    monkeypatch.setattr(workers, "encode_shard", damaged)
    config = configure(write_jsonl(tmp_path / "d.jsonl", sentences(10)))
    with pytest.raises(IntegrityError, match="damaged"):
        embed_corpus(config)
    assert attempts == [0]
    assert sequences(open_store(config.runtime.store), "c") == []


def test_a_run_that_loses_the_race_plans_again(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.embed_corpus import embed_corpus
    from isospace.pipeline import publish_stages
    from tests.helpers.inline import embed_inline

    documents = sentences(40)
    config = configure(write_jsonl(tmp_path / "d.jsonl", documents))
    other = configure(write_jsonl(tmp_path / "e.jsonl", documents | sentences(5, seed=3)))
    real, raced = publish_stages.commit_snapshot, []

    def overtaken(run, *arguments):
        if not raced:
            # The run inside this one commits by the same function.
            raced.append(0)
            raced[0] = embed_inline(other).snapshot
        return real(run, *arguments)

    monkeypatch.setattr(publish_stages, "commit_snapshot", overtaken)
    report = embed_corpus(config)
    assert raced == [1]
    assert report.snapshot == 2
    assert sequences(open_store(config.runtime.store), "c") == [1, 2]


def test_a_flow_encodes_the_first_parts_while_others_are_chunked(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import isospace.pipeline.encode.workers.pool as workers
    from flows.embed_corpus import embed_corpus
    from isospace.pipeline import stages
    from isospace.pipeline.encode import waves
    from tests.helpers.inline import embed_inline

    source = write_jsonl(tmp_path / "d.jsonl", sentences(60))
    recipe = {"transform": {"fit": {"kind": "none"}}}
    whole, waved = (
        configure(source, recipe=recipe, runtime={"store": str(tmp_path / name), "part_documents": 10})
        for name in ("whole", "waved")
    )
    expected = embed_inline(whole)
    monkeypatch.setattr(waves, "FIRST_BYTES", 1)
    begun, chunked = threading.Event(), []
    real_encode, real_chunk = workers.encode_shard, stages.write_chunks

    def encode(*arguments):
        begun.set()
        return real_encode(*arguments)

    def chunk(*arguments):
        chunked.append(arguments[1])
        if len(chunked) == 6:
            assert begun.wait(120), "the last part is chunked, and no text is encoded yet"
        return real_chunk(*arguments)

    monkeypatch.setattr(workers, "encode_shard", encode)
    monkeypatch.setattr(stages, "write_chunks", chunk)
    report = embed_corpus(waved)
    assert len(chunked) == 6
    assert (report.snapshot_id, report.encoded, report.tokens) == (
        expected.snapshot_id,
        expected.encoded,
        expected.tokens,
    )
