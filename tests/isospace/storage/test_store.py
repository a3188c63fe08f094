"""The whole line on a server that speaks S3, and what a local folder does that cannot be written to.

What both promise is in tests/isospace/store.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from isospace.errors import ConfigError, StoreError
from isospace.operations.maintenance.verify import verify_snapshot
from isospace.search.index import open_index
from isospace.storage.store import open_store
from tests.conftest import Configure, sentences, write_jsonl
from tests.helpers.inline import embed_inline
from tests.helpers.object_servers import BUCKET, s3_server


@pytest.fixture
def s3_bucket() -> Iterator[str]:
    with s3_server():
        yield BUCKET


@pytest.mark.integration
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
    def full(_: object) -> None:
        Path("/dev/full").write_bytes(b"x")

    open_store(tmp_path).write("a/before", b"data")
    monkeypatch.setattr("isospace.storage.local_files.os.fsync", full)
    for path in ("a/b", "c/d"):
        with pytest.raises(StoreError, match="No space left on device"):
            open_store(tmp_path).write(path, b"data")
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["before"]


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
