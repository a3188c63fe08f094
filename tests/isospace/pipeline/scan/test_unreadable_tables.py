"""An unreadable table weighs as much as the documents in it, and its earlier documents stay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isospace.collection.quarantine import read_quarantine
from isospace.collection.snapshot import latest_manifest
from isospace.errors import SourceError
from isospace.pipeline.config import PipelineConfig
from isospace.search.open_index import open_index
from isospace.storage.store import open_store
from tests.conftest import Configure, sentences
from tests.helpers.documents import copied
from tests.helpers.inline import embed_inline

RECIPE = {"documents": {}}


def write_parquet(path: Path, documents: dict[str, str]) -> None:
    pq.write_table(pa.table({"doc_id": list(documents), "text": list(documents.values())}), path)


def write_csv(path: Path, documents: dict[str, str]) -> None:
    path.write_text("".join(["doc_id,text\n", *(f"{name},{text}\n" for name, text in documents.items())]))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def break_quote(path: Path) -> None:
    """Open a quote that is never closed, in a table whose other lines cannot be told from text."""
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], *('"' + line for line in lines[1:])]))


def partitioned(folder: Path, sizes: dict[str, int], write: Callable[[Path, dict[str, str]], None]) -> None:
    folder.mkdir()
    documents, first = list(sentences(sum(sizes.values())).items()), 0
    for name, size in sizes.items():
        write(folder / name, dict(documents[first : first + size]))
        first += size


@pytest.fixture
def with_base(configure: Configure, tmp_path: Path) -> PipelineConfig:
    """A collection of three tables, of which the last holds a quarter of the documents."""
    partitioned(tmp_path / "t", {"a.parquet": 30, "b.parquet": 30, "c.parquet": 20}, write_parquet)
    config = configure(tmp_path / "t", recipe=RECIPE)
    assert embed_inline(config).documents == 80
    return config


@pytest.mark.parametrize("damage", [truncate, empty])
def test_an_unreadable_part_of_a_source_is_refused_and_nothing_moves(
    with_base: PipelineConfig, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    damage(tmp_path / "t" / "c.parquet")
    with pytest.raises(SourceError, match=r"2\d of 8\d inputs cannot be used \(2[5-9]%\), counted in documents"):
        embed_inline(with_base)
    # Also under another name than the one that the collection knows.
    (tmp_path / "t" / "c.parquet").rename(tmp_path / "t" / "z.parquet")
    with pytest.raises(SourceError, match=r"cannot be used \(2[5-9]%\)"):
        embed_inline(with_base)
    assert len(open_index(with_base.runtime.store, "c").chunks["doc_id"].unique()) == 80


def test_within_the_limit_earlier_documents_stay_and_the_run_says_how_many(
    with_base: PipelineConfig, tmp_path: Path
) -> None:
    for name in ("c.parquet", "renamed.parquet"):
        config = copied(with_base, tmp_path / f"copy of {name}")
        folder = Path(config.runtime.source)
        truncate(folder / "c.parquet")
        (folder / "c.parquet").rename(folder / name)
        write_parquet(folder / "new.parquet", {"new": "one more text of a gene"})
        runtime = config.runtime.model_copy(update={"max_quarantined_share": 0.3})
        report = embed_inline(config.model_copy(update={"runtime": runtime}))
        assert (report.documents, report.quarantined) == (81, 1)
        assert any("1 quarantined inputs stand for about 20 documents" in warning for warning in report.warnings)
        assert any("20 documents could not be read this time and stay" in warning for warning in report.warnings)
        store = open_store(config.runtime.store)
        manifest = latest_manifest(store, "c")
        assert manifest is not None
        assert [one.documents for one in read_quarantine(store, manifest)] in ([19], [20], [21], [22])
        found = open_index(config.runtime.store, "c").search("gene", k=300)[0]
        assert {f"d{n:05d}" for n in range(60, 80)} <= {hit.doc_id for hit in found}


@pytest.mark.parametrize(
    ("name", "write", "damage"),
    [("c.csv", write_csv, break_quote), ("c.csv", write_csv, empty), ("c.parquet", write_parquet, truncate)],
)
def test_a_first_run_is_refused_as_well(
    configure: Configure,
    tmp_path: Path,
    name: str,
    write: Callable[[Path, dict[str, str]], None],
    damage: Callable[[Path], None],
) -> None:
    others = name.replace("c", "a", 1)
    partitioned(tmp_path / "t", {others: 40, name: 40}, write)
    damage(tmp_path / "t" / name)
    if damage is empty:
        # Nothing says that it held anything: an empty table is one input.
        assert embed_inline(configure(tmp_path / "t", recipe=RECIPE)).quarantined == 1
        return
    with pytest.raises(SourceError, match="inputs cannot be used"):
        embed_inline(configure(tmp_path / "t", recipe=RECIPE))


def test_a_row_without_an_id_is_one_document_however_many_were_deleted(
    with_base: PipelineConfig, tmp_path: Path
) -> None:
    kept = dict(list(sentences(80).items())[60:])
    names = [*list(kept)[:9], None]
    pq.write_table(pa.table({"doc_id": names, "text": list(kept.values())[:10]}), tmp_path / "t" / "c.parquet")
    report = embed_inline(with_base)
    # Nobody knows which of the eleven documents is the row without an ID: they stay.
    assert (report.documents, report.quarantined) == (80, 1)


def test_a_selection_is_not_refused_for_what_it_leaves_out(with_base: PipelineConfig, tmp_path: Path) -> None:
    (tmp_path / "t" / "d.csv").write_text('doc_id,text\nx,"a\n')
    selection = with_base.runtime.selection.model_copy(update={"doc_ids": ("d00000",)})
    runtime = with_base.runtime.model_copy(update={"selection": selection})
    assert embed_inline(with_base.model_copy(update={"runtime": runtime})).documents == 80
