"""An encoder that no snapshot needs is removed, a fine-tuned one too; any other is refused with those that need it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from isospace.collection.alias import promote
from isospace.collection.snapshot import commit_manifest
from isospace.errors import BusyError, ConfigError, IntegrityError, NotFoundError
from isospace.finetuning.lineage import Lineage
from isospace.operations.maintenance import remove_encoder as removing
from isospace.operations.maintenance.remove_encoder import remove_encoder
from isospace.storage import paths as layout
from isospace.storage.hashing import seal
from isospace.storage.leases import run_lease
from isospace.storage.local_files import TEMPORARY_PREFIX
from isospace.storage.store import Store, open_store
from tests.helpers.manifests import file_ref, manifest, written

BASE, TUNED, QUERIES, SPARSE, UNUSED = ("e" * 64, "a1" * 32, "b2" * 32, "c3" * 32, "e" * 8 + "0" * 56)


def lineage_of(encoder_id: str, base: str) -> bytes:
    empty: dict[str, Any] = {
        "left_out": {},
        "negatives": {},
        "loss": {},
        "training": {},
        "libraries": {},
        "history": (),
    }
    numbers: dict[str, Any] = {"pairs": {}, "held_out": 0, "best_step": 0, "seconds": 0.0}
    named = {"name": "tuned", "key": "k", "snapshot_id": "s", "collection": "c", "at": "now"}
    return seal(Lineage(encoder_id=encoder_id, base=base, **named, **empty, **numbers).model_dump(mode="json"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Five encoders: of documents and queries, a sparse one, a fine-tuned one, and one that nothing uses."""
    opened = open_store(tmp_path)
    for encoder_id in (BASE, TUNED, QUERIES, UNUSED):
        opened.write(layout.encoder_document(encoder_id), b"{}")
        opened.write(f"{layout.encoder_model(encoder_id)}/model.safetensors", b"x" * 1_000)
    opened.write(layout.sparse_encoder_document(SPARSE), b"{}")
    opened.write(layout.encoder_lineage(TUNED), lineage_of(TUNED, BASE))
    sparse = {"sparse_space_id": "5" * 64, "sealed_files": (file_ref(layout.sparse_encoder_document(SPARSE), size=2),)}
    for number in (1, 2):
        snapshot = manifest(number, encoder_id=BASE, query_encoder_id=QUERIES, **(sparse if number == 2 else {}))
        commit_manifest(opened, written(opened, snapshot))
    promote(opened, "c", "production", manifest(2), reason="test")
    return opened


def files(store: Store) -> set[str]:
    return {stat.path for stat in store.walk("") if not stat.path.startswith("leases/")}


@pytest.mark.parametrize("digits", [TUNED, TUNED[:8]])
def test_an_unused_encoder_goes_with_its_lineage_and_nothing_else(store: Store, digits: str) -> None:
    before, folder = files(store), f"{layout.encoder_folder(TUNED)}/"
    assert store.root is not None
    (store.root / folder / f"{TEMPORARY_PREFIX}1").write_bytes(b"half")
    size = sum(store.size(path) for path in before if path.startswith(folder))
    planned = remove_encoder(store, digits, dry=True)
    assert files(store) == before
    assert (planned.files, planned.bytes, planned.done) == (4, size + 4, False)
    removed = remove_encoder(store, digits)
    assert (removed.encoder_id, removed.files, removed.bytes, removed.done) == (TUNED, 4, size + 4, True)
    assert (
        removed.describe() == f"encoder {TUNED[:12]}…: removed 4 files, {size + 4:,} bytes ({(size + 4) / 1e3:.1f} kB)"
    )
    assert files(store) == {path for path in before if not path.startswith(folder)}
    assert TUNED not in layout.list_encoders(store)
    assert not (store.root / folder).exists()
    assert store.folders("trash") == []
    with pytest.raises(NotFoundError, match=rf"^encoder '{digits}': not in .*Encoders there: {QUERIES[:16]}, "):
        remove_encoder(store, digits)


