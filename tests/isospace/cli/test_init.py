from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from isospace.pipeline.config_files import load_config
from tests.isospace.cli.conftest import Call


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_of_files_becomes_a_configuration_that_loads(call: Call, folder: Path) -> None:
    (folder / "my docs").mkdir()
    (folder / "my docs" / "a.md").write_text("# A\n\nText.")
    done = call("init", "my docs", "--model", "model: folder")
    assert done.status == 0, done.err
    config = load_config("isospace.yaml")
    assert config.runtime.source == "my docs"
    assert config.runtime.collection == "my-docs"
    assert config.recipe.encoder.model == "model: folder"
    assert config.recipe.documents.include == ("*.md",)
    assert (folder / "isospace.yaml").read_text().count(" # ") > 5
    assert "isospace run isospace.yaml" in done.out


def test_a_table_with_columns_of_ones_own(call: Call, folder: Path) -> None:
    rows = [{"nr": n, "body": "text " * 9, "label": "x"} for n in range(3)]
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    missing = call("init", "t.jsonl", "--model", "m")
    assert (missing.status, missing.out) == (2, "")
    assert "nr, body, label" in missing.err
    wrong = call("init", "t.jsonl", "--model", "m", "--id-column", "number")
    assert wrong.status == 2
    assert "'number'" in wrong.err
    assert call("init", "t.jsonl", "--model", "m", "--id-column", "nr", "--text-column", "body").status == 0
    documents = load_config("isospace.yaml").recipe.documents
    assert (documents.id_column, documents.text_columns, documents.metadata_columns) == ("nr", ("body",), ("label",))


@pytest.mark.parametrize(
    "column", ["multi\nline: [", "a: b\nruntime: {}", "# x", "tab\there", "colon: value", "'quoted'", "é\u2028x"]
)
def test_a_column_of_any_name_stays_a_name(call: Call, folder: Path, column: str) -> None:
    rows = [{"id": n, column: "text " * 9} for n in range(3)]
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    done = call("init", "t.jsonl", "--model", "m", "--store", "mine")
    assert done.status == 0, done.err
    config = load_config("isospace.yaml")
    assert config.recipe.documents.text_columns == (column,)
    assert config.runtime.store == "mine"


@pytest.mark.parametrize("size", [140_000, 1_100_000])
def test_a_table_with_a_very_long_field_is_detected(call: Call, folder: Path, size: int) -> None:
    (folder / "t.csv").write_text('id,text\n1,short\n2,"' + "word " * (size // 5) + '"\n3,short\n')
    done = call("init", "t.csv", "--model", "m")
    assert done.status == 0, done.err
    assert load_config("isospace.yaml").recipe.documents.text_columns == ("text",)


def test_nothing_is_replaced_or_written_that_would_not_load(call: Call, folder: Path) -> None:
    (folder / "a.txt").write_text("text")
    (folder / "isospace.yaml").write_text("mine")
    refused = call("init", "a.txt", "--model", "m")
    assert refused.status == 2
    assert "--force" in refused.err
    assert (folder / "isospace.yaml").read_text() == "mine"
    invalid = call("init", "a.txt", "--model", "m", "--collection", "a/b", "--force")
    assert invalid.status == 2
    assert (folder / "isospace.yaml").read_text() == "mine"
    assert call("init", "a.txt", "--model", "m", "--force").status == 0
    assert load_config("isospace.yaml").runtime.collection == "a"


def test_without_a_terminal_what_is_not_given_is_an_error(
    call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    done = call("init")
    assert done.status == 2
    assert "not a terminal" in done.err
