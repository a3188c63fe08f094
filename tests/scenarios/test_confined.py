"""No record in a store, and no link in a source, has isospace read or write elsewhere."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from isospace import open_index
from isospace.collection.alias import resolve
from isospace.collection.snapshot import Manifest
from isospace.encoding.registry.files import Export, bytes_record, fetch_export, fetch_model, write_export
from isospace.errors import IntegrityError, MismatchError
from isospace.ingest.document import Document, QuarantineEntry
from isospace.ingest.readers.read import read_source
from isospace.ingest.spec import DocumentsSpec
from isospace.operations.maintenance.verify import verify_snapshot
from isospace.pipeline.config import PipelineConfig
from isospace.search.sql_database import build_serving, serving_files, verify_serving
from isospace.storage.hashing import seal, unseal
from isospace.storage.parquet import FileRef, read_parquet, read_rows, read_verified, verify_file
from isospace.storage.store import Store, open_store
from tests.conftest import sentences, write_jsonl
from tests.helpers.inline import embed_inline

OUTSIDE = ["../secret", "/etc/passwd", "a/../../secret", "a/..", "..", "collections/../../secret", "a\0b"]
OPERATIONS: dict[str, Callable[[Store, str], Any]] = {
    "read": lambda store, path: store.read(path),
    "read_range": lambda store, path: store.read_range(path, 0, 4),
    "size": lambda store, path: store.size(path),
    "exists": lambda store, path: store.exists(path),
    "write": lambda store, path: store.write(path, b"x"),
    "create": lambda store, path: store.create(path, b"x"),
    "create_if_absent": lambda store, path: store.create_if_absent(path, b"x"),
    "create_file": lambda store, path: store.create_file(path, Path(__file__)),
    "write_file": lambda store, path: store.write_file(path, Path(__file__)),
    "digest": lambda store, path: store.digest(path),
    "delete": lambda store, path: store.delete(path),
    "move": lambda store, path: store.move(path, "x"),
    "walk": lambda store, path: list(store.walk(path)),
    "folders": lambda store, path: store.folders(path),
    "leftovers": lambda store, path: store.leftovers(path),
    "stat": lambda store, path: store.stat(path),
    "remove_empty": lambda store, path: store.remove_empty(path),
}


def test_every_operation_of_a_store_is_tried_here() -> None:
    public = {name for name, value in vars(Store).items() if callable(value) and not name.startswith("_")}
    assert public == OPERATIONS.keys()


@pytest.mark.parametrize("path", OUTSIDE)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_store_never_leaves_its_prefix(tmp_path: Path, operation: str, path: str) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "store" / "a").mkdir(parents=True)
    with pytest.raises(IntegrityError, match="leads out of the store"):
        OPERATIONS[operation](open_store(tmp_path / "store"), path)
    assert (tmp_path / "secret").read_text() == "secret"
    assert sorted(found.name for found in tmp_path.iterdir()) == ["secret", "store"]


@pytest.mark.parametrize("path", OUTSIDE)
def test_nothing_is_moved_out_of_a_store(tmp_path: Path, path: str) -> None:
    store = open_store(tmp_path / "store")
    store.write("inside", b"x")
    with pytest.raises(IntegrityError, match="leads out of the store"):
        store.move("inside", path)
    assert store.read("inside") == b"x"


@pytest.mark.parametrize("operation", sorted(OPERATIONS.keys() - {"leftovers", "remove_empty"}))
def test_nor_does_one_on_s3_which_is_never_asked(operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing listens there: what came so far would fail as a StoreError of another kind.
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(IntegrityError, match="leads out of the store"):
        OPERATIONS[operation](open_store("s3://bucket/prefix"), "../other/secret")


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A store with one snapshot."""
    base = tmp_path_factory.mktemp("embedded")
    runtime = {"store": str(base / "store"), "collection": "c", "source": str(base / "d.jsonl"), "device": "cpu"}
    write_jsonl(base / "d.jsonl", sentences(20))
    recipe = {
        "encoder": {"model": str(tiny_model)},
        "chunking": {"overlap_tokens": 4},
        "transform": {"fit": {"kind": "center"}},
    }
    embed_inline(PipelineConfig.model_validate({"recipe": recipe, "runtime": runtime}))
    return base / "store"


