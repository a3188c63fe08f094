"""Rewrite parts of a snapshot: merge several into one, without deleted documents.

No text is chunked or encoded again. A run would write the same files for the same documents: their names are derived
from the same inputs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import PurePosixPath

import pyarrow as pa

from isospace.collection.live_rows import without_documents
from isospace.collection.origins import origin_metadata, part_origins
from isospace.collection.part_record import PartRecord
from isospace.collection.segments import require_space
from isospace.collection.snapshot import Manifest
from isospace.errors import IntegrityError
from isospace.storage.hashing import fingerprint, sha256_lines
from isospace.storage.parquet import FileRef, metadata_of, parse_parquet, read_verified, write_parquet
from isospace.storage.store import Store


def merge_parts(
    store: Store, manifest: Manifest, group: Sequence[PartRecord], gone: Mapping[str, Collection[str]]
) -> PartRecord | None:
    """Merge parts of a snapshot into one; return None if no document is left.

    Parameters
    ----------
    group
        The parts, in the order of the snapshot.
    gone
        IDs of the documents to leave out, by part.

    Raises
    ------
    IntegrityError
        If a file differs from its manifest, or if rows of chunks and vectors do not belong together.
    """
    # Only some parts have columns of headings.
    documents = pa.concat_tables(
        (without_documents(_read(store, part.documents), gone.get(part.name, ())) for part in group),
        promote_options="default",
    )
    if not documents.num_rows:
        return None
    columns = [documents[name].to_pylist() for name in ("doc_id", "doc_hash", "uri")]
    stem = sha256_lines(text for row in zip(*columns, strict=True) for text in row)
    name = fingerprint([stem, manifest.chunking_id])
    chunks, segments = [], []
    for part in group:
        rows, vectors = _read(store, part.chunks), _read(store, part.segment)
        require_space(vectors, part.segment.path, manifest.space_id)
        if not rows["chunk_id"].equals(vectors["chunk_id"]):
            raise IntegrityError(
                f"{part.segment.path}: its rows differ from those of {part.chunks.path}. Restore the file, or delete "
                "both and run the pipeline again."
            )
        chunks.append(without_documents(rows, gone.get(part.name, ())))
        segments.append(without_documents(vectors, gone.get(part.name, ())))
    metadata = [metadata_of(table) for table in segments]
    counts = {key: str(sum(int(entries.get(key, 0)) for entries in metadata)) for key in ("clipped", "saturated")}
    origins = [origin for part in group for origin in part_origins(manifest.origins, part.name)]
    paths = manifest.paths
    return PartRecord(
        name=name,
        documents=write_parquet(store, paths.documents(stem), documents.replace_schema_metadata(None)),
        chunks=write_parquet(
            store,
            paths.chunks(name),
            _located(pa.concat_tables(chunks, promote_options="default"), documents).replace_schema_metadata(
                {"chunking_id": manifest.chunking_id}
            ),
            dictionary=["uri", "title", "doc_id", "prefix", "heading_path.list.element"],
        ),
        segment=write_parquet(
            store,
            paths.segment(manifest.space_id, name),
            pa.concat_tables(table.replace_schema_metadata(None) for table in segments),
            metadata={**metadata[0], "part": name, **counts, **origin_metadata(origins)},
            dictionary=["doc_id"],
        ),
        sparse=_merge_sparse(
            store,
            manifest,
            group,
            gone,
            name,
            pa.concat_tables([rows.select(["chunk_id"]) for rows in chunks])["chunk_id"],
        ),
    )


def _merge_sparse(
    store: Store,
    manifest: Manifest,
    group: Sequence[PartRecord],
    gone: Mapping[str, Collection[str]],
    name: str,
    chunk_ids: pa.ChunkedArray,
) -> FileRef | None:
    """Merge the sparse segments of parts; None if the snapshot has no sparse space."""
    if manifest.sparse_space_id is None:
        return None
    tables = []
    for part in group:
        if part.sparse is None:
            raise IntegrityError(
                f"snapshot {manifest.sequence}: part {part.name[:16]}… has no sparse vectors, but the snapshot has a "
                "sparse space. Restore the manifest."
            )
        rows = _read(store, part.sparse)
        require_space(rows, part.sparse.path, manifest.sparse_space_id)
        tables.append(without_documents(rows, gone.get(part.name, ())))
    metadata = [metadata_of(table) for table in tables]
    merged = pa.concat_tables(table.replace_schema_metadata(None) for table in tables)
    if not merged["chunk_id"].equals(chunk_ids):
        raise IntegrityError(
            f"{group[0].chunks.path}: the rows of its sparse vectors differ from its chunks. Restore the files, or "
            "delete them and run the pipeline again."
        )
    saturated = str(sum(int(entries.get("saturated", 0)) for entries in metadata))
    return write_parquet(
        store,
        manifest.paths.segment(manifest.sparse_space_id, name),
        merged,
        metadata={**metadata[0], "part": name, "saturated": saturated},
        dictionary=["doc_id"],
    )


def _located(chunks: pa.Table, documents: pa.Table) -> pa.Table:
    """Return chunks with the URIs of their documents, which may have moved since the chunks were written."""
    uris = dict(zip(documents["doc_id"].to_pylist(), documents["uri"].to_pylist(), strict=True))
    current = pa.array([uris[doc_id] for doc_id in chunks["doc_id"].to_pylist()], pa.string())
    return chunks.set_column(chunks.column_names.index("uri"), chunks.schema.field("uri"), current)


def stem_of(path: str) -> str:
    """Return the name of a file without folder and extension."""
    return PurePosixPath(path).stem


def _read(store: Store, reference: FileRef) -> pa.Table:
    return parse_parquet(read_verified(store, reference), reference.path)
