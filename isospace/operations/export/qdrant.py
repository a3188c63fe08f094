"""Export to a Qdrant collection under a temporary name, which an alias names once it is complete.

Queries go to the alias. A collection without an alias is incomplete.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException

from isospace.errors import ConfigError, NotFoundError, StoreError
from isospace.operations.export.base import (
    KEY,
    ExportRecord,
    Source,
    changed_export,
    incomplete,
    parse_record,
    portable,
    store_errors,
)
from isospace.operations.export.target import Target

_ERRORS = (QdrantException, ApiException, ValueError, RuntimeError, OSError)
_MAKING = ".isospace-"
_REQUEST_ROWS = 100
_TIMEOUT_SECONDS = 120


def point_id(chunk_id: str) -> str:
    """Return the point ID of a chunk, a version 5 UUID."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, chunk_id))


def write(source: Source, target: Target, *, replace: bool) -> None:
    """Write a collection, and point the alias to it once it is complete."""
    making = f"{target.name}{_MAKING}{secrets.token_hex(6)}"
    with store_errors(target, *_ERRORS), _client(target) as client:
        _drop_unfinished(client, target.name)
        parameters = models.VectorParams(size=source.record.dimension, distance=models.Distance.DOT)
        client.create_collection(making, vectors_config=parameters)
        for batch in source.batches():
            payloads = _payloads(batch.rows)
            ids = [point_id(payload["chunk_id"]) for payload in payloads]
            client.upload_collection(
                making, vectors=batch.vectors, payload=payloads, ids=ids, batch_size=_REQUEST_ROWS, wait=True
            )
        _finish(client, making, source.record, target)
        _name(client, making, target, replace=replace)


def read_record(target: Target) -> ExportRecord:
    """Read the record of the export."""
    absent = NotFoundError(f"{target}: holds no export. Export a snapshot to it first.")
    # Opening a local folder would create files in it.
    if not _is_server(target) and not (Path(target.place) / "meta.json").is_file():
        raise absent
    with store_errors(target, *_ERRORS), _client(target) as client:
        named = _aliases(client).get(target.name)
        if named is None and target.name not in _collections(client):
            raise absent
        metadata = _metadata(client, named) if named else {}
    if KEY not in metadata:
        raise incomplete(target, "is a collection without a record" if named else "is a collection without an alias")
    return parse_record(metadata[KEY], target)


def verify(target: Target, record: ExportRecord) -> None:
    """Check the number of points and the dimension of the vectors."""
    with store_errors(target, *_ERRORS), _client(target) as client:
        rows = client.count(target.name, exact=True).count
        vectors = client.get_collection(target.name).config.params.vectors
    actual = (rows, getattr(vectors, "size", None))
    if actual != (record.rows, record.dimension):
        raise changed_export(
            target, f"has {actual[0]} points of {actual[1]} dimensions", f"{record.rows} of {record.dimension}"
        )


@contextlib.contextmanager
def _client(target: Target) -> Iterator[QdrantClient]:
    key = os.environ.get("QDRANT_API_KEY") or None
    client = (
        QdrantClient(url=target.place, api_key=key, timeout=_TIMEOUT_SECONDS, check_compatibility=False)
        if _is_server(target)
        else QdrantClient(path=target.place)
    )
    try:
        yield client
    finally:
        client.close()


def _is_server(target: Target) -> bool:
    return "://" in target.place


def _finish(client: QdrantClient, making: str, record: ExportRecord, target: Target) -> None:
    rows = client.count(making, exact=True).count
    if rows != record.rows:
        raise StoreError(f"{target}: holds {rows} points after the upload, expected {record.rows}. Export again.")
    client.update_collection(making, metadata={KEY: record.model_dump(mode="json")})
    # Older servers silently drop the metadata.
    if KEY not in _metadata(client, making):
        raise StoreError(
            f"{target}: the server does not store metadata of collections; expected Qdrant 1.16 or newer. Update it."
        )


def _name(client: QdrantClient, making: str, target: Target, *, replace: bool) -> None:
    before = _aliases(client).get(target.name)
    if before is not None and not replace:
        raise ConfigError(
            f"{target}: another export was written there meanwhile. Replace it with replace=True (--replace)."
        )
    create = models.CreateAliasOperation(
        create_alias=models.CreateAlias(collection_name=making, alias_name=target.name)
    )
    delete = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=target.name))
    client.update_collection_aliases([create] if before is None else [delete, create])
    if before is not None:
        client.delete_collection(before)


def _drop_unfinished(client: QdrantClient, name: str) -> None:
    """Remove the leftovers of killed exports under this name.

    Concurrent exports under one name are not supported.
    """
    named = set(_aliases(client).values())
    for collection in _collections(client):
        if collection.startswith(name + _MAKING) and collection not in named:
            client.delete_collection(collection)


def _aliases(client: QdrantClient) -> dict[str, str]:
    return {alias.alias_name: alias.collection_name for alias in client.get_aliases().aliases}


def _collections(client: QdrantClient) -> list[str]:
    return [collection.name for collection in client.get_collections().collections]


def _metadata(client: QdrantClient, collection: str) -> dict[str, Any]:
    return client.get_collection(collection).config.metadata or {}


def _payloads(rows: pa.RecordBatch) -> list[dict[str, Any]]:
    return [{**row, "metadata": portable(row["metadata"])} for row in rows.to_pylist()]
