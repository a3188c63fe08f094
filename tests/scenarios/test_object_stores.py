"""A collection whose source and store are in a bucket: made, continued, searched, and cleaned, on each service."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from isospace.operations.maintenance.forget import forget
from isospace.operations.maintenance.vacuum import vacuum
from isospace.operations.maintenance.verify import verify_snapshot
from isospace.search.open_index import open_index
from isospace.storage.store import Store, open_store
from tests.conftest import Configure, sentences, write_jsonl
from tests.helpers.inline import embed_inline
from tests.helpers.object_servers import Place, served

pytestmark = pytest.mark.integration

PLAIN = {"chunking": {"include_title": False, "overlap_tokens": 4}}


@pytest.fixture(params=["s3", "gcs", "azure"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with served(request.param) as found:
        yield found


def upload(place: Place, path: str, file: Path) -> None:
    open_store(place.bucket).write(path, file.read_bytes())


def test_a_collection_lives_in_a_bucket(place: Place, configure: Configure, tmp_path: Path) -> None:
    documents = sentences(120)
    path = write_jsonl(tmp_path / "d.jsonl", documents)
    upload(place, "source/d.jsonl", path)
    url = f"{place.bucket}/whole/line"
    config = configure(f"{place.bucket}/source/*.jsonl", recipe=PLAIN, runtime={"store": url})
    first = embed_inline(config)
    assert (first.documents, first.encoded) == (120, 120)
    assert embed_inline(config).committed is False
    assert embed_inline(configure(path, recipe=PLAIN)).snapshot_id == first.snapshot_id
    store = open_store(url)
    assert open_index(url, "c").search(documents["d00042"], k=1)[0][0].doc_id == "d00042"
    assert verify_snapshot(store, "c").failures == ()
    forget(store, "c", ["d00042"], tmp_path, reason="asked to")
    del documents["d00042"]
    upload(place, "source/d.jsonl", write_jsonl(path, documents))
    assert embed_inline(config).committed is False
    vacuum(store, tmp_path, retention_days=0, vectors=True)
    assert verify_snapshot(store, "c").failures == ()
    index = open_index(url, "c")
    assert len(index.search("number", k=200)[0]) == 119
    held = b"".join(store.read(stat.path) for stat in store.walk("") if not stat.path.startswith("encoders/"))
    assert b"number 0 42." not in held


@pytest.mark.parametrize("table", ["csv", "parquet"])
def test_tables_in_a_bucket_are_read(place: Place, configure: Configure, tmp_path: Path, table: str) -> None:
    rows = sentences(20)
    file = tmp_path / f"d.{table}"
    if table == "csv":
        file.write_text("doc_id,text,title\n" + "".join(f"{name},{text},t\n" for name, text in rows.items()))
    else:
        pq.write_table(pa.table({"doc_id": list(rows), "text": list(rows.values()), "title": ["t"] * 20}), file)
    upload(place, f"source/{file.name}", file)
    config = configure(f"{place.bucket}/source", runtime={"store": str(tmp_path / "store")})
    assert embed_inline(config).documents == 20


def test_a_killed_run_is_finished_by_the_next(place: Place, configure: Configure, tmp_path: Path) -> None:
    upload(place, "source/d.jsonl", write_jsonl(tmp_path / "d.jsonl", sentences(400)))
    url = f"{place.bucket}/killed"
    runtime = {"store": url, "shard_tokens": 300}
    config = configure(f"{place.bucket}/source/d.jsonl", recipe=PLAIN, runtime=runtime)
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    store = open_store(url)
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    process = subprocess.Popen([sys.executable, "-m", "isospace.cli", "run", str(file)], env=environment)
    try:
        wait_for_vectors(store, process)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    report = embed_inline(config)
    assert report.committed
    assert report.documents == 400
    assert 0 < report.encoded < 400
    assert verify_snapshot(store, "c").failures == ()


def wait_for_vectors(store: Store, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        assert process.poll() is None, "the run ended before it was killed"
        if any(stat.path.endswith(".parquet") for stat in store.walk("vectors")):
            return
        time.sleep(0.02)
    raise TimeoutError("no vectors were stored")
