"""The same promises on a local folder and on a server that speaks S3."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from isospace.errors import ConfigError, ConflictError, NotFoundError, StoreError
from isospace.index import open_index
from isospace.store import Store, open_store
from isospace.verify import verify_snapshot
from tests.conftest import Configure, sentences, write_jsonl
from tests.inline import embed_inline


@pytest.fixture(scope="module")
def s3_bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import boto3
        from moto.server import ThreadedMotoServer

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port)
    server.start()
    settings = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "ISOSPACE_CACHE": str(tmp_path_factory.mktemp("cache")),
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        boto3.client("s3").create_bucket(Bucket="bucket")
    yield "s3://bucket"
    server.stop()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return open_store(tmp_path / "store")
    return open_store(f"{request.getfixturevalue('s3_bucket')}/{tmp_path.name}")


def test_what_is_written_is_read(store: Store) -> None:
    store.write("a/b.bin", b"one")
    store.write("a/b.bin", b"other")
    assert store.read("a/b.bin") == b"other"
    assert store.size("a/b.bin") == 5
    assert store.exists("a/b.bin")
    assert not store.exists("a/c.bin")
    assert [stat.path for stat in store.walk("a")] == ["a/b.bin"]
    store.write("a/c/d.bin", b"x")
    assert store.folders("a") == ["c"]
    assert store.folders("nowhere") == []
    store.delete("a/c/d.bin")
    store.delete("a/b.bin")
    store.delete("a/b.bin")
    with pytest.raises(NotFoundError, match=r"a/b\.bin"):
        store.read("a/b.bin")


def test_of_many_that_create_one_file_one_wins(store: Store) -> None:
    def attempt(number: int) -> int | None:
        try:
            store.create("race/1.json", str(number).encode())
        except ConflictError:
            return None
        return number

    with ThreadPoolExecutor(16) as pool:
        winners = [n for n in pool.map(attempt, range(16)) if n is not None]
    assert len(winners) == 1
    assert store.read("race/1.json") == str(winners[0]).encode()
    assert [stat.path for stat in store.walk("race")] == ["race/1.json"]


def test_the_whole_line_on_an_object_store(s3_bucket: str, configure: Configure, tmp_path: Path) -> None:
    documents = sentences(120)
    path = write_jsonl(tmp_path / "d.jsonl", documents)
    url = f"{s3_bucket}/whole/line"
    open_store(s3_bucket).write("source/d.jsonl", path.read_bytes())
    plain = {"chunking": {"include_title": False, "overlap_tokens": 4}}
    config = configure("s3://bucket/source/*.jsonl", recipe=plain, runtime={"store": url})
    first = embed_inline(config)
    assert (first.documents, first.encoded) == (120, 120)
    assert embed_inline(config).committed is False
    local = embed_inline(configure(path, recipe=plain))
    assert local.snapshot_id == first.snapshot_id
    index = open_index(url, "c")
    hits = index.search(documents["d00042"], k=1)[0]
    assert hits[0].doc_id == "d00042"
    assert verify_snapshot(open_store(url), "c").failures == ()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import isospace.store as module

    def full(_: object) -> None:
        Path("/dev/full").write_bytes(b"x")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(StoreError, match="No space left on device"):
        open_store(tmp_path).write("a/b", b"data")
    assert list((tmp_path / "a").iterdir()) == []


def test_a_folder_that_is_a_file_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError):
        open_store(tmp_path / "file").write("a", b"")


def test_other_schemes_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown scheme"):
        open_store("gopher://host/x")


def test_leftovers_of_killed_writes_are_never_listed(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.write("a/b", b"x")
    (tmp_path / "a" / ".tmp-1-abc").write_bytes(b"half")
    assert [stat.path for stat in store.walk("a")] == ["a/b"]
