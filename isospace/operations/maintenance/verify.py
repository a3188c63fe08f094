"""Verify a snapshot: all its files, the files it was built from, and the output of its encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pyarrow as pa

from isospace.collection.alias import aliases, resolve
from isospace.collection.raw_vectors import read_vectors
from isospace.collection.segments import require_space, wrong_cells
from isospace.collection.snapshot import Manifest, read_manifest, sequences
from isospace.collection.sparse_vectors import read_sparse_vectors
from isospace.collection.vector_files import vector_parts
from isospace.collection.vector_index.manifests import verify_index
from isospace.encoding.embedder import load_space, open_space
from isospace.encoding.engine import Engine
from isospace.encoding.registry.files import EXPORT_KINDS, ExportKind, fetch_export, fetch_model, read_export
from isospace.encoding.registry.record import read_encoder_record
from isospace.encoding.sparse.embedder import load_sparse_space, open_sparse_space
from isospace.encoding.sparse.register import open_sparse_encoder
from isospace.errors import EncoderError, IntegrityError, IsospaceError
from isospace.evaluation.baseline_sample import verify_reference
from isospace.search.lexical_files import verify_lexical
from isospace.search.lexical_record import lexical_files
from isospace.search.remote.record import published_files
from isospace.search.remote.verify import verify_published
from isospace.search.sql_database import verify_serving
from isospace.storage import paths as layout
from isospace.storage.parquet import FileRef, parse_parquet, read_verified
from isospace.storage.store import Store
from isospace.transform.affine import Role
from isospace.transform.space import Space
from isospace.transform.sparse_space import check_sparse_probes


@dataclass(frozen=True, slots=True)
class VerificationResult:
    """The outcome of a verification."""

    snapshot: int
    snapshot_id: str
    files: int
    """Number of files that were read and hashed."""
    bytes: int
    failures: tuple[str, ...]
    """One message per fault; empty if there are none."""


def verify_snapshot(
    store: Store, collection: str, reference: str = "production", *, engine: Engine | None = None
) -> VerificationResult:
    """Check every file of a snapshot, and the files derived from it or needed to search it.

    These are its parts, raw vectors, search files, audit reference, encoder, and alias history. All faults are
    collected, not only the first. `reference` is an alias, a snapshot number, or the first digits of a
    snapshot ID; `engine` encodes the probes.
    """
    manifest = resolve(store, collection, reference)
    failures: list[str] = []
    for number in sequences(store, collection):
        _attempt(failures, lambda number=number: read_manifest(store, collection, number))  # type: ignore[misc]
    _attempt(failures, lambda: aliases(store, collection))
    segments = {part.segment.path: manifest.space_id for part in manifest.parts}
    segments |= {part.sparse.path: str(manifest.sparse_space_id) for part in manifest.parts if part.sparse is not None}
    with_cells = _space_with_cells(store, manifest.space_id)
    for ref in manifest.files():
        _attempt(failures, lambda ref=ref: _verify(store, ref, segments, with_cells))  # type: ignore[misc]
    parts = vector_parts(store, manifest.encoder_id)
    for path in parts:
        _attempt(failures, lambda path=path: read_vectors(store, path, manifest.encoder_id))  # type: ignore[misc]
    sparse_id = manifest.sparse_encoder_id
    sparse_parts = [] if sparse_id is None else vector_parts(store, sparse_id)
    for path in sparse_parts:
        _attempt(failures, lambda path=path: read_sparse_vectors(store, path, str(sparse_id)))  # type: ignore[misc]
    indexed = [encoder_id for encoder_id in (manifest.encoder_id, sparse_id) if encoder_id is not None]
    for encoder_id in indexed:
        _attempt(failures, lambda encoder_id=encoder_id: verify_index(store, encoder_id))  # type: ignore[misc]
    _attempt(failures, lambda: verify_serving(store, manifest))
    _attempt(failures, lambda: verify_lexical(store, manifest))
    _attempt(failures, lambda: verify_published(store, manifest))
    _attempt(failures, lambda: verify_reference(store, manifest))
    for role, name in manifest.encoder_ids.items():
        _attempt(failures, lambda name=name: fetch_model(store, read_encoder_record(store, name)))  # type: ignore[misc]
        for kind in EXPORT_KINDS:
            _attempt(failures, lambda role=role, kind=kind: _verify_export(store, manifest, role, kind))  # type: ignore[misc]
    if not failures:
        # With damaged files, encoding the probes would only report the same faults again.
        _attempt(failures, lambda: _verify_space(store, manifest.space_id, engine))
        if (sparse_space := manifest.sparse_space_id) is not None:
            _attempt(failures, lambda: _verify_sparse(store, sparse_space, engine))
    refs = manifest.files()
    # The serving database, and the postings without their record.
    search_files = len(lexical_files(store, manifest))
    # The record of what is published may not exist.
    search_files += len(published_files(store, manifest)) - 1
    return VerificationResult(
        snapshot=manifest.sequence,
        snapshot_id=manifest.snapshot_id,
        files=len(refs) + len(parts) + len(sparse_parts) + search_files,
        bytes=sum(ref.size for ref in refs),
        failures=tuple(dict.fromkeys(failures)),
    )


def _verify(store: Store, ref: FileRef, segments: Mapping[str, str], with_cells: Space | None) -> None:
    """Check a file of a snapshot; `segments` are the paths of its segments, with their spaces."""
    data = read_verified(store, ref)
    if ref.path not in segments:
        return
    require_space(parse_parquet(data, ref.path, columns=["chunk_id"]), ref.path, segments[ref.path])
    if with_cells is not None and with_cells.space_id == segments[ref.path]:
        _verify_cells(parse_parquet(data, ref.path), ref.path, with_cells)


def _space_with_cells(store: Store, space_id: str) -> Space | None:
    """Return the space if it has cells; None also if it is damaged, which is found when its files are verified."""
    try:
        space = load_space(store, space_id)
    except IsospaceError:
        return None
    return space if space.transform.cells is not None else None


def _verify_cells(table: pa.Table, path: str, space: Space) -> None:
    """Assign some vectors of a segment again."""
    try:
        rows = wrong_cells(table, space)
    except IntegrityError as error:
        raise IntegrityError(f"{path}: {error}") from error
    if rows:
        raise IntegrityError(
            f"{path}: the cell of {len(rows)} rows is not that of their vectors; the first is that of chunk "
            f"{table['chunk_id'][rows[0]].as_py()!r}. Restore the segment, or delete it and run the pipeline again."
        )


def _verify_space(store: Store, space_id: str, engine: Engine | None) -> None:
    """Encode the probes of a space again, for both roles."""
    if open_space(store, space_id, engine=engine, documents=True).agreement is None:
        raise EncoderError(
            f"space {space_id[:16]}…: its probes were not compared, since the API of its encoder does not answer. Run "
            "the command again when it does."
        )


def _verify_sparse(store: Store, space_id: str, engine: Engine | None) -> None:
    """Encode the probes of a sparse space again, for both roles."""
    space = load_sparse_space(store, space_id)
    check_sparse_probes(space, open_sparse_encoder(store, space.record.encoder_id, engine))
    # Queries may need less of the model.
    open_sparse_space(store, space_id, engine=engine)


def _verify_export(store: Store, manifest: Manifest, role: Role, kind: ExportKind) -> None:
    encoder_id = manifest.encoder_ids[role]
    export = read_export(store, encoder_id, kind)
    if export is not None:
        fetch_export(store, encoder_id, export)
        return
    sealed_by = "query_engine" if encoder_id == manifest.query_encoder_id else "engine"
    made_with = load_space(store, manifest.space_id).provenance.get(sealed_by, {}).get("engine", "")
    if kind in ("tokenizer", "reference") or made_with.startswith(kind):
        path = layout.encoder_export(encoder_id, kind)
        raise IntegrityError(f"{path}: is missing, but the space was fitted with it. Restore it, or run the pipeline.")


def _attempt(failures: list[str], action: Callable[[], object]) -> None:
    try:
        action()
    except IsospaceError as error:
        failures.append(str(error))
