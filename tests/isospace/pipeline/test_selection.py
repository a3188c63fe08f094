"""A selection changes what a run looks at, and nothing else of the collection."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from isospace.collection.snapshot import deleted_documents, latest_manifest
from isospace.errors import ConfigError
from isospace.operations.maintenance.verify import verify_snapshot
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.plan_report import plan_only
from isospace.pipeline.selection import Budget, Selection
from isospace.storage.parquet import read_parquet
from isospace.storage.store import open_store
from tests.conftest import Configure, configuration, sentences
from tests.helpers.documents import copied
from tests.helpers.inline import embed_inline

RECIPE = {"documents": {"metadata_columns": ["lang", "year", "date"]}}


def write(path: Path, documents: dict[str, str], **changed: dict[str, Any]) -> Path:
    """Write documents with a language, a year and a date that follow from their place."""
    rows = []
    for n, (name, text) in enumerate(documents.items()):
        row = {
            "doc_id": name,
            "text": text,
            "lang": ["en", "de"][n % 2],
            "year": 2000 + n,
            "date": f"2024-01-{n % 28 + 1:02d}",
        }
        rows.append(row | changed.get(name, {}))
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


def texts(config: PipelineConfig) -> dict[str, str]:
    """Return the live documents of the collection."""
    store = open_store(config.runtime.store)
    manifest = latest_manifest(store, "c")
    assert manifest is not None
    gone = deleted_documents(store, manifest.deletions)
    return {
        row["doc_id"]: row["text"]
        for part in manifest.parts
        for row in read_parquet(store, part.documents.path).to_pylist()
        if row["doc_id"] not in gone.get(part.name, ())
    }


def selecting(config: PipelineConfig, **selection: Any) -> PipelineConfig:
    chosen = Selection.model_validate(selection)
    return config.model_copy(update={"runtime": config.runtime.model_copy(update={"selection": chosen})})


@pytest.fixture(scope="module")
def collection_once(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> PipelineConfig:
    """Twenty documents are embedded; in the source ten of them have changed, two are gone, five are new."""
    folder = tmp_path_factory.mktemp("collection")
    old = sentences(20)
    config = configuration(tiny_model, write(folder / "d.jsonl", old), folder / "store", recipe=RECIPE)
    embed_inline(config)
    names = list(old)
    new = {name: f"changed {text}" if n % 2 else text for n, (name, text) in enumerate(old.items()) if n not in (3, 4)}
    write(folder / "d.jsonl", new | {f"new{n}": text for n, text in enumerate(sentences(5, seed=7).values())})
    assert names[3] == "d00003"
    return config


@pytest.fixture
def collection(collection_once: PipelineConfig, tmp_path: Path) -> PipelineConfig:
    return copied(collection_once, tmp_path)


def changes(config: PipelineConfig) -> set[str]:
    """Run it, and return what differs in the collection afterwards."""
    before = texts(config)
    embed_inline(config)
    after = texts(config)
    assert verify_snapshot(open_store(config.runtime.store), "c").failures == ()
    return {name for name in before | after if before.get(name) != after.get(name)}


def test_by_id_only_these_change_appear_or_vanish(collection: PipelineConfig) -> None:
    chosen = selecting(collection, doc_ids=["d00001", "d00003", "d00002", "new4"])
    assert changes(chosen) == {"d00001", "d00003", "new4"}
    assert changes(chosen) == set()


def test_by_uri(collection: PipelineConfig) -> None:
    assert changes(selecting(collection, uri="*#new*")) == {f"new{n}" for n in range(5)}


def test_by_metadata(collection: PipelineConfig) -> None:
    # In the source every second document has moved by the two that are gone; what was chosen is what the source says
    # now.
    found = changes(selecting(collection, where="year >= 2018 and lang == 'en'"))
    assert found == {"new0", "new2", "new4"}


def test_by_date(collection: PipelineConfig) -> None:
    assert changes(selecting(collection, since="2024-01-20")) == {f"new{n}" for n in range(1, 5)}
    assert changes(selecting(collection, since="2024-01-01", until="2024-01-03")) == {"d00001"}


def test_by_age_of_what_is_embedded(collection: PipelineConfig) -> None:
    embed_inline(selecting(collection, doc_ids=["new0"]))
    store = open_store(collection.runtime.store)
    manifest = latest_manifest(store, "c")
    assert manifest is not None
    assert store.root is not None
    first = store.root / manifest.parts[0].segment.path
    os.utime(first, (time.time() - 86_400.0, time.time() - 86_400.0))
    before = datetime.fromtimestamp(time.time() - 3_600.0, UTC)
    found = changes(selecting(collection, embedded_before=before.isoformat()))
    # Two are gone; new documents are in no old part.
    assert found == {name for n, name in enumerate(sentences(20)) if n % 2 or n == 4}


def test_afterwards_a_run_over_everything_does_the_rest(
    collection: PipelineConfig, configure: Configure, tmp_path: Path
) -> None:
    embed_inline(selecting(collection, doc_ids=["d00001", "new0"]))
    embed_inline(selecting(collection, where="lang == 'de'"))
    report = embed_inline(collection)
    fresh = embed_inline(
        configure(collection.runtime.source, recipe=RECIPE, runtime={"store": str(tmp_path / "fresh")})
    )
    space_of_fresh_differs = report.space_id != fresh.space_id
    assert space_of_fresh_differs
    assert texts(collection) == texts(configure(collection.runtime.source, runtime={"store": str(tmp_path / "fresh")}))


def test_a_plan_shows_what_a_selection_would_do(collection: PipelineConfig) -> None:
    plan = plan_only(selecting(collection, uri="*#new*"))
    assert (plan.added, plan.changed, plan.removed, plan.unchanged) == (5, 0, 0, 20)
    assert plan.texts_to_encode == 5


def test_the_order_is_that_of_a_field(collection: PipelineConfig) -> None:
    runtime = collection.runtime.model_copy(update={"part_documents": 4})
    config = selecting(collection.model_copy(update={"runtime": runtime}), order_by="-year")
    embed_inline(config)
    store = open_store(config.runtime.store)
    manifest = latest_manifest(store, "c")
    assert manifest is not None
    years = [
        json.loads(text)["year"]
        for part in manifest.parts[1:]
        for text in read_parquet(store, part.documents.path)["metadata"].to_pylist()
    ]
    assert len(years) > 8
    assert years == sorted(years, reverse=True)


def test_another_recipe_takes_no_selection(collection: PipelineConfig) -> None:
    recipe = collection.recipe.model_copy(
        update={"chunking": collection.recipe.chunking.model_copy(update={"overlap_tokens": 6})}
    )
    with pytest.raises(ConfigError, match="one space for all"):
        embed_inline(selecting(collection.model_copy(update={"recipe": recipe}), uri="*new*"))


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (
            {"where": "color == 'red'"},
            "no document has the field 'color'. Fields: doc_id, uri, title, date, lang, year",
        ),
        ({"where": "year == 'x'"}, "compares a number with a text"),
        ({"order_by": "-color"}, "no document has the field 'color'. Fields: date, lang, year"),
    ],
)
def test_fields_that_do_not_exist_are_named(
    collection: PipelineConfig, selection: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        embed_inline(selecting(collection, **selection))


@pytest.mark.parametrize(
    "selection", [{"where": "__import__('os')"}, {"since": "yesterday"}, {"embedded_before": "x"}, {"color": "red"}]
)
def test_what_makes_no_sense_is_refused_before_anything_is_read(selection: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Selection.model_validate(selection)


def test_budgets() -> None:
    assert not Budget().is_spent(10**9, 10**9)
    assert Budget(tokens=100).is_spent(100, 0.0)
    assert not Budget(tokens=100).is_spent(99, 10**9)
    assert Budget(minutes=2).is_spent(0, 120.0)
    assert not Budget(minutes=2).is_spent(10**9, 119.0)


def test_a_filter_on_the_title_means_the_document_s_own(configure: Configure, tmp_path: Path) -> None:
    source = write(tmp_path / "d.jsonl", sentences(4))
    rows = [json.loads(line) | {"title": f"field {n}"} for n, line in enumerate(source.read_text().splitlines())]
    source.write_text("\n".join(map(json.dumps, rows)))
    recipe = {"documents": {"title_column": "doc_id", "metadata_columns": ["title"]}}
    config = configure(source, recipe=recipe)
    for where in (f'title == "{rows[1]["doc_id"]}"', 'meta["title"] == "field 1"', f'doc_id == "{rows[1]["doc_id"]}"'):
        chosen = selecting(config, where=where)
        assert plan_only(chosen).added == 1
