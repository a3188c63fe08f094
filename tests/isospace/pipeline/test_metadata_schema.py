"""The types of metadata are part of a snapshot: kept, shown, compared with the base, and declared at any time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from isospace.cli.main import app
from isospace.collection.alias import aliases
from isospace.collection.metadata_schema import fields_of, odd_values, schema_warnings
from isospace.collection.snapshot import files_digest, latest_manifest, read_manifest, replace_manifest
from isospace.errors import QueryError
from isospace.ingest.metadata_types import MetadataField, MetadataType
from isospace.operations.maintenance.compact import compact_collection
from isospace.operations.maintenance.forget import forget
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.refit import _is_recorded
from isospace.search.index import Index
from isospace.search.open_index import open_index
from isospace.storage.store import open_store
from tests.conftest import Configure
from tests.helpers.inline import embed_inline

Embed = Callable[..., tuple[PipelineConfig, Any]]


@pytest.fixture
def embed(configure: Configure, tmp_path: Path) -> Embed:
    """Write documents with a year and a tag each, and embed them."""

    def run(rows: list[dict], **types: MetadataType) -> tuple[PipelineConfig, Any]:
        source = tmp_path / "d.jsonl"
        lines = [{"doc_id": f"d{n}", "text": f"the gene number {n}", **row} for n, row in enumerate(rows)]
        source.write_text("".join(json.dumps(line) + "\n" for line in lines))
        documents = {"metadata_columns": ["year", "at"], "metadata_types": types}
        config = configure(source, recipe={"documents": documents}, runtime={"max_removed_share": 1.0})
        return config, embed_inline(config)

    return run


def row(year: object, at: str = "2024-05-31") -> dict:
    return {"year": year, "at": at}


def found(index: Index, expression: str) -> set[str]:
    return {hit.doc_id for hit in index.search("gene", k=50, filter=expression)[0]}


def test_types_are_kept_warned_of_shown_and_declared(embed: Embed, tmp_path: Path) -> None:
    years = [row(2000 + n, f"2024-05-{n + 1:02d}T23:00-02:00") for n in range(9)]
    config, first = embed(years)
    store = open_store(config.runtime.store)
    assert first.warnings == ()
    kept = {field.name: field for field in latest_manifest(store, "c").metadata}
    assert (kept["year"].type, kept["at"].type) == ("integer", "timestamp")

    # One odd value: its type stays, it is counted, and filters see the others.
    config, second = embed([*years, row("n.d.", "soon")])
    assert sum("1 of 10 values cannot be read as its type" in warning for warning in second.warnings) == 2
    with open_index(config.runtime.store, "c") as index:
        assert found(index, "year >= 2007") == {"d7", "d8"}
        assert found(index, 'at > "2024-05-09"') == {"d7", "d8"}
        assert found(index, 'at > "2024-05-09T02:00"') == {"d8"}
        assert found(index, 'year == "n.d."') == {"d9"}
    shown = json.loads(CliRunner().invoke(app, ["show", config.runtime.store, "c"]).stdout)["metadata"]
    shown = {field["name"]: field for field in shown}
    assert shown["year"]["odd_values"] == [{"doc_id": "d9", "value": "n.d."}]
    assert shown["year"]["kinds"] == {"integer": 9, "text": 1}

    # Many: the type changes, and the run says so.
    config, third = embed([*years[:4], *[row("unknown") for _ in range(6)]])
    (warning,) = [warning for warning in third.warnings if "'year'" in warning]
    assert "its type is text, and was integer in snapshot 2 (its values are: 4 integer, 6 text)" in warning

    # A declaration alone makes a snapshot of the same content, in the same files, and an open index follows it.
    with open_index(config.runtime.store, "c") as index:
        before = index.manifest
        assert found(index, "year is None") == set()
        config, fourth = embed([*years[:4], *[row("unknown") for _ in range(6)]], year="integer")
        assert (fourth.committed, fourth.encoded, fourth.snapshot_id) == (True, 0, before.snapshot_id)
        assert any("'year': its type is integer, and was text" in warning for warning in fourth.warnings)
        assert index.refresh()
        assert index.manifest.files() == before.files()
        assert found(index, "year is None") == {f"d{n}" for n in range(4, 10)}
        with pytest.raises(QueryError, match="compares a number with a text"):
            found(index, 'year == "unknown"')
    assert aliases(store, "c")["production"].snapshot == fourth.snapshot
    _, again = embed([*years[:4], *[row("unknown") for _ in range(6)]], year="integer")
    assert (again.committed, again.warnings) == (False, ())

    # Maintenance keeps the types; an erasure counts anew.
    compacted = compact_collection(store, "c").manifest
    assert compacted.metadata == latest_manifest(store, "c").metadata
    forget(store, "c", [f"d{n}" for n in range(4, 10)], tmp_path / "scratch", reason="")
    left = {field.name: field for field in latest_manifest(store, "c").metadata}
    assert (left["year"].type, left["year"].values, left["year"].odd) == ("integer", 4, 0)


def test_a_snapshot_of_an_older_version_is_read_and_left_as_it_is(embed: Embed) -> None:
    config, report = embed([row(n) for n in range(5)])
    store = open_store(config.runtime.store)
    manifest = read_manifest(store, "c", report.snapshot)
    recipe = {
        **manifest.recipe,
        "documents": {k: v for k, v in manifest.recipe["documents"].items() if k != "metadata_types"},
    }
    old = manifest.model_copy(update={"metadata": None, "recipe": recipe})
    assert files_digest(old) == files_digest(manifest)
    replace_manifest(store, manifest, old)
    assert [field.type for field in fields_of(store, old)] == ["timestamp", "integer"]
    assert odd_values(store, old) == {}
    _, same = embed([row(n) for n in range(5)])
    assert not same.committed
    assert _is_recorded(config.recipe.documents, old.recipe["documents"])
    _, changed = embed([row("x") for _ in range(5)])
    assert any("its type is text, and was integer in snapshot 1" in warning for warning in changed.warnings)


def described(name: str, kind: MetadataType, odd: int = 0, **kinds: int) -> MetadataField:
    return MetadataField(name=name, type=kind, kinds=kinds or {kind: 10}, odd=odd)


@pytest.mark.parametrize(
    ("new", "old", "named"),
    [
        ([described("y", "number")], [described("y", "integer")], []),
        ([described("y", "integer")], [described("y", "number")], ["its type is integer, and was number"]),
        ([described("y", "text", text=6, integer=4)], [described("y", "integer")], ["6 text, 4 integer"]),
        ([described("y", "integer", 2)], [described("y", "integer", 2)], []),
        ([described("y", "integer", 3)], [described("y", "integer", 2)], ["3 of 10 values cannot be read"]),
        ([described("y", "integer", 1)], [], ["1 of 10 values cannot be read"]),
        ([], [described("y", "integer")], ["no document has it any more"]),
        ([described("t", "list")], [described("t", "text")], ["was text in snapshot 7"]),
        ([described("y", "text")], [], []),
    ],
)
def test_what_changed_is_said_once(new: list[MetadataField], old: list[MetadataField], named: list[str]) -> None:
    warnings = schema_warnings(new, old, 7)
    assert len(warnings) == len(named)
    for warning, part in zip(warnings, named, strict=True):
        assert part in warning


def test_many_changes_are_summed_up() -> None:
    warnings = schema_warnings([], [described(f"f{n}", "text") for n in range(40)], 1)
    assert len(warnings) == 11
    assert "30 more fields" in warnings[-1]