@pytest.mark.parametrize(
    ("encoder_id", "users"),
    [
        (BASE, r"snapshots 1, 2 of collection 'c' \(production\); snapshot 1 of collection 'd'"),
        (QUERIES, r"snapshots 1, 2 of collection 'c' \(production\)"),
        (SPARSE, r"snapshot 2 of collection 'c' \(production\)"),
    ],
)
def test_what_a_snapshot_needs_is_refused_with_those_that_need_it(store: Store, encoder_id: str, users: str) -> None:
    commit_manifest(store, written(store, manifest(1, collection="d", encoder_id=BASE)))
    before = files(store)
    for dry in (True, False):
        with pytest.raises(ConfigError, match=rf"^encoder {encoder_id[:12]}…: is needed by {users}; expected"):
            remove_encoder(store, encoder_id, dry=dry)
    assert files(store) == before


def test_a_base_goes_without_those_that_were_made_from_it(store: Store) -> None:
    store.write(layout.encoder_lineage(QUERIES), lineage_of(QUERIES, UNUSED))
    store.write(layout.encoder_lineage(BASE), b"damaged")
    removed = remove_encoder(store, UNUSED)
    assert removed.made_from_it == (QUERIES,)
    assert (
        f"Made from it, and still usable, since they have weights of their own: {QUERIES[:12]}…" in removed.describe()
    )
    assert store.exists(layout.encoder_document(QUERIES))


def test_raw_vectors_stay_and_are_counted(store: Store) -> None:
    path = f"{layout.vectors_folder(TUNED, 'document')}/part.parquet"
    store.write(path, b"x" * 2_500)
    removed = remove_encoder(store, TUNED)
    assert removed.vector_bytes == 2_500
    assert "Its raw vectors stay (2.5 kB): `isospace vacuum STORE --vectors` removes them" in removed.describe()
    assert store.exists(path)


@pytest.mark.parametrize(
    ("digits", "message"),
    [
        (TUNED[:7], r"^encoder 'a1a1a1a': 7 digits; expected at least 8, the first of its ID"),
        ("", r"^encoder '': 0 digits; expected at least 8"),
        (
            "eeeeeeee",
            rf"2 encoders begin with these digits; expected those of one\. Give more digits: {UNUSED}, {BASE}",
        ),
    ],
)
def test_digits_must_be_those_of_one_encoder(store: Store, digits: str, message: str) -> None:
    before = files(store)
    with pytest.raises(ConfigError, match=message):
        remove_encoder(store, digits)
    assert files(store) == before


def test_not_while_a_run_uses_any_collection(store: Store) -> None:
    before = files(store)
    with run_lease(store, "other", "embed"), pytest.raises(BusyError, match="the removal of an encoder deletes files"):
        remove_encoder(store, TUNED)
    assert files(store) == before


def test_a_snapshot_that_cannot_be_read_may_need_it(store: Store) -> None:
    store.write("collections/c/snapshots/00000003.json", b"{}")
    with pytest.raises(IntegrityError):
        remove_encoder(store, TUNED)
    assert store.exists(layout.encoder_document(TUNED))


def test_a_snapshot_that_is_committed_meanwhile_brings_all_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    before, remove = files(store), removing.remove_files

    def late(*args: object, check: object, **kwargs: object) -> None:
        def committed() -> None:
            snapshot = manifest(3, encoder_id=TUNED)
            store.write(snapshot.paths.snapshot(3), seal(snapshot.model_dump(mode="json")))
            check()  # type: ignore[operator]

        remove(*args, check=committed, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(removing, "remove_files", late)
    with pytest.raises(BusyError, match=r"snapshot 3 of collection 'c' was committed while .* all files were put back"):
        remove_encoder(store, TUNED)
    assert files(store) == before | {"collections/c/snapshots/00000003.json"}
