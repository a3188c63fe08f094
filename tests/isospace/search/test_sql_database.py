from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pytest

from isospace.search.open_index import open_index
from tests.conftest import Configure, sentences, write_jsonl
from tests.helpers.inline import embed_inline


@pytest.mark.parametrize("table_rows", [1_000_000, 10], ids=["table", "view"])
def test_duckdb_alone_finds_what_the_index_finds(configure: Configure, tmp_path: Path, table_rows: int) -> None:
    documents = sentences(120)
    path = write_jsonl(tmp_path / "d.jsonl", documents)
    config = configure(path, runtime={"serving_table_rows": table_rows})
    embed_inline(config)
    documents.pop("d00010")
    write_jsonl(path, documents)
    report = embed_inline(config)
    (database,) = (tmp_path / "store/collections/c/serving").glob(f"{report.snapshot_id}-*.duckdb")
    index = open_index(config.runtime.store, "c")
    query = index.space.embed(["the gene of the search index"], "query")
    expected = index.search_vectors(query, k=15)[0]
    with duckdb.connect(str(database), read_only=True) as connection:
        found = connection.execute("SELECT chunk_id, score, title FROM nearest(?, 15)", [query[0].tolist()]).fetchall()
        meta = dict(connection.execute("SELECT key, value FROM meta").fetchall())
        counted = connection.execute("SELECT count(*), count(DISTINCT doc_id) FROM chunks").fetchone()
        listed = connection.execute("SELECT count(*) FROM documents").fetchone()
        text = connection.execute("SELECT text FROM chunks WHERE doc_id = 'd00011'").fetchone()
        codes = connection.execute('SELECT "int8", "binary" FROM chunks ORDER BY chunk_id').fetchall()
    assert [row[0] for row in found] == [hit.chunk_id for hit in expected]
    assert np.allclose([row[1] for row in found], [hit.score for hit in expected], atol=1e-6)
    assert meta["space_id"] == report.space_id
    assert meta["snapshot_id"] == report.snapshot_id
    assert counted == (119, 119)
    assert listed == (119,)
    assert text == (documents["d00011"],)
    assert {(len(a), len(b)) for a, b in codes} == {(16, 2)}
