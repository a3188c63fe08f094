"""One odd value does not take a field from the filters of all others, and numbers in texts are numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from isospace.errors import QueryError
from isospace.search.filters import apply_filter, parse_filter
from isospace.search.metadata import metadata_columns
from isospace.search.open_index import open_index
from tests.conftest import Configure
from tests.helpers.inline import embed_inline


def matching(expression: str, field: str, values: list[Any]) -> list[Any]:
    columns = dict(metadata_columns({field: value} for value in values))
    mask = apply_filter(parse_filter(expression), pa.table(columns))
    return [value for value, passes in zip(values, mask, strict=True) if passes]


@pytest.mark.parametrize(
    ("expression", "values", "expected"),
    [
        ("f >= 2020", [2019, 2020, 2021, "n.d."], [2020, 2021]),
        ("f >= 2020", ["2019", "2020", "2021", "", "about 2022"], ["2020", "2021"]),
        ("2019 < f <= 2020", ["2019", "2020", "2021"], ["2020"]),
        ("f > 9.6", ["9.50", "10.00", "100", "1e3", "-5", "+11", None], ["10.00", "100", "1e3", "+11"]),
        ("f != 2020", [2019, 2020, "n.d.", None], [2019]),
        ("f in [2019, 2021]", ["2019", "2020", "2021"], ["2019", "2021"]),
        ('f == "2020"', ["2019", "2020", "n.d."], ["2020"]),
        ('f == "007"', ["007", "7", "n.d."], ["007"]),
        ('f == "n.d."', [2019, "n.d."], ["n.d."]),
        ("f == True", [True, False, "unknown"], [True]),
        ("f == False", ["true", "False", "0"], ["False"]),
        ('"port" in f', [["port", "sea"], ["sea"], "port", None], [["port", "sea"], "port"]),
        ('"port" not in f', [["port", "sea"], ["sea"], "port", None], [["sea"]]),
        ('"port" in f', [["port"], [1, "port"], {"a": ["port"]}, "airport"], [["port"], [1, "port"]]),
        ("f == 9007199254740993", ["9007199254740993", "9007199254740992"], ["9007199254740993"]),
        ("f < 1e25", ["1e30", "1", "x"], ["1"]),
    ],
)
def test_a_constant_is_compared_with_the_values_of_its_type(
    expression: str, values: list[Any], expected: list[Any]
) -> None:
    assert matching(expression, "f", values) == expected


@pytest.mark.parametrize(
    ("expression", "values"),
    [
        ("f > 3", ["a", "b"]),
        ("f == True", ["yes", "no"]),
        ('f == "x"', [1, 2]),
        ('"a" in f', ["a", "b"]),
        ('"a" in f', ["[a", "b"]),
        ("f in [1, 2]", ["a", None]),
        ("f == 9007199254740993", ["9007199254740993", "0.5"]),
    ],
)
def test_a_field_without_any_value_of_that_type_is_refused(expression: str, values: list[Any]) -> None:
    with pytest.raises(QueryError):
        matching(expression, "f", values)


@pytest.mark.parametrize("field", ["title", "uri", "doc_id", "metadata"])
def test_metadata_called_like_a_column_of_documents_can_be_filtered_by(
    configure: Configure, tmp_path: Path, field: str
) -> None:
    key, text = ("key", "text") if field == "doc_id" else ("doc_id", "text")
    rows = [{key: name, text: f"the gene of {name}", field: f"T{name}"} for name in "abc"]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    documents = {"id_column": key, "metadata_columns": [field]}
    embed_inline(configure(tmp_path / "d.jsonl", recipe={"documents": documents}))
    index = open_index(str(tmp_path / "store"), "c")
    found = index.search("gene", k=9, filter=f'meta["{field}"] == "Tb"')[0]
    assert [(hit.doc_id, hit.metadata) for hit in found] == [("b", {field: "Tb"})]
    if field != "metadata":
        assert not index.search("gene", k=9, filter=f'{field} == "Tb"')[0]
