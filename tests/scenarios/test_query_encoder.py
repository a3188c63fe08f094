"""A collection whose queries have an encoder of their own: runs, refits, and everything that looks at its files."""

from __future__ import annotations

import logging
from pathlib import Path

import duckdb
import numpy as np
import pytest

from isospace.collection.disk_usage import disk_usage
from isospace.collection.snapshot import Manifest, latest_manifest, read_manifest
from isospace.collection.vector_files import vector_parts
from isospace.encoding.embedder import load_space
from isospace.encoding.registry.record import read_encoder_record
from isospace.encoding.role_encoders import DeferredEncoder, RoleEncoders
from isospace.errors import ConfigError, MismatchError
from isospace.operations.encoders import list_encoders
from isospace.operations.maintenance.vacuum import vacuum
from isospace.operations.maintenance.verify import verify_snapshot
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.embed import plan_run, refit_space
from isospace.search.open_index import open_index
from isospace.search.serving_memory import serving_memory
from isospace.search.sql_database import serving_files
from isospace.storage import paths as layout
from isospace.storage.hashing import seal
from isospace.storage.store import Store, open_store
from isospace.transform.affine import ROLES
from tests.helpers.documents import configuration, copied, sentences, write_jsonl
from tests.helpers.inline import embed_inline
from tests.helpers.pairs import foreign_model, query_model, save_router
from tests.helpers.tiny import build_tiny_model


