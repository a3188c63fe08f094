"""A run over sources as people have them: titles alone, a store among the documents, files that were compressed."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from isospace.ingest.chunking import TokenCounter, chunk_documents
from isospace.ingest.document import Document
from isospace.ingest.pseudo_queries import Passage, make_pseudo_queries
from isospace.ingest.spec import ChunkingSpec
from isospace.pipeline.run_report import RunReport
from isospace.search.open_index import open_index
from isospace.storage.store import open_store
from tests.conftest import Configure
from tests.helpers.inline import embed_inline


def quarantine(report: RunReport, folder: Path) -> dict[str, str]:
    if report.quarantine is None:
        return {}
    return {row["uri"]: row["reason"] for row in pq.read_table(folder / report.quarantine).to_pylist()}


def counter() -> TokenCounter:
    def offsets(texts: list[str]) -> list[list[tuple[int, int]]]:
        return [[(n, n + 1) for n, character in enumerate(text) if character != " "] for text in texts]

    return TokenCounter(offsets, lambda texts: [len(found) + 2 for found in offsets(texts)], 64)


@pytest.mark.parametrize("kind", ["structure", "none"])
@pytest.mark.parametrize("include_title", [True, False])
def test_a_title_alone_is_encoded_once(kind: str, include_title: bool) -> None:
    spec = ChunkingSpec(kind=kind, include_title=include_title, overlap_tokens=0)
    alone, ordinary = Document("a", "a", "Tide tables", "Tide tables"), Document("b", "b", "Tide tables", "of Kiel")
    first, second = chunk_documents([alone, ordinary], spec, counter())
    assert (first.text, first.encoded_text) == ("Tide tables", "Tide tables")
    assert second.encoded_text == ("Tide tables of Kiel" if include_title else "of Kiel")


def test_a_title_alone_asks_no_pseudo_query() -> None:
    title = "how the tides of the Baltic rise and fall in winter"
    passages = [Passage("a", title, "", title), Passage("b", title + " too", title, "they hardly rise " * 9)]
    assert [query.passage for query in make_pseudo_queries(passages, "titles", size=9, seed=0)] == [1]


def test_documents_with_a_title_alone_are_found(configure: Configure, tmp_path: Path) -> None:
    rows = [{"doc_id": f"g{n}", "title": f"title {n}", "text": f"the protein of gene {n}"} for n in range(6)]
    rows += [{"doc_id": f"t{n}", "title": f"harbor number{n}", "text": [None, "", " \n"][n % 3]} for n in range(6)]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = configure(tmp_path / "d.jsonl", recipe={"documents": {"title_column": "title"}})
    report = embed_inline(config)
    assert (report.documents, report.chunks, report.quarantined) == (12, 12, 0)
    with open_index(open_store(config.runtime.store), config.runtime.collection) as index:
        (hit,) = index.search("number4", k=1, mode="lexical")[0]
    assert (hit.doc_id, hit.title, hit.text) == ("t4", "harbor number4", "harbor number4")


def test_a_store_among_the_documents_comes_to_rest(configure: Configure, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.md").write_text(f"# The cell of {name}\n\nprose of the gene {name}")
    # The store of `configure` lies in this folder, and so does the model's read-me.
    config = configure(f"{tmp_path}/**/*.md")
    first, second = embed_inline(config), embed_inline(config)
    assert (first.documents, first.committed, second.committed) == (3, True, False)
    assert quarantine(first, tmp_path / "store").keys() == {"store/"}


def test_compressing_files_changes_no_document(configure: Configure, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    rows = "".join(json.dumps({"doc_id": f"r{n}", "title": "t", "text": f"the cell {n}"}) + "\n" for n in range(4))
    (source / "t.jsonl").write_text(rows)
    (source / "a.md").write_text("# Page\n\nthe gene")
    with zipfile.ZipFile(source / "z.zip", "w") as archive:
        archive.writestr("b.md", "the protein")
    config = configure(source, runtime={"max_quarantined_share": 0.5})
    assert embed_inline(config).documents == 6
    for name in ("t.jsonl", "a.md"):
        (source / f"{name}.gz").write_bytes(gzip.compress((source / name).read_bytes()))
        (source / name).unlink()
    # The archive is cut off: what it gave before stays.
    (source / "z.zip").write_bytes((source / "z.zip").read_bytes()[:-9])
    after = embed_inline(config)
    assert (after.documents, after.encoded) == (6, 0)
    assert quarantine(after, tmp_path / "store").keys() <= {"z.zip"}