@pytest.fixture
def store(embedded: Path, tmp_path: Path) -> Store:
    """A copy that a test may forge."""
    shutil.copytree(embedded, tmp_path / "store")
    return open_store(tmp_path / "store")


def forge(store: Store, manifest: Manifest, changes: dict[str, Any]) -> Manifest:
    """Put another manifest in the place of the only one, sealed as a writer of the store can."""
    forged = manifest.model_copy(update=changes)
    store.write("collections/c/snapshots/00000001.json", seal(forged.model_dump(mode="json")))
    return forged


@pytest.mark.parametrize("field", ["documents", "chunks", "segment", "deletions", "sealed_files"])
@pytest.mark.parametrize("path", ["../../outside.parquet", "/outside.parquet"])
def test_a_forged_manifest_opens_nothing_outside(store: Store, tmp_path: Path, field: str, path: str) -> None:
    assert store.root is not None
    manifest = resolve(store, "c", "production")
    # The very file that belongs there, with its hash: nothing but its place is wrong.
    real = manifest.parts[0].segment
    where = store.root / "../../outside.parquet"
    where.resolve().write_bytes(store.read(real.path))
    forged_ref = real.model_copy(update={"path": path if path.startswith("..") else str(where.resolve())})
    if field in ("documents", "chunks", "segment"):
        parts = (manifest.parts[0].model_copy(update={field: forged_ref}), *manifest.parts[1:])
        forged = forge(store, manifest, {"parts": parts})
    elif field == "deletions":
        forged = forge(store, manifest, {"deletions": forged_ref})
    else:
        forged = forge(store, manifest, {"sealed_files": (*manifest.sealed_files, forged_ref)})
    for verified in (True, False):
        with pytest.raises(IntegrityError, match="leads out of the store"):
            verify_file(store, forged_ref, content=verified)
    assert any("leads out of the store" in failure for failure in verify_snapshot(store, "c", "production").failures)
    if field != "sealed_files":
        with pytest.raises(IntegrityError, match="leads out of the store"):
            open_index(str(store.root), "c", encode=False)
        with pytest.raises(IntegrityError, match="leads out of the store"):
            _serve_anew(store, forged, tmp_path)
    where.resolve().unlink()


def _serve_anew(store: Store, manifest: Manifest, tmp_path: Path) -> None:
    from isospace.encoding.embedder import load_space

    space = load_space(store, manifest.space_id)
    store.delete(serving_files(manifest)[1])
    for rows in (1_000_000, 0):
        build_serving(store, manifest, space, tmp_path / "scratch", table_rows=rows)


@pytest.mark.parametrize("field", ["space_id", "encoder_id"])
def test_ids_of_a_forged_manifest_are_no_way_out_either(store: Store, field: str) -> None:
    assert store.root is not None
    forge(store, resolve(store, "c", "production"), {field: "../../../etc"})
    # Refused as a path, or before that because it is not the space's.
    with pytest.raises((IntegrityError, MismatchError)):
        open_index(str(store.root), "c")


def test_a_forged_serving_record_hashes_nothing_outside(store: Store) -> None:
    manifest = resolve(store, "c", "production")
    path = serving_files(manifest)[1]
    record = unseal(store.read(path), name=path)
    store.write(path, seal({**record, "path": "../../etc/passwd"}))
    with pytest.raises(IntegrityError, match="leads out of the store"):
        verify_serving(store, manifest)


def test_tables_outside_are_not_mapped(store: Store, tmp_path: Path) -> None:
    manifest = resolve(store, "c", "production")
    path = manifest.parts[0].chunks.path
    (tmp_path / "outside.parquet").write_bytes(store.read(path))
    for outside in ("../outside.parquet", str(tmp_path / "outside.parquet")):
        for attempt in (
            lambda p=outside: read_parquet(store, p, columns=["text"]),
            lambda p=outside: read_parquet(store, p),
            lambda p=outside: read_rows(store, p, 0, 1),
            lambda p=outside: read_verified(store, FileRef(path=p, size=1, sha256="0")),
        ):
            with pytest.raises(IntegrityError, match="leads out of the store"):
                attempt()


