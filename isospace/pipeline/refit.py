"""Fit a new space for a collection from its stored raw vectors, without reading its source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from isospace.collection.absent import absent_collection
from isospace.collection.snapshot import Manifest, latest_manifest
from isospace.encoding.encoder import LoadedEncoder
from isospace.encoding.engine import Engine
from isospace.encoding.loading import open_encoder
from isospace.encoding.registry.record import EncoderRecord
from isospace.encoding.sparse.embedder import load_sparse_space
from isospace.encoding.sparse.record import SparseEncoderRecord, read_sparse_record
from isospace.errors import ConfigError, IntegrityError, NotFoundError
from isospace.pipeline.chunk import ChunkPart
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.encode.shards import EncodePlan
from isospace.pipeline.judged_documents import require_judged
from isospace.pipeline.plan_report import PlanReport, report_plan
from isospace.pipeline.run import Run, start_run
from isospace.pipeline.scan.diff import Scan
from isospace.storage.spec import SpecModel
from isospace.storage.store import open_store


def recorded_encoder(config: PipelineConfig, engine: Engine) -> LoadedEncoder:
    """Load the encoder of a collection's latest snapshot from the store; the original model files are not needed.

    Raises
    ------
    NotFoundError
        If the collection has no snapshot.
    ConfigError
        If the recipe differs in more than the transform and the encoder of queries.
    """
    base = _base(config)
    recipe = config.recipe
    for part, spec in (("documents", recipe.documents), ("encoder", recipe.encoder), ("chunking", recipe.chunking)):
        if not _is_recorded(spec, base.recipe.get(part)):
            raise ConfigError(
                f"recipe.{part} differs from that of snapshot {base.sequence}, and a refit changes only "
                "recipe.transform and recipe.query_encoder. Use `isospace run CONFIG`, or the recipe of the snapshot, "
                "which `isospace show` prints."
            )
    if (recipe.sparse is None) != (base.recipe.get("sparse") is None) or (
        recipe.sparse is not None and not _is_recorded(recipe.sparse, base.recipe["sparse"])
    ):
        raise ConfigError(
            f"recipe.sparse differs from that of snapshot {base.sequence}, and a refit encodes nothing. Use "
            "`isospace run CONFIG`."
        )
    return open_encoder(open_store(config.runtime.store), base.encoder_id, engine)


def has_recorded_queries(config: PipelineConfig) -> bool:
    """Return whether queries have the encoder of the latest snapshot; a refit may give them another one."""
    spec, recorded = config.recipe.query_encoder, _base(config).recipe.get("query_encoder")
    if spec is None or recorded is None:
        return spec is recorded
    return _is_recorded(spec, recorded)


def recorded_query_encoder(config: PipelineConfig, engine: Engine) -> LoadedEncoder | None:
    """Load the encoder of queries of a collection's latest snapshot; None if it is that of documents."""
    base = _base(config)
    if base.query_encoder_id is None:
        return None
    return open_encoder(open_store(config.runtime.store), base.query_encoder_id, engine)


def recorded_sparse(config: PipelineConfig) -> SparseEncoderRecord | None:
    """Return the identity of the sparse encoder of a collection's latest snapshot; None if it has none."""
    base, store = _base(config), open_store(config.runtime.store)
    if base.sparse_space_id is None:
        return None
    return read_sparse_record(store, load_sparse_space(store, base.sparse_space_id).record.encoder_id)


def _is_recorded(spec: SpecModel, recorded: Any) -> bool:
    """Return whether a snapshot was made with a specification; older versions did not record every key of it.

    Types of metadata may differ: they change no document.
    """
    try:
        then = type(spec).model_validate(recorded)
    except ValidationError:
        return False
    return then.model_copy(update={"metadata_types": {}}) == spec.model_copy(update={"metadata_types": {}})


def start_refit(
    config: PipelineConfig,
    encoder: EncoderRecord,
    scratch: Path,
    *,
    queries: EncoderRecord | None = None,
    sparse: SparseEncoderRecord | None = None,
) -> Run:
    """Begin a run on the collection's latest snapshot; a sealed space that matches the recipe is reused.

    Raises
    ------
    IntegrityError
        If a file of the snapshot is lost: a refit reads no source and cannot rebuild it.
    """
    run = start_run(config, encoder, scratch, queries=queries, sparse=sparse)
    if run.damaged:
        raise IntegrityError(
            f"{run.damaged[0]}: is missing, or its size differs from the manifest of snapshot {run.base_sequence} "
            f"({len(run.damaged)} such files), and a refit reads no source to rebuild it from. Run "
            "`isospace run CONFIG` first."
        )
    return run


def stored_parts(run: Run) -> tuple[Scan, list[ChunkPart]]:
    """Return what a scan of an unchanged source would return, and the parts to transform again."""
    base = _base(run.config)
    if not run.rebuild:
        # The base already has the space of this recipe: all parts stay.
        kept, parts = tuple(part.name for part in base.parts), []
    else:
        kept, parts = (), [ChunkPart(part.name, part.documents, part.chunks, 0, 0) for part in base.parts]
    scan = Scan(
        added=0,
        changed=0,
        unchanged=base.documents,
        removed=0,
        stale=0,
        quarantined=0,
        forgotten=0,
        parts=(),
        kept=kept,
        deletions=base.deletions,
        quarantine=base.quarantine,
        documents_digest=base.documents_digest,
        documents=base.documents,
    )
    return scan, parts


def refit_plan(
    run: Run, scan: Scan, parts: list[ChunkPart], record: EncoderRecord, queries: EncoderRecord | None = None
) -> PlanReport:
    """Return the plan of a run that encodes nothing."""
    chunks = sum(part.chunks.rows or 0 for part in parts)
    nothing = EncodePlan(shards=(), chunks=chunks, distinct=chunks, reused=chunks, to_encode=0, tokens=0)
    return report_plan(run, scan, parts, nothing, record, require_judged(run, scan, parts), queries)


def _base(config: PipelineConfig) -> Manifest:
    store, name = open_store(config.runtime.store), config.runtime.collection
    base = latest_manifest(store, name)
    if base is None:
        raise NotFoundError(
            f"{absent_collection(store, name, 'no snapshot')} Embed it first with `isospace run CONFIG`."
        )
    return base
