"""The report of a run says what was done, explains it, and leaves out what is empty; an erasure finds what it names."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from isospace.collection.tombstones import write_tombstone
from isospace.evaluation.reports.quotes import read_quotes
from isospace.operations.maintenance.forget_quotes import forget_quotes
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.embed import embed_corpus
from isospace.pipeline.run_report import RunReport, run_markdown
from isospace.storage import paths as layout
from isospace.storage.store import Store, open_store
from tests.helpers.documents import configuration, sentences


@dataclass(frozen=True)
class World:
    config: PipelineConfig
    first: RunReport
    second: RunReport

    @property
    def store(self) -> Store:
        return open_store(self.config.runtime.store)

    def page(self, report: RunReport) -> str:
        return self.store.read(layout.report_page(report.run_id)).decode()


@pytest.fixture(scope="module")
def world(tiny_model: Path, encoder_store: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("page")
    shutil.copytree(encoder_store, folder / "store")
    source = folder / "source"
    source.mkdir()
    for name, text in sentences(30).items():
        (source / f"{name}.txt").write_text(text)
    (source / "broken.pdf").write_bytes(b"no PDF")
    (source / "photo.png").write_bytes(b"picture")
    (source / "video.mp4").write_bytes(b"film")
    config = configuration(
        tiny_model,
        source,
        folder / "store",
        recipe={"transform": {"representations": ["float32", "int8"]}},
        runtime={"max_mean_cosine": 1.0},
    )
    first = embed_corpus(config)
    (source / "d00001.txt").write_text("the cell and another gene")
    (source / "d00002.txt").unlink()
    return World(config, first, embed_corpus(config))


def headings(page: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", page)


def test_a_first_snapshot_is_not_compared_with_itself_and_nothing_empty_is_shown(world: World) -> None:
    first, second = headings(world.page(world.first)), headings(world.page(world.second))
    assert "Dimensions, against the fit" not in first
    assert "Dimensions, against the fit" in second
    assert "Warnings" not in first
    for page in (world.page(world.first), world.page(world.second)):
        assert not re.search(r"<tbody>\s*</tbody>", page)
        # Every section has a line that explains it.
        for section in re.findall(r"<section.*?</section>", page, re.DOTALL):
            assert re.search(r"<p>\w", section), section[:200]


def test_it_names_documents_work_times_model_recipe_and_disk(world: World) -> None:
    page = world.page(world.second)
    assert (world.second.added, world.second.changed, world.second.removed) == (0, 1, 1)
    for row in ("<td>changed</td><td>1</td>", "<td>removed</td><td>1</td>", "<td>unchanged</td><td>28</td>"):
        assert row in page
    assert world.config.recipe.encoder.model in page
    assert "Documents are split at headings" in page
    assert "<td>total</td>" in page
    stages = dict(world.second.stages)
    assert {"prepare encoder", "scan source", "encode", "commit snapshot"} <= set(stages)
    assert all(seconds > 0.0 for seconds in stages.values())
    assert re.search(r"<td>segments</td><td>[\d.]+ kB</td>", page)
    assert "nearest neighbor" in page


def test_what_could_not_be_used_is_named_and_recorded_as_quoted(world: World) -> None:
    page, record = world.page(world.first), read_quotes(world.store, world.first.run_id)
    assert "broken.pdf" in page
    assert "files that match no pattern" in page
    assert "photo.png" in page
    assert record is not None
    for name in ("broken.pdf", "photo.png", "video.mp4"):
        assert record.has_forgotten({name})
    assert not record.has_forgotten({"d00020.txt"})
    body = json.loads(world.store.read(layout.report(world.first.run_id)))
    assert body["run"]["stages"]


def test_an_erasure_removes_the_report_that_names_a_file_of_no_pattern(world: World, tmp_path: Path) -> None:
    assert world.store.root is not None
    shutil.copytree(world.store.root, tmp_path / "store")
    store = open_store(tmp_path / "store")
    write_tombstone(store, "c", "forget", ("photo.png",), "asked")
    forget_quotes(store, "c", [], [])
    for run_id in (world.first.run_id, world.second.run_id):
        assert not store.exists(layout.report_page(run_id))
        assert not store.exists(layout.report_quotes(run_id))


def test_the_summary_for_people_has_units_and_no_field_names(world: World) -> None:
    text = run_markdown(world.second)
    assert text.startswith("### c: snapshot 2\n")
    assert "Committed snapshot 2, which production now names: 29 documents" in text
    assert "| changed | 1 |" in text
    assert re.search(r"The run took [\d.]+ s, most of it for: ", text)
    assert not re.search(r"snapshot_id|run_id|None|True|'", text)
