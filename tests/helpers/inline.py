"""The line without Prefect: the same stations in the same order, for tests of the core."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path

from isospace.collection.alias import aliases
from isospace.encoding.embedder import load_space
from isospace.encoding.encoder import SentenceEncoder
from isospace.encoding.registry.register import prepare_encoder
from isospace.pipeline.checks import check_segment, check_space, conclude
from isospace.pipeline.chunk import all_chunk_paths, write_chunks
from isospace.pipeline.commit import commit_snapshot, promote_new
from isospace.pipeline.config import PipelineConfig, engine_of
from isospace.pipeline.encode.plan import plan_shards
from isospace.pipeline.encode.shards import encode_shard
from isospace.pipeline.fit.fit_space import fit_space
from isospace.pipeline.plan_report import report_plan
from isospace.pipeline.run import start_run
from isospace.pipeline.run_report import RunReport, run_warnings, write_report
from isospace.pipeline.scan.diff import scan_source
from isospace.pipeline.segment import plan_segments, write_segment
from isospace.search.bm25 import build_lexical
from isospace.search.sql_database import build_serving
from isospace.storage.hashing import fingerprint
from isospace.storage.store import Store, open_store

# Preparing an encoder loads and exports its model: once for all stores of a session. Files are taken by content only.
_POOL = Path(tempfile.mkdtemp(prefix="isospace-tests-"))
atexit.register(shutil.rmtree, _POOL, ignore_errors=True)


def prepared(store: Store, config: PipelineConfig) -> SentenceEncoder:
    """Prepare an encoder as a run does, from what another test has exported of the same model if there is any."""
    pool = _POOL / fingerprint([config.recipe.encoder.model_dump(mode="json"), engine_of(config.runtime).backend])
    if store.root is None:
        return prepare_encoder(store, config.recipe.encoder, engine_of(config.runtime))
    target = store.root / "encoders"
    if pool.is_dir() and not target.exists():
        shutil.copytree(pool, target)
    is_new = not target.exists()
    encoder = prepare_encoder(store, config.recipe.encoder, engine_of(config.runtime))
    if is_new and not pool.exists():
        shutil.copytree(target, pool)
    return encoder


def embed_inline(config: PipelineConfig) -> RunReport:
    runtime = config.runtime
    store = open_store(runtime.store)
    encoder = prepared(store, config)
    with tempfile.TemporaryDirectory() as scratch:
        run = start_run(config, encoder.record, Path(scratch))
        found = scan_source(run)
        parts = [write_chunks(run, documents, encoder.counter()) for documents in found.parts]
        planned = plan_shards(run, parts, limit=encoder.record.longest)
        report = report_plan(run, found, parts, planned, encoder.record)
        encoded = [encode_shard(run, shard, encoder) for shard in planned.shards]
        paths = all_chunk_paths(run, found.kept, parts)
        space_id = run.space_id or fit_space(run, paths, encoder)
        space = load_space(store, space_id)
        segments = [write_segment(run, space, job) for job in plan_segments(run, parts)]
        checked = None
        rows = [check_segment(run, space, part, segment) for part, segment in zip(parts, segments, strict=True)]
        expected = sum(part.chunks.rows or 0 for part in parts)
        if parts:
            checked = conclude(run, rows, expected, check_space(run, space, paths, encoder), segments)
        committed = commit_snapshot(run, found, space_id, parts, segments)
        build_serving(store, committed.manifest, space, run.scratch, table_rows=runtime.serving_table_rows)
        build_lexical(store, committed.manifest, config.recipe.lexical, most_chunks=runtime.lexical_chunks)
        moved = promote_new(run, committed)
        manifest = committed.manifest
        result = RunReport(
            run_id=run.run_id,
            collection=run.collection,
            snapshot=manifest.sequence,
            snapshot_id=manifest.snapshot_id,
            space_id=space_id,
            committed=committed.is_new,
            promoted=runtime.promote_to if moved else None,
            gate=None,
            documents=manifest.documents,
            chunks=manifest.chunks,
            encoded=sum(e.chunks for e in encoded),
            tokens=sum(e.tokens for e in encoded),
            seconds=0.0,
            reused=planned.reused,
            left=0,
            money=None,
            clipped=sum(s.clipped for s in segments),
            saturated=sum(s.saturated for s in segments),
            quarantined=found.quarantined,
            quarantine=found.quarantine.path if found.quarantine else None,
            warnings=run_warnings(run, found, checked),
        )
        write_report(run, result, report, checked, segments, committed)
        assert not runtime.promote_to or runtime.promote_to in aliases(store, run.collection)
        return result
