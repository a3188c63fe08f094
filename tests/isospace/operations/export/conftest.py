"""Two small collections, and each system as its own client searches it."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isospace.pipeline.config import PipelineConfig
from isospace.search.index import Index
from isospace.search.open_index import open_index
from tests.conftest import sentences
from tests.helpers.inline import embed_inline

Found = list[dict[str, Any]]
SYSTEMS = ("faiss", "lancedb", "qdrant", pytest.param("postgresql", marks=pytest.mark.integration))
QUERY = "the protein of the cell"
COUNT = 120


@dataclass(frozen=True)
class Target:
    """A free place in one system, and how its own client searches there: rows with `score`, best first."""

    system: str
    url: str
    search: Callable[[np.ndarray, int], Found]


def embed(folder: Path, model: Path, collection: str, representations: list[Any], **transform: Any) -> None:
    """Embed documents with metadata; one has what JSON and SQL stumble over."""
    rows = [
        {"doc_id": doc_id, "text": text, "title": f"title {doc_id}", "lang": "en" if n % 2 else "de", "year": n}
        for n, (doc_id, text) in enumerate(sentences(COUNT).items())
    ]
    rows[7] |= {
        "text": 'the cell\'s "protein"\t\\ Grüße \U0001f9ec',
        "lang": "\"\\u0000\x00'",
        "year": float("nan"),
    }
    source = folder / "d.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {
        "documents": {"title_column": "title", "metadata_columns": ["lang", "year"]},
        "encoder": {"model": str(model)},
        "chunking": {"overlap_tokens": 4},
        "transform": {"representations": representations, "fit": {"kind": "center"}, **transform},
    }
    runtime = {"store": str(folder / "store"), "collection": collection, "source": str(source), "part_documents": 50}
    embed_inline(PipelineConfig.model_validate({"recipe": recipe, "runtime": runtime}))


@pytest.fixture(scope="session")
def exported_store(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> str:
    folder = tmp_path_factory.mktemp("exported")
    embed(folder, tiny_model, "floats", ["float32", "int8"])
    embed(folder, tiny_model, "halves", ["int8", "float16"])
    embed(folder, tiny_model, "codes", [{"kind": "short", "dimensions": 4}, "int8"], normalization="none")
    return str(folder / "store")


@pytest.fixture
def index(exported_store: str) -> Index:
    return open_index(exported_store, "floats")


@pytest.fixture
def other(exported_store: str) -> Index:
    return open_index(exported_store, "codes")


@pytest.fixture(params=SYSTEMS)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    return request.getfixturevalue(request.param)


@pytest.fixture
def faiss(tmp_path: Path) -> Target:
    return Target("faiss", f"faiss:{tmp_path / 'export'}", lambda *asked: search_faiss(tmp_path / "export", *asked))


@pytest.fixture
def lancedb(tmp_path: Path) -> Target:
    return Target(
        "lancedb", f"lancedb:{tmp_path / 'export'}#t", lambda *asked: search_lancedb(tmp_path / "export", *asked)
    )


@pytest.fixture
def qdrant(tmp_path: Path) -> Target:
    return Target(
        "qdrant", f"qdrant:{tmp_path / 'export'}#t", lambda *asked: search_qdrant(tmp_path / "export", *asked)
    )


@pytest.fixture
def postgresql() -> Iterator[Target]:
    """A schema of its own, whose name and table have to be quoted."""
    import psycopg

    dsn = os.environ.get("ISOSPACE_TEST_POSTGRES")
    if not dsn:
        pytest.skip("needs a server: export ISOSPACE_TEST_POSTGRES=$(.ci/postgres start)")
    schema = f'Te"st {secrets.token_hex(4)}'
    quoted = '"' + schema.replace('"', '""') + '"'
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {quoted}")
        yield Target("postgresql", f"{dsn}#{schema}.ta'b\"le; x", lambda *asked: search_postgres(dsn, quoted, *asked))
        connection.execute(f"DROP SCHEMA {quoted} CASCADE")


def search_faiss(folder: Path, vector: np.ndarray, k: int) -> Found:
    import faiss
    import pyarrow.parquet as pq

    scores, places = faiss.read_index(str(folder / "index.faiss")).search(vector[None], k)
    rows = pq.read_table(folder / "rows.parquet").take(places[0]).to_pylist()
    return [
        {**row, "metadata": json.loads(row["metadata"]), "score": float(score)}
        for row, score in zip(rows, scores[0], strict=True)
    ]


def search_lancedb(folder: Path, vector: np.ndarray, k: int) -> Found:
    import lancedb

    rows = lancedb.connect(folder).open_table("t").search(vector).distance_type("dot").limit(k).to_list()  # type: ignore[attr-defined]
    return [{**row, "metadata": json.loads(row["metadata"]), "score": 1 - row["_distance"]} for row in rows]


def search_qdrant(folder: Path, vector: np.ndarray, k: int) -> Found:
    from qdrant_client import QdrantClient

    client = QdrantClient(path=str(folder))
    points = client.query_points("t", query=vector.tolist(), limit=k).points
    client.close()
    return [{**(point.payload or {}), "score": point.score} for point in points]


def search_postgres(dsn: str, schema: str, vector: np.ndarray, k: int) -> Found:
    import psycopg
    from pgvector.psycopg import register_vector
    from psycopg.rows import dict_row

    query = f'SELECT *, -(vector <#> %s) AS score FROM {schema}."ta\'b""le; x" ORDER BY vector <#> %s LIMIT {k}'
    with psycopg.connect(dsn, row_factory=dict_row) as connection:
        register_vector(connection)
        rows = connection.execute(query.encode(), [vector, vector]).fetchall()
    return [{**row, "start": row["span_start"], "end": row["span_end"]} for row in rows]


def execute(target: Target, statement: str) -> None:
    """Run SQL on the table of a target, which `{}` stands for."""
    import psycopg
    from psycopg import sql

    dsn, _, name = target.url.rpartition("#")
    with psycopg.connect(dsn) as connection:
        connection.execute(sql.SQL(statement).format(sql.Identifier(*name.split(".", maxsplit=1))))  # type: ignore[arg-type]