@pytest.mark.parametrize("name", ["../../../../outside", "/outside", "a/../../x"])
def test_files_of_a_forged_encoder_are_not_fetched_from_or_to_elsewhere(
    store: Store, local_copies: Path, tmp_path: Path, name: str
) -> None:
    from isospace.encoding.registry.record import read_encoder_record

    record = read_encoder_record(store, resolve(store, "c", "production").encoder_id)
    data = b"what a record wants written"
    files = {**record.files, name: bytes_record(data)}
    forged = record.model_copy(update={"files": files})
    export = Export(kind="onnx", files={name: bytes_record(data)}, made_with={})
    before = sorted(tmp_path.rglob("*")), sorted(local_copies.rglob("*"))
    # A store elsewhere is copied from: there the name would be written to.
    for opened in (store, open_store("s3://elsewhere")):
        with pytest.raises(IntegrityError, match="leads out of the store"):
            fetch_model(opened, forged)
        with pytest.raises(IntegrityError, match="leads out of the store"):
            fetch_export(opened, record.encoder_id, export)
        if name.startswith("/"):
            continue  # written below the folder all the same
        with pytest.raises(IntegrityError, match="leads out of the store"):
            write_export(opened, record.encoder_id, export, {name: data})
    assert (sorted(tmp_path.rglob("*")), sorted(local_copies.rglob("*"))) == before


def test_a_forged_evaluation_set_reads_nothing_outside(store: Store, tmp_path: Path) -> None:
    from isospace.evaluation.query_set_files import load_set
    from isospace.evaluation.query_sets import freeze_set, read_set

    (tmp_path / "q.txt").write_text("".join(f"query number {n}\n" for n in range(5)))
    freeze_set(store, "c", load_set("default", tmp_path / "q.txt"), source="a test")
    found = [stat.path for stat in store.walk("collections/c/evaluation") if stat.path.endswith(".json")]
    document = unseal(store.read(found[0]), name=found[0])
    forged = json.loads(json.dumps(document).replace("collections/c/evaluation", "../../collections/c/evaluation"))
    assert forged != document
    store.write(found[0], seal(forged))
    with pytest.raises(IntegrityError, match="leads out of the store"):
        read_set(store, "c", "default")


def items(source: Path | str) -> tuple[dict[str, str], dict[str, str]]:
    found = list(read_source(str(source), DocumentsSpec()))
    texts = {item.doc_id: item.text for item in found if isinstance(item, Document)}
    return texts, {item.uri: item.reason for item in found if isinstance(item, QuarantineEntry)}


def test_a_link_that_leads_out_of_a_source_is_set_aside(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("a password")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "secret.md").write_text("another")
    (tmp_path / "t.jsonl").write_text('{"doc_id": "1", "text": "a third"}\n')
    (source / "good.md").write_text("good")
    (source / "sub" / "inside.md").symlink_to("../good.md")
    (source / "sub" / "out.txt").symlink_to("../../secret.txt")
    (source / "absolute.txt").symlink_to(tmp_path / "secret.txt")
    (source / "twice.txt").symlink_to("sub/out.txt")
    (source / "table.jsonl").symlink_to(tmp_path / "t.jsonl")
    (source / "whole").symlink_to(tmp_path / "folder")
    (source / "dangling.md").symlink_to("nowhere.md")
    texts, aside = items(source)
    assert texts == {"good.md": "good", "sub/inside.md": "good"}
    reason = "cannot be read: a link that leads out of the source; put a copy there, or make its folder a source"
    folder = "is a link to a folder outside the source; put a copy there, or make its folder a source"
    assert aside == {
        **dict.fromkeys(["absolute.txt", "sub/out.txt", "table.jsonl", "twice.txt"], reason),
        "whole/": folder,
        "dangling.md": "cannot be read: a link to a file that is not there",
    }
    assert items(f"{source}/*.txt")[0] == {}


def test_a_source_that_is_itself_a_link_is_read(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.md").write_text("text")
    (tmp_path / "linked").symlink_to("real")
    (tmp_path / "one.md").symlink_to("real/a.md")
    assert items(tmp_path / "linked") == ({"a.md": "text"}, {})
    assert items(tmp_path / "one.md") == ({"one.md": "text"}, {})


def test_a_file_that_becomes_a_link_after_it_was_listed_is_set_aside(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (tmp_path / "secret.txt").write_text("a password")
    for name in ("a.md", "b.md"):
        (source / name).write_text(name)
    reading = read_source(str(source), DocumentsSpec())
    next(reading)
    (source / "b.md").unlink()
    (source / "b.md").symlink_to(tmp_path / "secret.txt")
    assert isinstance(next(reading), QuarantineEntry)
