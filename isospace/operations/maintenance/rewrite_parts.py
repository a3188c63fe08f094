"""Write parts of a snapshot anew: several as one, without documents that are gone. No text is cut or encoded again.

The new files are what a run would have written for the same documents: their names derive from the same inputs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import PurePosixPath

import pyarrow as pa

from isospace.collection.live_rows import without_documents
from isospace.collection.segments import require_space
from isospace.collection.snapshot import Manifest, PartRecord
from isospace.errors import IntegrityError
from isospace.storage.hashing import fingerprint, sha256_lines
from isospace.storage.parquet import FileRef, metadata_of, parse_parquet, read_verified, write_parquet
from isospace.storage.store import Store


def merge_parts(
    store: Store, manifest: Manifest, group: Sequence[PartRecord], gone: Mapping[str, Collection[str]]
) -> PartRecord | None:
    """Write several parts as one.

    Parameters
    ----------
    store, manifest
        The snapshot.
    group
        Its parts, in order.
    gone
        By the name of a part, the doc_ids that are left out.

    Returns
    -------
    PartRecord or None
        None if no document is left.

    Raises
    ------
    IntegrityError
        If a file is not what its manifest says, or rows of chunks and vectors do not belong together.
    """
    documents = pa.concat_tables(
        without_documents(_read(store, part.documents), gone.get(part.name, ())) for part in group
    )
    if not documents.num_rows:
        return None
    columns = [documents[name].to_pylist() for name in ("doc_id", "doc_hash", "uri")]
    stem = sha256_lines(text for row in zip(*columns, strict=True) for text in row)
    name = fingerprint([stem, manifest.chunking_id])
    chunks, segments = [], []
    for part in group:
        found, vectors = _read(store, part.chunks), _read(store, part.segment)
        require_space(vectors, part.segment.path, manifest.space_id)
        if not found["chunk_id"].equals(vectors["chunk_id"]):
            raise IntegrityError(
                f"{part.segment.path}: its rows are not those of {part.chunks.path}. Restore the file, or delete both "
                "and run the flow again."
            )
        chunks.append(without_documents(found, gone.get(part.name, ())))
        segments.append(without_documents(vectors, gone.get(part.name, ())))
    told = [metadata_of(table) for table in segments]
    counts = {key: str(sum(int(entries.get(key, 0)) for entries in told)) for key in ("clipped", "saturated")}
    paths = manifest.paths
    return PartRecord(
        name=name,
        documents=write_parquet(store, paths.documents(stem), documents.replace_schema_metadata(None)),
        chunks=write_parquet(
            store,
            paths.chunks(name),
            pa.concat_tables(chunks).replace_schema_metadata({"chunking_id": manifest.chunking_id}),
            dictionary=["uri", "title", "doc_id", "prefix"],
        ),
        segment=write_parquet(
            store,
            paths.segment(manifest.space_id, name),
            pa.concat_tables(table.replace_schema_metadata(None) for table in segments),
            metadata={**told[0], "part": name, **counts},
            dictionary=["doc_id"],
        ),
    )


def stem_of(path: str) -> str:
    """Return the name of a file without folder and ending."""
    return PurePosixPath(path).stem


def _read(store: Store, reference: FileRef) -> pa.Table:
    return parse_parquet(read_verified(store, reference), reference.path)
