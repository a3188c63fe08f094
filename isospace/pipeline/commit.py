"""The commit stage: assemble a snapshot and commit it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from isospace.collection.alias import promote
from isospace.collection.alias_refusals import stays_message
from isospace.collection.cell_sizes import measure_cells
from isospace.collection.listing import record_listing
from isospace.collection.live_rows import live_parts
from isospace.collection.metadata_schema import fields_of, read_fields, schema_warnings
from isospace.collection.origins import origins_of, part_origins
from isospace.collection.part_changes import PartChange, count_chunks, count_live, fields_after, part_changes
from isospace.collection.part_record import PartRecord
from isospace.collection.snapshot import Manifest, commit_manifest, snapshot_id
from isospace.collection.tombstones import require_no_newer_tombstone
from isospace.encoding.embedder import load_space
from isospace.encoding.registry.record import read_encoder_record
from isospace.encoding.sparse.embedder import load_sparse_space
from isospace.encoding.sparse.record import read_sparse_record
from isospace.errors import NotFoundError, StoreError
from isospace.evaluation.gate.verdicts import promotion_problem
from isospace.ingest.metadata_types import MetadataField
from isospace.pipeline.chunk import ChunkPart
from isospace.pipeline.encode.mixed_bits import judge_mixture
from isospace.pipeline.run import Run
from isospace.pipeline.scan.diff import Scan
from isospace.pipeline.segment import Segment
from isospace.pipeline.sparse.segment import SparseParts
from isospace.storage import paths as layout
from isospace.storage.hashing import sha256
from isospace.storage.parquet import FileRef
from isospace.storage.store import Store
from isospace.transform.space import SPACE_FILES
from isospace.transform.sparse_space import SPARSE_SPACE_FILES

_LOG = logging.getLogger(__name__)
_PACKAGES = ("isospace", "numpy", "pyarrow", "torch", "transformers", "sentence-transformers", "tokenizers", "prefect")


@dataclass(frozen=True, slots=True)
class Commit:
    """The outcome of a commit.

    Attributes
    ----------
    manifest
        The latest snapshot of the collection.
    is_new
        False if the collection already had this content in this space.
    warning
        That its vectors have different bits; None if they do not.
    metadata
        What changed in the types of metadata fields.
    """

    manifest: Manifest
    is_new: bool
    warning: str | None = None
    metadata: tuple[str, ...] = ()


def commit_snapshot(
    run: Run,
    scan: Scan,
    space_id: str,
    parts: Sequence[ChunkPart],
    segments: Sequence[Segment],
    sparse: SparseParts | None = None,
) -> Commit:
    """Commit what a run has built, unless the collection already has it.

    Raises
    ------
    ConflictError
        If another run committed first, or if documents were forgotten since the run began; the next attempt plans
        again.
    MismatchError
        If the vectors have different bits, and `runtime.mixed_bits` is `refuse`.
    StoreError
        If a file that the snapshot would name is missing.
    """
    committed = _commit(run, scan, space_id, parts, segments, sparse)
    # A listing is about documents: another run may have committed others first.
    if scan.listing is not None and scan.listing.documents_digest == committed.manifest.documents_digest:
        try:
            record_listing(run.store, run.collection, scan.listing)
        except StoreError as error:
            # The snapshot is committed; without its listing, the next run reads everything.
            _LOG.warning("the listing of the source was not recorded, so that the next run reads everything: %s", error)
    return committed


def _commit(
    run: Run,
    scan: Scan,
    space_id: str,
    parts: Sequence[ChunkPart],
    segments: Sequence[Segment],
    sparse: SparseParts | None,
) -> Commit:
    sparse_id = None if sparse is None else sparse.space_id
    identity = snapshot_id(
        space_id=space_id,
        chunking_id=run.chunking_id,
        documents_digest=scan.documents_digest,
        sparse_space_id=sparse_id,
    )
    base = run.base
    declared = run.config.recipe.documents.metadata_types
    is_same = base is not None and base.snapshot_id == identity and base.declared_types == declared
    if base is not None and is_same and not run.damaged:
        return Commit(base, is_new=False)
    kept_names = set(scan.kept)
    records = [_located(part, scan) for part in base.parts if part.name in kept_names] if base else []
    by_name = {segment.part: segment.file for segment in segments}
    beside = {} if sparse is None else sparse.files
    records += [
        PartRecord(
            name=p.name,
            documents=p.documents,
            chunks=p.chunks,
            segment=by_name[p.name],
            sparse=beside[p.name] if sparse is not None else None,
        )
        for p in parts
    ]
    differing = _differing(run, base, records, scan.deletions)
    made = {segment.part: segment.origins for segment in segments}
    older = base.origins if base else None
    origins = origins_of({p.name: made[p.name] if p.name in made else part_origins(older, p.name) for p in records})
    manifest = Manifest(
        collection=run.collection,
        sequence=base.sequence + 1 if base else 1,
        snapshot_id=identity,
        documents_digest=scan.documents_digest,
        space_id=space_id,
        encoder_id=run.encoder_id,
        chunking_id=run.chunking_id,
        recipe=_recorded_recipe(run),
        documents=scan.documents,
        chunks=_chunks(run, records, scan.deletions, base, differing),
        parts=tuple(records),
        deletions=scan.deletions,
        quarantine=scan.quarantine,
        sealed_files=(
            *_sealed_files(run, space_id),
            *([] if sparse_id is None else _sealed_sparse_files(run.store, sparse_id)),
        ),
        provenance=_provenance(run) | _cells(run, space_id, records, scan.deletions),
        origins=origins,
        metadata=_fields(run, records, scan.deletions, base, differing),
        query_encoder_id=run.query_encoder_id,
        sparse_space_id=sparse_id,
    )
    # How a manifest names its parts is decided when it is written.
    if base is not None and is_same and set(base.files()) - set(base.part_lists) == set(manifest.files()):
        # A repair: the same files are back in place.
        return Commit(base, is_new=False)
    warning = judge_mixture(run.config.runtime.mixed_bits, origins.classes)
    changes = _schema_changes(run, manifest, base)
    committed = commit_manifest(run.store, manifest, tombstones=run.tombstones, base=None if run.damaged else base)
    return Commit(committed, is_new=True, warning=warning, metadata=changes)


def promote_new(run: Run, commit: Commit) -> bool:
    """Move the run's alias to its snapshot; return whether it moved.

    An alias stays where it is if it is held, or has named this snapshot or a later one before, since somebody rolled it
    back on purpose. It also stays if a gate objects to the snapshot, even if this run has no rules of its own.

    Raises
    ------
    ConflictError
        If documents were forgotten since the run began: the snapshot may have been replaced, and its search files with
        it. The next attempt plans again.
    """
    alias = run.config.runtime.promote_to
    if alias is None or promotion_problem(run.store, commit.manifest, alias):
        return False
    why = run.config.runtime.reason
    reason = f"run {run.run_id}: {why}" if why else f"run {run.run_id}"
    require_no_newer_tombstone(run.store, run.collection, run.tombstones)
    moved = promote(run.store, run.collection, alias, commit.manifest, reason=reason, forward_only=True)
    require_no_newer_tombstone(run.store, run.collection, run.tombstones)
    return moved is not None


def why_unmoved(run: Run, commit: Commit) -> str:
    """Return in a sentence why the run's alias does not move to its snapshot, even if it is not held.

    Empty if it moves, if it names the snapshot already, or if the run has no alias.
    """
    alias = run.config.runtime.promote_to
    if alias is None:
        return ""
    if stays := stays_message(run.store, run.collection, alias, commit.manifest):
        return stays
    problem = promotion_problem(run.store, commit.manifest, alias)
    return f"{alias} does not move: {problem.rstrip('.')}" if problem else ""


def _differing(
    run: Run, base: Manifest | None, records: Sequence[PartRecord], deletions: FileRef | None
) -> Sequence[PartChange] | None:
    """Return how the parts differ from those of the base; None if the figures of the base are of no use."""
    # Files of a damaged base may be lost.
    if base is None or run.damaged:
        return None
    changes = part_changes(run.store, base, records, deletions)
    return changes if len(changes) <= len(records) else None


def _chunks(
    run: Run,
    records: Sequence[PartRecord],
    deletions: FileRef | None,
    base: Manifest | None,
    changes: Sequence[PartChange] | None,
) -> int:
    if base is not None and changes is not None:
        # Only files of the snapshot have to be there, and a part that it lacks is read.
        with contextlib.suppress(NotFoundError):
            return count_chunks(run.store, base, changes)
    return sum(count_live(run.store, part.record, part.deleted) for part in live_parts(run.store, records, deletions))


def _fields(
    run: Run,
    records: Sequence[PartRecord],
    deletions: FileRef | None,
    base: Manifest | None,
    changes: Sequence[PartChange] | None,
) -> tuple[MetadataField, ...] | None:
    declared = run.config.recipe.documents.metadata_types
    fields = None
    if base is not None and changes is not None:
        with contextlib.suppress(NotFoundError):
            fields = fields_after(run.store, base, changes, declared)
    try:
        return fields if fields is not None else read_fields(run.store, records, deletions, declared)
    except NotFoundError:
        # Something deletes files while the run works: the commit names the file, and what to do.
        return None


def _cells(run: Run, space_id: str, records: Sequence[PartRecord], deletions: FileRef | None) -> dict[str, object]:
    """Return how evenly cells divide the snapshot, for its provenance; empty for a space without cells."""
    if run.transform.cells is None or (quantizer := load_space(run.store, space_id).transform.cells) is None:
        return {}
    try:
        return {"cells": measure_cells(run.store, records, deletions, quantizer.count).model_dump()}
    except NotFoundError:
        # As for metadata.
        return {}


def _schema_changes(run: Run, manifest: Manifest, base: Manifest | None) -> tuple[str, ...]:
    # Documents of a damaged base may be lost.
    known = base is not None and (base.metadata is not None or not run.damaged)
    before = fields_of(run.store, base) if base is not None and known else ()
    return schema_warnings(manifest.metadata or (), before, base.sequence if base is not None else 0)


def _located(part: PartRecord, scan: Scan) -> PartRecord:
    """Return a kept part with its documents where they are now."""
    documents = scan.moved_parts.get(part.name)
    return part if documents is None else part.model_copy(update={"documents": documents})


def _recorded_recipe(run: Run) -> dict[str, Any]:
    """Return the recipe with hashes instead of query files, and without a query encoder that it does not name."""
    recipe = run.config.recipe.model_copy(update={"transform": run.transform})
    return recipe.model_dump(mode="json", exclude={"query_encoder"} if recipe.query_encoder is None else None)


def _sealed_files(run: Run, space_id: str) -> list[FileRef]:
    documents = [layout.encoder_document(encoder_id) for encoder_id in run.encoder_ids]
    paths = [*documents, *(f"{layout.space_folder(space_id)}/{name}" for name in SPACE_FILES)]
    sealed = [(path, run.store.read(path)) for path in paths]
    models = [ref for encoder_id in run.encoder_ids for ref in _model_files(run.store, encoder_id)]
    return [*(FileRef(path=path, size=len(data), sha256=sha256(data)) for path, data in sealed), *models]


def _model_files(store: Store, encoder_id: str) -> list[FileRef]:
    folder = layout.encoder_model(encoder_id)
    files = read_encoder_record(store, encoder_id).files
    return [FileRef(path=f"{folder}/{name}", size=file.size, sha256=file.sha256) for name, file in files.items()]


def _sealed_sparse_files(store: Store, space_id: str) -> list[FileRef]:
    encoder_id = load_sparse_space(store, space_id).record.encoder_id
    folder = layout.encoder_model(encoder_id)
    files = read_sparse_record(store, encoder_id).files
    model = [FileRef(path=f"{folder}/{name}", size=f.size, sha256=f.sha256) for name, f in files.items()]
    space = [f"{layout.space_folder(space_id)}/{name}" for name in SPARSE_SPACE_FILES]
    sealed = [(path, store.read(path)) for path in (layout.sparse_encoder_document(encoder_id), *space)]
    return [*(FileRef(path=path, size=len(data), sha256=sha256(data)) for path, data in sealed), *model]


def _provenance(run: Run) -> dict[str, object]:
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "run_id": run.run_id,
        "parent": run.base_sequence,
        "committed_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "source": run.config.runtime.source,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": versions,
    }
