"""What a hostile night does to a store, and how the same command repairs it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isospace.collection.alias import promote, resolve, rollback
from isospace.collection.snapshot import latest_manifest, read_manifest, sequences
from isospace.encoding.registry.register import prepare_encoder
from isospace.errors import ConfigError, IntegrityError, SourceError
from isospace.operations.maintenance.verify import verify_snapshot
from isospace.pipeline.commit import Commit, promote_new
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.run import start_run
from isospace.search.open_index import open_index
from isospace.search.sql_database import serving_files
from isospace.storage.store import open_store
from tests.conftest import Configure, configuration, sentences, write_jsonl
from tests.helpers.documents import copied
from tests.helpers.inline import embed_inline


def clean(config: PipelineConfig) -> bool:
    return verify_snapshot(open_store(config.runtime.store), "c").failures == ()


@pytest.fixture(scope="module")
def edited(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[PipelineConfig, str]:
    """Two snapshots, the second without one document and with a new one; and the ID of the second."""
    folder = tmp_path_factory.mktemp("edited")
    documents = sentences(90)
    path = write_jsonl(folder / "d.jsonl", documents)
    config = configuration(tiny_model, path, folder / "store")
    embed_inline(config)
    documents.pop("d00003")
    write_jsonl(path, documents | {"new": "something new"})
    return config, embed_inline(config).snapshot_id


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["documents", "chunks", "segments", "deletions", "vectors", "serving", "encoders"])
def test_a_lost_file_is_made_again_by_the_same_command(
    edited: tuple[PipelineConfig, str], tmp_path: Path, kind: str
) -> None:
    config, snapshot_id = copied(edited[0], tmp_path), edited[1]
    root = Path(config.runtime.store)
    lost = [
        p
        for p in sorted(root.rglob("*"))
        if kind in p.relative_to(root).parts and p.suffix in {".parquet", ".duckdb", ".txt", ".json"}
    ]
    lost = [p for p in lost if p.name not in {"rates.json", "encoder.json"}]
    assert lost
    lost[0].unlink()
    report = embed_inline(config)
    assert report.snapshot_id == snapshot_id
    if kind == "vectors":
        return  # its texts are encoded again when they are needed; nothing that is served is missing
    assert clean(config)
    index = open_index(config.runtime.store, "c")
    assert len(index.vectors) == 90
    assert embed_inline(config).committed is False


def test_lost_raw_vectors_are_encoded_again_when_they_are_needed(configure: Configure, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", sentences(60))
    embed_inline(configure(path))
    shutil.rmtree(tmp_path / "store" / "vectors")
    more = write_jsonl(path, sentences(60) | {"new": "something new"})
    assert embed_inline(configure(more)).encoded == 1
    report = embed_inline(configure(more, recipe={"transform": {"fit": {"kind": "none"}}}))
    assert report.encoded == 60


def test_a_damaged_leftover_of_a_killed_run_is_replaced(configure: Configure, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", sentences(60))
    config = configure(path)
    embed_inline(config)
    root = Path(config.runtime.store)
    shutil.rmtree(root / "collections/c/snapshots")
    shutil.rmtree(root / "collections/c/aliases")
    for kind in ("documents", "chunks", "segments"):
        victim = next((root / "collections/c" / kind).rglob("*.parquet"))
        data = bytearray(victim.read_bytes())
        data[len(data) // 3] ^= 1
        victim.write_bytes(data)
    embed_inline(config)
    assert clean(config)


def test_a_table_that_cannot_be_read_deletes_nothing(configure: Configure, tmp_path: Path) -> None:
    folder = tmp_path / "tables"
    folder.mkdir()
    for name, start in (("a", 0), ("b", 60)):
        rows = dict(list(sentences(100).items())[start : start + (60 if name == "a" else 40)])
        pq.write_table(pa.table({"doc_id": list(rows), "text": list(rows.values())}), folder / f"{name}.parquet")
    config = configure(folder, recipe={"documents": {}})
    assert embed_inline(config).documents == 100
    data = (folder / "b.parquet").read_bytes()
    (folder / "b.parquet").write_bytes(data[:-100])
    with pytest.raises(SourceError, match="inputs cannot be used"):
        embed_inline(config)
    report = embed_inline(configure(folder, recipe={"documents": {}}, runtime={"max_quarantined_share": 0.5}))
    assert (report.documents, report.quarantined, report.committed) == (100, 1, False)
    (folder / "b.parquet").unlink()
    assert embed_inline(config).documents == 60


def test_a_file_that_was_emptied_is_gone(configure: Configure, tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    for name, text in sentences(20).items():
        (folder / f"{name}.md").write_text(text)
    config = configure(folder, recipe={"documents": {}})
    embed_inline(config)
    (folder / "d00001.md").write_text("")
    assert embed_inline(config).documents == 19


def test_a_renamed_table_is_cited_by_its_new_name(configure: Configure, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", sentences(20))
    embed_inline(configure(path))
    report = embed_inline(configure(path.rename(tmp_path / "b.jsonl")))
    assert (report.encoded, report.committed) == (0, True)
    hit = open_index(str(tmp_path / "store"), "c").search("cell", k=1)[0][0]
    assert hit.uri.startswith("b.jsonl#")


def test_a_slow_run_does_not_move_the_alias_back(configure: Configure, tmp_path: Path) -> None:
    documents = sentences(20)
    path = write_jsonl(tmp_path / "d.jsonl", documents)
    config = configure(path)
    embed_inline(config)
    slow = read_manifest(open_store(config.runtime.store), "c", 1)
    write_jsonl(path, documents | {"new": "something new"})
    embed_inline(config)
    encoder = prepare_encoder(open_store(config.runtime.store), config.recipe.encoder)
    run = start_run(config, encoder.record, tmp_path / "scratch")
    assert promote_new(run, Commit(slow, is_new=True)) is False
    assert resolve(run.store, "c", "production").sequence == 2


def test_a_fit_on_two_alike_documents_does_not_clip_what_comes_later(configure: Configure, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", {"a": "the cell and the gene", "b": "the cell and the gene."})
    config = configure(path, runtime={"max_removed_share": 1.0})
    embed_inline(config)
    write_jsonl(path, sentences(200))
    assert embed_inline(config).clipped == 0


def test_scales_fitted_on_other_texts_are_warned_of(configure: Configure, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", {"a": "the cell and the gene", "b": "the cell and the gene."})
    config = configure(
        path, recipe={"transform": {"representations": ["float32", "int8"]}}, runtime={"max_removed_share": 1.0}
    )
    embed_inline(config)
    write_jsonl(path, sentences(200))
    assert any("exceed the range of int8" in warning for warning in embed_inline(config).warnings)


def test_a_manifest_out_of_its_place_is_refused(configure: Configure, tmp_path: Path) -> None:
    config = configure(write_jsonl(tmp_path / "d.jsonl", sentences(20)))
    embed_inline(config)
    folder = Path(config.runtime.store) / "collections/c/snapshots"
    shutil.copy(folder / "00000001.json", folder / "00000002.json")
    with pytest.raises(IntegrityError, match="is snapshot 1 of collection 'c', which does not match its path"):
        open_index(config.runtime.store, "c", "2")


def test_an_alias_notices_that_its_snapshot_was_replaced(configure: Configure, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", sentences(20))
    embed_inline(configure(path))
    (tmp_path / "store/collections/c/snapshots/00000001.json").unlink()
    write_jsonl(path, sentences(25, seed=4))
    embed_inline(configure(path, runtime={"promote_to": "other"}))
    with pytest.raises(IntegrityError, match="The snapshot was replaced"):
        open_index(str(tmp_path / "store"), "c")


@pytest.mark.integration
@pytest.mark.parametrize("name", ["", "..", "../aliases/x", "a/b", "x" * 200, "bad\n", "²", "1"])
def test_odd_alias_names_are_refused(configure: Configure, tmp_path: Path, name: str) -> None:
    config = configure(write_jsonl(tmp_path / "d.jsonl", sentences(20)))
    embed_inline(config)
    store = open_store(config.runtime.store)
    manifest = latest_manifest(store, "c")
    assert manifest is not None
    with pytest.raises(ConfigError):
        promote(store, "c", name, manifest, reason="")
    if name != "1":
        with pytest.raises(ConfigError):
            rollback(store, "c", name, reason="")
        with pytest.raises(ConfigError):
            open_index(store, name)
    assert sequences(store, "c") == [1]


def damage(path: Path) -> None:
    """Leave a valid Parquet file with fewer rows: something that parses and lies."""
    table = pq.read_table(path)
    pq.write_table(table.slice(0, max(table.num_rows // 3, 1)), path)


@pytest.mark.parametrize("kind", ["documents", "chunks", "segments"])
def test_a_file_that_parses_and_lies_is_not_taken_on_trust(configure: Configure, tmp_path: Path, kind: str) -> None:
    config = configure(write_jsonl(tmp_path / "d.jsonl", sentences(90)))
    embed_inline(config)
    files = sorted((Path(config.runtime.store) / "collections/c").rglob("*.parquet"))
    victim = sorted(path for path in files if kind in path.parts)[0]
    damage(victim)
    before = {path: path.stat().st_ino for path in files if path != victim and "plans" not in path.parts}
    report = embed_inline(config)
    # What older snapshots name as well stays the very file it was.
    assert {path: path.stat().st_ino for path in before} == before
    assert (report.documents, report.chunks, report.encoded) == (90, 90, 0)
    assert any("was rebuilt" in warning for warning in report.warnings)
    assert clean(config)
    assert len(open_index(config.runtime.store, "c").vectors) == 90


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["documents", "deletions"])
def test_a_lost_list_of_documents_neither_doubles_nor_loses_any(
    configure: Configure, tmp_path: Path, kind: str
) -> None:
    documents = sentences(90)
    path = write_jsonl(tmp_path / "d.jsonl", documents)
    config = configure(path)
    embed_inline(config)
    documents["d00007"] = "a changed text about the zebra"
    for number in range(50, 80):
        documents.pop(f"d000{number}")
    write_jsonl(path, documents)
    embed_inline(config)
    next((Path(config.runtime.store) / "collections/c" / kind).glob("*.parquet")).unlink()
    report = embed_inline(config)
    assert report.documents == len(documents)
    assert clean(config)
    found = open_index(config.runtime.store, "c").chunks["doc_id"].to_pylist()
    assert sorted(found) == sorted(documents)


def test_no_repair_from_a_source_that_cannot_be_read_whole(configure: Configure, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", sentences(90))
    config = configure(path)
    embed_inline(config)
    next((Path(config.runtime.store) / "collections/c/documents").glob("*.parquet")).unlink()
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:40], "not json", *lines[41:]]))
    with pytest.raises(SourceError, match="cannot be rebuilt from a source with unreadable inputs"):
        embed_inline(config)


def test_an_unreadable_row_keeps_documents_whose_ids_hold_a_hash(configure: Configure, tmp_path: Path) -> None:
    documents = {f"https://x/{n}#top": text for n, text in enumerate(sentences(60).values())}
    path = write_jsonl(tmp_path / "d.jsonl", documents)
    config = configure(path)
    embed_inline(config)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(["not json", *lines[20:]]))
    report = embed_inline(config)
    assert (report.documents, report.committed) == (60, False)
    assert any("could not be read" in warning for warning in report.warnings)


def test_a_repair_does_not_undo_a_rollback(configure: Configure, tmp_path: Path) -> None:
    documents = sentences(60)
    path = write_jsonl(tmp_path / "d.jsonl", documents)
    config = configure(path)
    embed_inline(config)
    write_jsonl(path, documents | {"new": "something new"})
    embed_inline(config)
    store = open_store(config.runtime.store)
    rollback(store, "c", "production", reason="worse", hold=False)
    manifest = latest_manifest(store, "c")
    assert manifest is not None
    store.delete(manifest.parts[-1].segment.path)
    embed_inline(config)
    assert resolve(store, "c", "production").sequence == 1
    write_jsonl(path, documents)  # back to what it was: new again, and not what was rolled back
    embed_inline(config)
    assert resolve(store, "c", "production").documents == 60


def test_a_view_follows_a_repair(configure: Configure, tmp_path: Path) -> None:
    import duckdb

    documents = sentences(90)
    path = write_jsonl(tmp_path / "d.jsonl", documents)
    config = configure(path, runtime={"serving_table_rows": 1})
    embed_inline(config)
    write_jsonl(path, documents | {"new": "something new"})
    embed_inline(config)
    segments = sorted((Path(config.runtime.store) / "collections/c/segments").rglob("*.parquet"))
    for segment in segments:
        segment.unlink()
    embed_inline(config)
    store = open_store(config.runtime.store)
    database = Path(config.runtime.store) / serving_files(resolve(store, "c", "production"))[0]
    with duckdb.connect(str(database), read_only=True) as connection:
        assert connection.execute("SELECT count(*), count(vector) FROM chunks").fetchone() == (91, 91)


def test_a_lost_space_names_its_remedy_and_the_remedy_works(configure: Configure, tmp_path: Path) -> None:
    config = configure(write_jsonl(tmp_path / "d.jsonl", sentences(60)))
    first = embed_inline(config)
    shutil.rmtree(Path(config.runtime.store) / "spaces" / first.space_id)
    with pytest.raises(IntegrityError, match=r"runtime\.refit=true"):
        embed_inline(config)
    refit = config.model_copy(update={"runtime": config.runtime.model_copy(update={"refit": True})})
    report = embed_inline(refit)
    assert report.encoded == 0
    assert clean(config)


def test_an_alias_folder_without_an_entry_is_no_alias(configure: Configure, tmp_path: Path) -> None:
    from isospace.collection.alias import aliases

    config = configure(write_jsonl(tmp_path / "d.jsonl", sentences(20)))
    (Path(config.runtime.store) / "collections/c/aliases/production").mkdir(parents=True)
    embed_inline(config)
    (Path(config.runtime.store) / "collections/c/aliases/candidate").mkdir()
    assert list(aliases(open_store(config.runtime.store), "c")) == ["production"]


def test_a_string_is_no_list_of_texts(configure: Configure, tmp_path: Path) -> None:
    from isospace.errors import MismatchError

    config = configure(write_jsonl(tmp_path / "d.jsonl", sentences(20)))
    embed_inline(config)
    space = open_index(config.runtime.store, "c").space
    with pytest.raises(MismatchError, match="expected a list of strings"):
        space.embed("any text", "query")
    with pytest.raises(MismatchError, match="expected 'document' or 'query'"):
        space.embed(["any text"], "qury")
