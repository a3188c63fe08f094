"""Heading paths from files to hits: what changes them, what encodes anew, and what leaves older snapshots alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from isospace.collection.snapshot import Manifest, latest_manifest
from isospace.ingest.spec import ChunkingSpec
from isospace.operations.maintenance.compact import compact_collection
from isospace.operations.maintenance.compaction_settings import CompactionSettings
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.run import chunking_id
from isospace.search.index import Index
from isospace.search.open_index import open_index
from isospace.search.read_chunks import read_chunks
from isospace.storage.store import open_store
from tests.conftest import Configure, sentences
from tests.helpers.inline import embed_inline

WORDS = list(sentences(40).values())
GUIDE = (
    f"Before all headings: {WORDS[0]}\n\n# Guide\n\n{WORDS[1]}\n\n## Install > Linux\n\n{WORDS[2]}\n\n{WORDS[3]}\n\n"
    f"## Remove\n\n{WORDS[4]}\n\n"
)
PAGE = (
    "<html><head><title>Cranes</title></head><body><main><h1>Cranes</h1>"
    + "".join(f"<{{level}}>Part <em>{n}</em></{{level}}><p>{WORDS[n]} {WORDS[n + 9]}</p>" for n in range(5, 9))
    + "</main></body></html>"
)
SMALL = {"max_tokens": 48, "overlap_tokens": 4, "include_title": False}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "guide.md").write_text(GUIDE)
    (folder / "page.html").write_text(PAGE.format(level="h2"))
    (folder / "plain.txt").write_text("\n\n".join(WORDS[20:24]))
    return folder


def configured(configure: Configure, source: Path, **chunking: Any) -> PipelineConfig:
    return configure(source, recipe={"chunking": {**SMALL, **chunking}})


def manifest_of(config: PipelineConfig) -> Manifest:
    manifest = latest_manifest(open_store(config.runtime.store), "c")
    assert manifest is not None
    return manifest


def paths(config: PipelineConfig, doc_id: str) -> dict[str, list[str]]:
    """The heading path of each chunk of a document, by its text, as hits have them."""
    index = open_index(config.runtime.store, "c")
    hits = index.search(WORDS[0], 500, filter=f'doc_id == "{doc_id}"')[0]
    return {hit.text: hit.heading_path for hit in sorted(hits, key=lambda hit: hit.start)}


def encoded_texts(config: PipelineConfig, snapshot: str) -> set[str]:
    rows = read_chunks(config.runtime.store, "c", snapshot, columns=["prefix", "text"]).read_all().to_pylist()
    return {row["prefix"] + row["text"] for row in rows}


def path_of(found: dict[str, list[str]], words: str) -> list[str]:
    """The path of the first chunk with the last words."""
    return next(path for text, path in found.items() if " ".join(words.split()[-2:]) in text)


def test_a_hit_has_the_headings_above_it(configure: Configure, source: Path) -> None:
    config = configured(configure, source)
    embed_inline(config)
    guide, page = paths(config, "guide.md"), paths(config, "page.html")
    assert path_of(guide, WORDS[0]) == []
    assert path_of(guide, WORDS[1]) == ["Guide"]
    # What separates them on a screen may be in a heading, too.
    assert path_of(guide, WORDS[3]) == ["Guide", "Install > Linux"]
    assert path_of(guide, WORDS[4]) == ["Guide", "Remove"]
    assert path_of(page, WORDS[16]) == ["Cranes", "Part 7"]
    assert set(map(tuple, paths(config, "plain.txt").values())) == {()}


def test_a_chunk_that_repeats_the_end_of_a_section_belongs_to_the_next_one(configure: Configure, source: Path) -> None:
    config = configured(configure, source)
    embed_inline(config)
    shared = [text for text in paths(config, "guide.md") if "Remove" in text and not text.startswith("## Remove")]
    assert [paths(config, "guide.md")[text] for text in shared] == [["Guide", "Remove"]]


def test_a_renamed_heading_changes_the_paths_below_it_and_encodes_only_itself(
    configure: Configure, source: Path
) -> None:
    config = configured(configure, source, overlap_tokens=0)
    embed_inline(config)
    before = paths(config, "guide.md")
    (source / "guide.md").write_text(GUIDE.replace("# Guide\n", "# Manual\n"))
    report = embed_inline(config)
    after = paths(config, "guide.md")
    assert report.encoded == len(set(after) - set(before)) < len(after)
    assert path_of(after, WORDS[4]) == ["Manual", "Remove"]


def test_encoded_headings_change_vectors_and_identity(configure: Configure, source: Path) -> None:
    config = configured(configure, source, include_headings=True)
    embed_inline(config)
    first, before = manifest_of(config), paths(config, "guide.md")
    table = read_chunks(
        config.runtime.store, "c", "1", columns=["text", "prefix", "heading_path", "n_tokens"]
    ).read_all()
    rows = {row["text"]: row for row in table.to_pylist()}
    assert max(table["n_tokens"].to_pylist()) <= 48
    behind = next(text for text in before if " ".join(WORDS[4].split()[-2:]) in text)
    assert rows[behind]["heading_path"] == ["Guide", "Remove"]
    assert rows[behind]["prefix"] in {"Guide ", "Guide > Remove "}
    (source / "guide.md").write_text(GUIDE.replace("# Guide\n", "# Manual\n"))
    report = embed_inline(config)
    assert report.encoded == len(encoded_texts(config, "2") - encoded_texts(config, "1")) > 1
    assert manifest_of(config).snapshot_id != first.snapshot_id


@pytest.mark.parametrize("include", [False, True])
def test_levels_alone_are_content_only_if_they_are_encoded(configure: Configure, source: Path, include: bool) -> None:
    """The text of an HTML page does not tell the levels of its headings."""
    config = configured(configure, source, include_headings=include)
    embed_inline(config)
    (source / "page.html").write_text(
        PAGE.replace("<{level}>", "<h1>", 1).replace("</{level}>", "</h1>", 1).format(level="h2")
    )
    report = embed_inline(config)
    assert report.committed is include
    assert (path_of(paths(config, "page.html"), WORDS[16])[0] == "Part 5") is include


def test_without_the_option_nothing_has_another_identity_than_before() -> None:
    assert "include_headings" not in ChunkingSpec().model_dump(mode="json")
    digest = "05638d23ccd8888e44dcd0c1999e537f"
    assert chunking_id(ChunkingSpec(), "e" * 64).startswith(digest)
    assert chunking_id(ChunkingSpec(include_headings=True), "e" * 64) != chunking_id(ChunkingSpec(), "e" * 64)


def test_a_part_without_headings_is_written_as_before(configure: Configure, source: Path) -> None:
    for name in ("guide.md", "page.html"):
        (source / name).unlink()
    config = configured(configure, source)
    embed_inline(config)
    (part,) = manifest_of(config).parts
    root = Path(config.runtime.store)
    assert pq.read_schema(root / part.documents.path).names == [
        "doc_id",
        "doc_hash",
        "uri",
        "title",
        "metadata",
        "text",
    ]
    assert not {"heading_path", "section_start"} & set(pq.read_schema(root / part.chunks.path).names)


def test_parts_with_and_without_headings_are_compacted_and_opened_together(configure: Configure, source: Path) -> None:
    config = configured(configure, source)
    guide = source / "guide.md"
    guide.rename(source.parent / "aside.md")
    (source / "page.html").rename(source.parent / "aside.html")
    embed_inline(config)
    (source.parent / "aside.md").rename(guide)
    (source.parent / "aside.html").rename(source / "page.html")
    embed_inline(config)
    before = {name: paths(config, name) for name in ("guide.md", "page.html", "plain.txt")}
    assert len(manifest_of(config).parts) == 2
    compact_collection(open_store(config.runtime.store), "c", CompactionSettings())
    assert len(manifest_of(config).parts) == 1
    assert {name: paths(config, name) for name in before} == before
    columns = read_chunks(
        config.runtime.store, "c", str(manifest_of(config).sequence), columns=["doc_id", "heading_path"]
    )
    assert {row["doc_id"] for row in columns.read_all().to_pylist() if row["heading_path"]} == {"guide.md", "page.html"}


def test_a_section_is_the_text_from_its_heading_to_the_next_one(configure: Configure, source: Path) -> None:
    config = configured(configure, source)
    embed_inline(config)
    index: Index = open_index(config.runtime.store, "c")
    hits = index.search(WORDS[3], 500, neighbors="section", filter='doc_id == "guide.md"')[0]
    start, end = GUIDE.index("## Install"), GUIDE.index("## Remove")
    within = [hit for hit in hits if hit.heading_path == ["Guide", "Install > Linux"]]
    assert len(within) > 1
    for hit in within:
        # The first one begins with the end of the section before.
        first = min(start, hit.start)
        assert (hit.context_start, hit.context) == (first, GUIDE[first:end].rstrip())
    plain = index.search(WORDS[20], 500, neighbors="section", filter='doc_id == "plain.txt"')[0]
    assert {hit.context for hit in plain} == {"\n\n".join(WORDS[20:24])}
