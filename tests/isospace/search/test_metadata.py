"""One document must not break searches, whatever its metadata are: stores of older versions hold any."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest

from isospace.ingest.readers import read as readers
from isospace.operations.export.base import portable
from isospace.search.metadata import metadata_columns, parse_metadata, read_metadata
from isospace.search.open_index import open_index
from tests.conftest import configuration
from tests.helpers.inline import embed_inline
from tests.helpers.serving import serving


def nested(depth: int, opening: str = "[", closing: str = "]") -> str:
    return opening * depth + "1" + closing * depth


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f'{{"m": {nested(32)}, "n": 1}}', {"m": json.loads(nested(32)), "n": 1}),
        (f'{{"m": {nested(33)}, "n": 1}}', {"m": None, "n": 1}),
        (f'{{"m": {nested(280)}, "n": 1}}', {"m": None, "n": 1}),
        ('{"m": ' + nested(400, '{"a":', "}") + ', "n": 1}', {"m": None, "n": 1}),
        (f'{{"m": {nested(100_000)}}}', {}),
        ("[1, 2]", {}),
        ("null", {}),
        ('"text"', {}),
        ("", {}),
        ('{"a": ', {}),
        ('{"a": ' + "9" * 5_000 + "}", {}),
    ],
)
def test_whatever_is_stored_can_be_read(text: str, expected: dict[str, Any]) -> None:
    assert parse_metadata(text) == read_metadata(text) == portable(text) == expected
    columns = dict(metadata_columns([read_metadata(text), {"n": 2}]))
    assert columns["n"].to_pylist() == [expected.get("n"), 2]
    assert pa.table(columns).num_rows == 2


@pytest.mark.integration
@pytest.mark.parametrize(
    "value",
    [
        nested(40),
        nested(270),
        nested(310, '{"a":', "}"),
        nested(600),
        "[" + ",".join(["[]"] * 50_000) + "]",
        "NaN",
        "[-Infinity]",
        "9" * 400,
        '"\\ud800"',
        '{"\\udfff": "\\ud800"}',
    ],
    ids=lambda value: value[:12],
)
def test_a_document_of_an_older_version_does_not_break_searches(
    tmp_path: Path, tiny_model: Path, local_copies: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    rows = [json.dumps({"doc_id": f"g{n}", "text": f"the protein gene number {n}", "m": n}) for n in range(5)]
    rows.append(f'{{"doc_id": "e", "text": "protein protein", "m": {value}}}')
    (tmp_path / "d.jsonl").write_text("\n".join(rows) + "\n")
    monkeypatch.setattr(readers, "within_bounds", lambda document: document)
    recipe = {"documents": {"metadata_columns": ["m"]}}
    embed_inline(configuration(tiny_model, tmp_path / "d.jsonl", tmp_path / "store", recipe=recipe))
    with open_index(str(tmp_path / "store"), "c") as index, serving(index) as url:
        for options in ({}, {"filter": 'doc_id == "e"'}):
            answer = httpx.post(f"{url}/search", json={"query": "protein", **options})
            assert answer.status_code == 200, answer.text[:300]
            assert "e" in {hit["doc_id"] for hit in answer.json()["results"][0]["hits"]}
