"""Fit a new space for a collection as it is: from its stored raw vectors, without its source."""

from __future__ import annotations

from pathlib import Path

from isospace.collection.snapshot import Manifest, latest_manifest
from isospace.encoding.encoder import SentenceEncoder
from isospace.encoding.engine import Engine
from isospace.encoding.loading import open_encoder
from isospace.encoding.registry.record import EncoderRecord
from isospace.errors import ConfigError, IntegrityError, NotFoundError
from isospace.pipeline.chunk import ChunkPart
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.encode.shards import EncodePlan
from isospace.pipeline.plan_report import PlanReport, report_plan
from isospace.pipeline.run import Run, start_run
from isospace.pipeline.scan.diff import Scan
from isospace.storage.store import open_store


def recorded_encoder(config: PipelineConfig, engine: Engine) -> SentenceEncoder:
    """Load the encoder of a collection's latest snapshot from the store: the model's own files are not needed.

    Raises
    ------
    NotFoundError
        If the collection has no snapshot.
    ConfigError
        If the recipe asks for more than another transform.
    """
    base = _base(config)
    asked = config.recipe.model_dump(mode="json")
    for part in ("documents", "encoder", "chunking"):
        if base.recipe.get(part) != asked[part]:
            raise ConfigError(
                f"recipe.{part} differs from that of snapshot {base.sequence}, and a refit changes recipe.transform "
                "alone. Use python -m flows.embed_corpus, or give the recipe of the snapshot (isospace show)."
            )
    return open_encoder(open_store(config.runtime.store), base.encoder_id, engine)


def start_refit(config: PipelineConfig, encoder: EncoderRecord, scratch: Path) -> Run:
    """Begin a run on the collection's latest snapshot; a sealed space that the recipe asks for is used again.

    Raises
    ------
    IntegrityError
        If a file of the snapshot is lost: a refit reads no source, and cannot make it again.
    """
    run = start_run(config, encoder, scratch)
    if run.damaged:
        raise IntegrityError(
            f"{run.damaged[0]}: is missing or has another size than snapshot {run.base_sequence} says "
            f"({len(run.damaged)} such files), and a refit has no source to make it again from. Run python -m "
            "flows.embed_corpus first."
        )
    return run


def stored_parts(run: Run) -> tuple[Scan, list[ChunkPart]]:
    """Return what a scan of the unchanged documents would find, and all their parts."""
    base = _base(run.config)
    if not run.rebuild:
        # The base's space is what the recipe asks for: everything stays.
        kept, parts = tuple(part.name for part in base.parts), []
    else:
        kept, parts = (), [ChunkPart(part.name, part.documents, part.chunks, 0, 0) for part in base.parts]
    found = Scan(
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
    return found, parts


def refit_plan(run: Run, found: Scan, parts: list[ChunkPart], record: EncoderRecord) -> PlanReport:
    """Return the plan of a run that encodes nothing."""
    chunks = sum(part.chunks.rows or 0 for part in parts)
    nothing = EncodePlan(shards=(), chunks=chunks, distinct=chunks, reused=chunks, to_encode=0, tokens=0)
    return report_plan(run, found, parts, nothing, record)


def _base(config: PipelineConfig) -> Manifest:
    base = latest_manifest(open_store(config.runtime.store), config.runtime.collection)
    if base is None:
        raise NotFoundError(
            f"collection {config.runtime.collection!r}: no snapshot in {config.runtime.store}. Embed it first with "
            "python -m flows.embed_corpus CONFIG."
        )
    return base
