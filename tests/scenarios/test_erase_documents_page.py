"""The steps of docs/erase-documents.md, as they stand there: who is named is found, erased, and found no more."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from isospace.cli.main import app
from tests.conftest import Configure, sentences
from tests.helpers.inline import embed_inline

PAGE = Path(__file__).parents[2] / "docs" / "erase-documents.md"
NAMED: dict[str, dict[str, Any]] = {
    "by-title": {"title": "Letter to JANE  DOE"},
    "by-text": {"text": "The protein was found by jane\ndoe, in a cell."},
    "by-metadata": {"author": "Doe, Jane"},
    "by-nested": {"seen": {"by": ["A. Person", "Jane Doe"]}},
    "by-line": {"author": "Jane\nDoe"},
    "by-key": {"seen": {"by": {"Jane Doe": "yes"}}},
    "by-id/Jane Doe": {},
}
OTHERS: dict[str, dict[str, Any]] = {"Jane": {"text": "Jane saw a cell, and Doe a gene."}, "doe": {"title": "Jan Edoe"}}


def snippet(store: str) -> str:
    """Return the program of step 1 for a store and its collection."""
    (text,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert text.count('"store"') == text.count("collections/documentation/") == 1
    return text.replace('"store"', repr(store)).replace("collections/documentation/", "collections/c/")


def write(path: Path, documents: dict[str, dict[str, Any]]) -> None:
    rows = [
        json.dumps({"doc_id": name, "title": "", "author": "", "seen": "", **fields})
        for name, fields in documents.items()
    ]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def found(store: str) -> list[str]:
    exec(compile(snippet(store), str(PAGE), "exec"), {})
    return Path("ids.txt").read_text(encoding="utf-8").splitlines()


def test_whoever_is_named_in_any_field_is_found_and_after_the_erasure_no_more(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "source"
    source.mkdir()
    columns = {"title_column": "title", "metadata_columns": ["author", "seen"]}
    config = configure(source, recipe={"documents": columns}, runtime={"max_removed_share": 1.0})
    write(source / "all.jsonl", {name: {"text": text} for name, text in sentences(20).items()})
    named = {name: {"text": f"A text about {name[:5]}.", **fields} for name, fields in {**NAMED, **OTHERS}.items()}
    write(source / "more.jsonl", named)
    write(source / "Doe, Jane.jsonl", {"by-uri": {"text": "A text in a file of her own."}})
    embed_inline(config)
    for table in ("more.jsonl", "Doe, Jane.jsonl"):
        (source / table).unlink()
    # The latest snapshot has none of them any more, and then no snapshot does: they are rows that were deleted.
    embed_inline(config)
    store = config.runtime.store
    assert CliRunner().invoke(app, ["vacuum", store, "--retention-days", "0"]).exit_code == 0
    for number in (2, 3):
        write(source / "all.jsonl", {name: {"text": text} for name, text in sentences(20 + number).items()})
        embed_inline(config)
        assert CliRunner().invoke(app, ["vacuum", store, "--retention-days", "0"]).exit_code == 0
    assert found(store) == sorted([*NAMED, "by-uri"])

    asked = ["forget", store, "c", *found(store)]
    assert CliRunner().invoke(app, [*asked, "--dry-run"]).stdout.startswith("8 of 8 documents are in the collection")
    assert CliRunner().invoke(app, [*asked, "--yes"]).exit_code == 0
    assert found(store) == []
    checked = CliRunner().invoke(app, [*asked, "--dry-run"])
    assert (checked.exit_code, checked.stdout.partition(",")[0]) == (0, "0 of 8 documents are in the collection")