@pytest.fixture(scope="module")
def models(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return tiny_model, query_model(tiny_model, tmp_path_factory.mktemp("models") / "queries")


@pytest.fixture(scope="module")
def embedded(models: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> PipelineConfig:
    """A store with a snapshot of one encoder, and one of the same documents with another for queries."""
    folder = tmp_path_factory.mktemp("pair")
    source = write_jsonl(folder / "d.jsonl", sentences(60))
    embed_inline(configuration(models[0], source, folder / "store"))
    config = configuration(models[0], source, folder / "store", recipe={"query_encoder": {"model": str(models[1])}})
    assert embed_inline(config).encoded == 0
    return config


def store_of(config: PipelineConfig) -> Store:
    return open_store(config.runtime.store)


def manifest_of(config: PipelineConfig) -> Manifest:
    found = latest_manifest(store_of(config), "c")
    assert found is not None
    return found


def changed(config: PipelineConfig, **recipe: object) -> PipelineConfig:
    body = config.model_dump(mode="json")
    return PipelineConfig.model_validate({**body, "recipe": {**body["recipe"], **recipe}})


def test_another_query_encoder_makes_a_new_space_over_the_same_chunks_and_raw_vectors(
    embedded: PipelineConfig,
) -> None:
    store = store_of(embedded)
    first, second = (read_manifest(store, "c", number) for number in (1, 2))
    assert second.query_encoder_id is not None
    assert (first.encoder_id, first.chunking_id) == (second.encoder_id, second.chunking_id)
    assert first.space_id != second.space_id
    assert first.snapshot_id != second.snapshot_id
    assert [part.chunks for part in first.parts] == [part.chunks for part in second.parts]
    assert vector_parts(store, second.encoder_id)
    assert vector_parts(store, second.query_encoder_id) == []
    names = {ref.path for ref in second.sealed_files}
    for encoder_id in second.encoder_ids.values():
        files = read_encoder_record(store, encoder_id).files
        assert {f"{layout.encoder_model(encoder_id)}/{name}" for name in files} <= names
        assert layout.encoder_document(encoder_id) in names


def test_a_snapshot_of_one_encoder_says_nothing_of_another(embedded: PipelineConfig) -> None:
    written = store_of(embedded).read(layout.CollectionPaths("c").snapshot(1))
    assert b"query_encoder" not in written
    assert b"query_encoder" in store_of(embedded).read(layout.CollectionPaths("c").snapshot(2))


def test_the_same_recipe_again_changes_nothing(embedded: PipelineConfig) -> None:
    assert embed_inline(embedded).snapshot == 2
    assert plan_run(embedded).texts_to_encode == 0
    assert plan_run(embedded).space == manifest_of(embedded).space_id


def test_a_query_is_encoded_by_its_encoder_and_the_other_is_not_even_loaded(embedded: PipelineConfig) -> None:
    manifest = manifest_of(embedded)
    with open_index(store_of(embedded), "c") as index:
        assert isinstance(index.space.encoder, RoleEncoders)
        assert index.promise.is_bitwise
        assert index.search("protein cell", k=3)
        assert isinstance(index.space.encoder.document, DeferredEncoder)
        assert not index.space.encoder.document.is_loaded
        assert index.space.encoder.query.record.encoder_id == manifest.query_encoder_id
        queries, documents = (index.space.encode(["Protein cell"], role) for role in ("query", "document"))
        assert not np.allclose(queries, documents)


def test_a_refit_gives_queries_another_encoder_and_takes_it_back(embedded: PipelineConfig, tmp_path: Path) -> None:
    config = copied(embedded, tmp_path)
    Path(config.runtime.source).unlink()
    single = changed(config, query_encoder=None)
    assert refit_space(single).snapshot == 3
    assert manifest_of(config).space_id == read_manifest(store_of(config), "c", 1).space_id
    assert refit_space(config).snapshot == 4
    assert manifest_of(config).encoder_ids == read_manifest(store_of(config), "c", 2).encoder_ids


def test_a_query_encoder_that_is_the_documents_own_is_none(embedded: PipelineConfig, tmp_path: Path) -> None:
    config = copied(embedded, tmp_path)
    same = changed(config, query_encoder={"model": config.recipe.encoder.model})
    embed_inline(same)
    assert manifest_of(same).query_encoder_id is None
    assert manifest_of(same).space_id == read_manifest(store_of(config), "c", 1).space_id


def test_raw_vectors_of_queries_are_stored_under_the_encoder_that_computed_them(
    embedded: PipelineConfig, tmp_path: Path
) -> None:
    (tmp_path / "q.txt").write_text("\n".join(sentences(30, seed=9).values()))
    by_role = {"fit": {"kind": "center", "means": "by_role"}, "queries": {"file": str(tmp_path / "q.txt")}}
    config = changed(copied(embedded, tmp_path / "copy"), transform=by_role)
    store, queries = store_of(config), str(manifest_of(config).query_encoder_id)
    refit_space(config)
    manifest = manifest_of(config)
    assert list(store.walk(layout.vectors_folder(queries, "query")))
    assert not list(store.walk(layout.vectors_folder(queries, "document")))
    assert not list(store.walk(layout.vectors_folder(manifest.encoder_id, "query")))


def test_every_command_knows_the_files_of_both(embedded: PipelineConfig, tmp_path: Path) -> None:
    config = copied(embedded, tmp_path)
    store, manifest = store_of(config), manifest_of(config)
    queries = str(manifest.query_encoder_id)
    assert verify_snapshot(store, "c").failures == ()
    users = {one.encoder_id: one.used_by for one in list_encoders(store)}
    assert users == {queries: ("c/production (queries)",), manifest.encoder_id: ("c/production (documents)",)}
    both = sum(stat.size for stat in store.walk("encoders") if "/described/" not in stat.path)
    assert disk_usage(store, "c")["encoders"] == both
    database = tmp_path / "serving.duckdb"
    database.write_bytes(store.read(serving_files(manifest)[0]))
    with duckdb.connect(str(database), read_only=True) as connection:
        found = connection.execute("SELECT value FROM meta WHERE key LIKE '%encoder_id' ORDER BY key").fetchall()
    assert found == [(manifest.encoder_id,), (queries,)]
    sizes = read_encoder_record(store, queries).files
    weights = sum(file.size for name, file in sizes.items() if name.endswith(".safetensors"))
    assert serving_memory(store, manifest).encoder == 2 * weights
    assert not any("encoders/" in one.path for one in vacuum(store, tmp_path, retention_days=0, vectors=True).removals)
    lost = next(ref.path for ref in manifest.sealed_files if queries in ref.path and ref.path.endswith("safetensors"))
    store.write(lost, b"damaged")
    assert any(queries in failure for failure in verify_snapshot(store, "c").failures)


def test_swapped_identities_in_a_manifest_are_refused(embedded: PipelineConfig, tmp_path: Path) -> None:
    store, manifest = store_of(copied(embedded, tmp_path)), manifest_of(embedded)
    swapped = manifest.model_copy(
        update={"encoder_id": manifest.query_encoder_id, "query_encoder_id": manifest.encoder_id}
    )
    store.write(layout.CollectionPaths("c").snapshot(2), seal(swapped.model_dump(mode="json")))
    with pytest.raises(MismatchError, match="its encoder_id for role document is"):
        open_index(store, "c")


def test_encoders_of_other_dimensions_are_refused_before_anything_is_read(
    embedded: PipelineConfig, tmp_path: Path
) -> None:
    other = build_tiny_model(tmp_path / "wide", dimension=32)
    config = changed(copied(embedded, tmp_path / "copy"), query_encoder={"model": str(other)})
    with pytest.raises(ConfigError, match=r"query_encoder gives 32 dimensions .* and recipe.encoder 16"):
        plan_run(config)


def test_errors_on_the_model_for_queries_name_its_setting(embedded: PipelineConfig, tmp_path: Path) -> None:
    config = changed(copied(embedded, tmp_path), query_encoder={"model": "./nowhere"})
    for run in (embed_inline, plan_run):
        with pytest.raises(ConfigError, match=r"^recipe.query_encoder.model = ./nowhere"):
            run(config)
    onnx = config.model_copy(update={"runtime": config.runtime.model_copy(update={"backend": "onnx"})})
    with pytest.raises(ConfigError, match=r"^recipe.query_encoder.precision = 'bfloat16' needs"):
        plan_run(changed(onnx, query_encoder={"model": "m", "precision": "bfloat16"}))


def test_models_that_share_no_space_are_warned_of(
    embedded: PipelineConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def warned(config: PipelineConfig) -> list[str]:
        return load_space(store_of(config), manifest_of(config).space_id).provenance["warnings"]

    copy = copied(embedded, tmp_path / "copy")
    related = changed(copy, query_encoder={"model": copy.recipe.encoder.model, "max_tokens": 40})
    foreign = changed(copy, query_encoder={"model": str(foreign_model(tmp_path / "foreign"))})
    with caplog.at_level(logging.ERROR):
        refit_space(related)
        assert not any("share no space" in line for line in warned(related))
        refit_space(foreign)
    assert any("share no space" in line for line in warned(foreign))


def test_the_routes_of_a_router_model_are_the_encoders_of_both_roles(models: tuple[Path, Path], tmp_path: Path) -> None:
    router = save_router(tmp_path / "router", *models)
    source = write_jsonl(tmp_path / "d.jsonl", sentences(40))
    config = configuration(router, source, tmp_path / "store")
    embed_inline(config)
    manifest = manifest_of(config)
    records = {role: read_encoder_record(store_of(config), name) for role, name in manifest.encoder_ids.items()}
    assert any(name.startswith("document_0_Transformer/") for name in records["document"].files)
    assert any(name.startswith("query_0_Transformer/") for name in records["query"].files)
    from sentence_transformers import SentenceTransformer

    library = SentenceTransformer(str(router), device="cpu")
    with open_index(store_of(config), "c") as index:
        ours = {role: index.space.encode(["Protein cell"], role) for role in ROLES}
    assert np.allclose(ours["query"], library.encode_query(["Protein cell"]), atol=1e-5)
    assert np.allclose(ours["document"], library.encode_document(["Protein cell"]), atol=1e-5)
