"""A snapshot promises what the vectors of its parts allow, whatever the space was sealed with."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from isospace.collection.origins import UNRECORDED, segment_origins
from isospace.collection.snapshot import latest_manifest
from isospace.collection.status import list_snapshots
from isospace.collection.vector_files import vector_parts
from isospace.encoding import bits
from isospace.encoding.backends.base import BackendName
from isospace.encoding.encoder import SentenceEncoder
from isospace.encoding.engine import Engine
from isospace.errors import MismatchError
from isospace.operations.maintenance.compact import compact_collection
from isospace.operations.maintenance.compaction_settings import CompactionSettings
from isospace.operations.maintenance.forget import forget
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.embed import plan_run, selected
from isospace.pipeline.selection import Selection
from isospace.search.index import Index
from isospace.search.local.copy import pick
from isospace.search.open_index import open_index
from isospace.service.keys import Keys
from isospace.service.metrics import Metrics
from isospace.storage.hashing import seal, sha256
from isospace.storage.parquet import metadata_of, read_parquet
from isospace.storage.store import open_store
from tests.helpers.documents import configuration, copied, sentences, write_jsonl
from tests.helpers.inline import embed_inline

FIRST = sentences(30, seed=1)
MORE = {f"more-{name}": text for name, text in sentences(12, seed=2).items()}
X86 = platform.machine() in ("x86_64", "AMD64")


@pytest.fixture(scope="module")
def sealed(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> PipelineConfig:
    """A store whose space was sealed by OpenVINO, which computed all vectors."""
    folder = tmp_path_factory.mktemp("promise")
    config = configuration(tiny_model, write_jsonl(folder / "d.jsonl", FIRST), folder / "store")
    config = config.model_copy(update={"runtime": config.runtime.model_copy(update={"backend": "openvino"})})
    report = embed_inline(config)
    assert report.warnings == ()
    return config


@pytest.fixture
def grown(sealed: PipelineConfig, tmp_path: Path) -> Callable[..., PipelineConfig]:
    """A copy of the store whose source has more documents, with other settings of the run."""

    def build(documents: dict[str, str] | None = None, **runtime: object) -> PipelineConfig:
        config = copied(sealed, tmp_path / "copy")
        write_jsonl(Path(config.runtime.source), documents if documents is not None else FIRST | MORE)
        return changed(config, **runtime)

    return build


def metrics_of(index: Index) -> bytes:
    return Metrics(index, Keys({}), None, None).exposition("text/plain")[0]


def changed(config: PipelineConfig, **runtime: object) -> PipelineConfig:
    given = {**config.runtime.model_dump(), **runtime}
    return PipelineConfig.model_validate({"recipe": config.recipe.model_dump(), "runtime": given})


def opened(config: PipelineConfig, **options: object) -> Index:
    return open_index(config.runtime.store, "c", **options)  # type: ignore[arg-type]


def equal_bits(index: Index) -> dict[str, tuple[int, int]]:
    """Embed all texts again, and count the equal vectors among all, of the first documents and of the added ones."""
    counts = {"first": (0, 0), "more": (0, 0)}
    table = index.chunks
    rows = pick(table, range(table.num_rows))
    vectors = index.space.embed([row["prefix"] + row["text"] for row in rows], "document")
    stored = np.asarray(index.view.copy.codes["float32"].array)
    for row, new, old in zip(rows, vectors, stored, strict=True):
        kind = "more" if row["doc_id"].startswith("more-") else "first"
        equal, total = counts[kind]
        counts[kind] = equal + (new.tobytes() == old.tobytes()), total + 1
    return counts


def test_one_engine_promises_bits_and_keeps_the_promise(grown: Callable[..., PipelineConfig]) -> None:
    config = grown()
    assert embed_inline(config).warnings == ()
    index = opened(config)
    assert index.promise.is_bitwise
    assert index.space.agreement is not None
    assert index.space.agreement.bitwise
    assert all(equal == total > 0 for equal, total in equal_bits(index).values())
    assert b"isospace_bitwise 1.0" in metrics_of(index)
    assert [one.promise for one in list_snapshots(open_store(config.runtime.store))] == ["bitwise", "bitwise"]


@pytest.mark.integration
@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_vectors_of_another_engine_end_the_promise(
    backend: BackendName, grown: Callable[..., PipelineConfig], caplog: pytest.LogCaptureFixture
) -> None:
    config = grown(backend=backend)
    planned = plan_run(config)
    assert "openvino" in planned.mixed
    assert ("mixed bits", planned.mixed) in planned.rows()
    report = embed_inline(config)
    assert any("openvino" in warning and backend in warning for warning in report.warnings)
    caplog.clear()
    index = opened(config)
    assert not index.promise.is_bitwise
    assert index.space.agreement is not None
    assert not index.space.agreement.bitwise
    assert "openvino" in index.promise.reason
    assert backend in caplog.text
    assert index.promise.cosine is not None
    assert 0.99999 < index.promise.cosine <= 1.0
    counts = equal_bits(index)
    assert counts["more"][0] < counts["more"][1]
    assert b"isospace_bitwise 0.0" in metrics_of(index)
    assert [one.promise for one in list_snapshots(index.store)] == ["bitwise", "mixed"]
    # The snapshot before keeps its own promise.
    assert opened(config, alias="1").promise.is_bitwise


def test_another_engine_is_refused_before_it_encodes(grown: Callable[..., PipelineConfig]) -> None:
    config = grown(backend="torch", mixed_bits="refuse")
    store = open_store(config.runtime.store)
    manifest = latest_manifest(store, "c")
    assert manifest is not None
    before = vector_parts(store, manifest.encoder_id)
    with pytest.raises(MismatchError, match=r"come from openvino.*computes with torch.*mixed_bits=warn"):
        embed_inline(config)
    assert vector_parts(store, manifest.encoder_id) == before
    assert latest_manifest(store, "c") == manifest
    assert embed_inline(changed(config, backend="openvino")).warnings == ()


@pytest.mark.skipif(not X86, reason="another instruction set is chosen by a setting of x86")
@pytest.mark.parametrize("policy", ["warn", "refuse"])
def test_another_instruction_set_of_the_same_engine_is_noticed(
    policy: str, grown: Callable[..., PipelineConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = grown(workers={"kind": "processes", "count": 1}, mixed_bits=policy)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX")
    if policy == "refuse":
        with pytest.raises(MismatchError, match=r"this run computes with openvino .*ONEDNN_MAX_CPU_ISA=AVX"):
            embed_inline(config)
        return
    assert any("ONEDNN_MAX_CPU_ISA=AVX" in warning for warning in embed_inline(config).warnings)
    index = opened(config)
    assert not index.promise.is_bitwise
    counts = equal_bits(index)
    assert counts["first"][0] == counts["first"][1]
    assert counts["more"][0] < counts["more"][1]


def test_a_backfill_by_another_engine_is_judged_like_a_run(grown: Callable[..., PipelineConfig]) -> None:
    config = selected(grown(backend="torch"), Selection(doc_ids=("more-d00001",)), None, "test")
    assert any("torch" in warning for warning in embed_inline(config).warnings)
    assert not opened(config).promise.is_bitwise


def test_maintenance_and_refits_keep_what_computed_the_vectors(
    grown: Callable[..., PipelineConfig], tmp_path: Path
) -> None:
    config = grown(backend="torch")
    embed_inline(config)
    store = open_store(config.runtime.store)
    compact_collection(store, "c", CompactionSettings(part_documents=1000))
    manifest = latest_manifest(store, "c")
    assert manifest is not None
    assert manifest.origins is not None
    assert len(manifest.parts) == 1
    merged = manifest.origins.of(manifest.parts[0].name)
    assert {origin.engine.split()[0] for origin in merged} == {"openvino", "torch"}
    assert set(segment_origins(metadata_of(read_parquet(store, manifest.parts[0].segment.path)))) == set(merged)
    forget(store, "c", ["d00003"], tmp_path, reason="test")
    assert list_snapshots(store, "c")[-1].promise == "mixed"
    # A refit with the first engine reads the raw vectors of both.
    refit = changed(config, backend="openvino", refit=True)
    report = embed_inline(refit)
    assert (report.encoded, report.committed) == (0, True)
    assert any("torch" in warning for warning in report.warnings)
    assert not opened(refit).promise.is_bitwise
    recipe = {**config.recipe.model_dump(), "transform": {"fit": {"kind": "none"}}}
    runtime = {**refit.runtime.model_dump(), "mixed_bits": "refuse"}
    strict = PipelineConfig.model_validate({"recipe": recipe, "runtime": runtime})
    with pytest.raises(MismatchError, match=r"mixed_bits is refuse"):
        embed_inline(strict)


def test_forgetting_the_other_engine_restores_the_promise(grown: Callable[..., PipelineConfig], tmp_path: Path) -> None:
    config = grown(backend="torch")
    embed_inline(config)
    store = open_store(config.runtime.store)
    forget(store, "c", list(MORE), tmp_path, reason="test")
    assert list_snapshots(store, "c")[-1].promise == "bitwise"
    assert opened(config).promise.is_bitwise


def test_a_query_side_with_another_engine_promises_a_tolerance(grown: Callable[..., PipelineConfig]) -> None:
    config = grown(FIRST)
    promise = opened(config, engine=Engine(backend="torch", device="cpu")).promise
    assert not promise.is_bitwise
    assert "come from openvino" in promise.reason
    assert "here, torch" in promise.reason
    assert opened(config, encode=False).promise.cosine is None
    assert not opened(config, encode=False).promise.is_bitwise


def test_the_vectors_count_and_not_the_engine_that_sealed_the_space(tiny_model: Path, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "d.jsonl", FIRST)
    config = configuration(tiny_model, source, tmp_path / "store", runtime={"backend": "torch"})
    embed_inline(config)
    assert not opened(config, engine=Engine(backend="torch", device="cpu")).promise.is_bitwise
    write_jsonl(source, MORE)
    config = changed(config, backend="openvino", max_removed_share=1.0)
    assert embed_inline(config).warnings == ()
    index = opened(config, engine=Engine(backend="openvino"))
    assert index.space.space.record.promise == "within tolerance"
    assert index.promise.is_bitwise
    assert equal_bits(index)["more"] == (len(index.chunks), len(index.chunks))


def test_the_precision_of_an_encoder_does_not_hide_the_engine(tiny_model: Path, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "d.jsonl", FIRST)
    recipe = {"encoder": {"model": str(tiny_model), "precision": "bfloat16"}}
    config = configuration(tiny_model, source, tmp_path / "store", recipe=recipe, runtime={"backend": "openvino"})
    embed_inline(config)
    assert opened(config).promise.stored[0].startswith("openvino")
    assert "bfloat16" in opened(config).promise.stored[0]
    write_jsonl(source, FIRST | MORE)
    config = changed(config, backend="torch")
    assert any("torch" in warning for warning in embed_inline(config).warnings)
    promise = opened(config).promise
    assert not promise.is_bitwise
    assert promise.cosine is not None
    assert 0.9 < promise.cosine < 0.9999999


def test_a_store_of_an_older_version_opens_and_is_continued(grown: Callable[..., PipelineConfig]) -> None:
    config = grown()
    folder, store = Path(config.runtime.store), open_store(config.runtime.store)
    as_of_an_older_version(folder)
    index = opened(config)
    assert not index.promise.is_bitwise
    assert "not recorded" in index.promise.reason
    assert [one.promise for one in list_snapshots(store)] == ["not recorded"]
    assert any("not recorded" in warning for warning in embed_inline(config).warnings)
    manifest = latest_manifest(store, "c")
    assert manifest is not None
    assert manifest.origins is not None
    assert UNRECORDED in manifest.origins.classes
    assert list_snapshots(store)[-1].promise == "not recorded"
    assert not opened(config).promise.is_bitwise
    with pytest.raises(MismatchError, match="not recorded"):
        embed_inline(changed(config, refit=True, mixed_bits="refuse"))


def as_of_an_older_version(folder: Path) -> None:
    """Remove from every file what older versions did not write, and recompute the hashes."""
    path = next((folder / "collections/c/snapshots").glob("*.json"))
    body = json.loads(path.read_bytes())
    del body["seal_sha256"], body["origins"]
    for part in folder.glob("vectors/*/document/*.parquet"):
        strip(part, "instructions", "bits", "batch_invariant", "cosine", "provenance_sha256")
    for record in body["parts"]:
        file = folder / record["segment"]["path"]
        strip(file, "origins")
        record["segment"] |= {"size": file.stat().st_size, "sha256": sha256(file.read_bytes())}
    path.write_bytes(seal(body))


def strip(path: Path, *keys: str) -> None:
    table = pq.read_table(path)
    kept = {key: value for key, value in (table.schema.metadata or {}).items() if key.decode() not in keys}
    assert len(kept) < len(table.schema.metadata)
    pq.write_table(table.replace_schema_metadata(kept), path, compression="zstd", write_page_checksum=True)


def test_a_fingerprint_is_computed_once(tiny_encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    first = bits.computed_by(tiny_encoder)
    monkeypatch.setattr(bits, "bits_fingerprint", lambda encoder: pytest.fail("computed again"))
    assert bits.computed_by(tiny_encoder) == first
    assert len(first["bits"]) == 64
    assert first["instructions"]
