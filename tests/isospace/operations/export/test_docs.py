"""The examples of docs/other-systems.md, run as they stand against the service; only addresses are put in."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from isospace.operations.export.export import export_snapshot
from isospace.search.index import Index
from isospace.search.open_index import open_index
from isospace.search.sql_database import serving_files
from tests.isospace.operations.export.conftest import embed

GUIDE = (Path(__file__).parents[4] / "docs" / "other-systems.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"^##+ ([^\n]*)\n(?:(?!^##).)*?```python\n(.*?)```", GUIDE, re.MULTILINE | re.DOTALL))
QUERY = "how do I restore a snapshot?"


@pytest.fixture(scope="module")
def documentation(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> str:
    folder = tmp_path_factory.mktemp("documentation")
    embed(folder, tiny_model, "documentation", ["float32"])
    return str(folder / "store")


@pytest.fixture
def documented(documentation: str) -> Index:
    return open_index(documentation, "documentation")


@pytest.fixture
def names(documented: Index) -> Iterator[dict[str, Any]]:
    """What the example of the service defines."""
    pytest.importorskip("openai")
    from tests.helpers.serving import serving

    with serving(documented) as url:
        found: dict[str, Any] = {}
        exec(EXAMPLES["Vectors for queries"].replace("http://127.0.0.1:8000", url), found)
        yield found
        found["service"].close()


def printed(index: Index, *, english: bool) -> str:
    hits = index.search(QUERY, 5, mode="exact", filter='lang == "en"' if english else None)[0]
    return "".join(f"{hit.score:.3f}  {hit.title}\n" for hit in hits)


def test_faiss(documented: Index, names: dict[str, Any], tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    export_snapshot(documented, "faiss:exports/documentation")
    exec(EXAMPLES["FAISS"], names)
    assert capsys.readouterr().out == printed(documented, english=False)


def test_lancedb(documented: Index, names: dict[str, Any], tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    export_snapshot(documented, "lancedb:exports/lancedb#documentation")
    exec(EXAMPLES["LanceDB"], names)
    assert capsys.readouterr().out == printed(documented, english=True)


@pytest.mark.filterwarnings("ignore:Local mode performs exact")
def test_qdrant(documented: Index, names: dict[str, Any], tmp_path: Path, capsys: Any) -> None:
    export_snapshot(documented, f"qdrant:{tmp_path}#documentation")
    exec(EXAMPLES["Qdrant"].replace('"http://localhost:6333"', f"path={str(tmp_path)!r}"), names)
    names["client"].close()
    assert capsys.readouterr().out == printed(documented, english=True)


@pytest.mark.integration
def test_postgresql(documented: Index, names: dict[str, Any], capsys: Any) -> None:
    dsn = os.environ.get("ISOSPACE_TEST_POSTGRES")
    if not dsn:
        pytest.skip("needs a server: export ISOSPACE_TEST_POSTGRES=$(.ci/postgres start)")
    import psycopg

    export_snapshot(documented, f"{dsn}#documentation")
    try:
        exec(EXAMPLES["PostgreSQL"].replace("postgresql://me@localhost/db", dsn), names)
        with psycopg.connect(dsn) as connection:
            connection.execute("CREATE INDEX ON documentation USING hnsw (vector vector_ip_ops)")
    finally:
        with psycopg.connect(dsn) as connection:
            connection.execute("DROP TABLE documentation")
    assert capsys.readouterr().out == printed(documented, english=True)


def test_duckdb(documented: Index, names: dict[str, Any], documentation: str, capsys: Any) -> None:
    import duckdb

    def placed(text: str) -> str:
        name = PurePosixPath(serving_files(documented.manifest)[0]).name
        return text.replace("STORE", documentation).replace("SNAPSHOT_ID-FILES.duckdb", name)

    exec(placed(EXAMPLES["DuckDB"]), names)
    assert capsys.readouterr().out == printed(documented, english=False)
    (query,) = re.findall(r"```sql\n(.*?)```", GUIDE, re.DOTALL)
    with duckdb.connect(names["path"], read_only=True) as database:
        rows = database.execute(query).fetchall()
    assert (rows[0][1:], len(rows)) == (("title d00004", "de"), 5)
    assert rows[0][0] == pytest.approx(1, abs=1e-6)


def test_a_service_of_another_space_is_refused(names: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="the export is of space other"):
        names["embed"](QUERY, "other")
