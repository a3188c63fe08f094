"""Export to a folder for FAISS: a flat index, the rows of its vectors, and the record.

index.faiss     IndexFlatIP, vectors in the order of the rows
rows.parquet    IDs, texts, spans, metadata (JSON)
isospace.json   the record, sealed
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss
import pyarrow.parquet as pq

from isospace.errors import ConfigError, IntegrityError, NotFoundError
from isospace.operations.export.base import (
    ROW_SCHEMA,
    ExportRecord,
    Source,
    changed_export,
    incomplete,
    parse_record,
    store_errors,
)
from isospace.operations.export.target import Target
from isospace.storage.hashing import seal, unseal

INDEX, ROWS, RECORD = "index.faiss", "rows.parquet", "isospace.json"
_FILES = {INDEX, ROWS, RECORD}
_LEFT_AFTER_SECONDS = 86_400


def write(source: Source, target: Target, *, replace: bool) -> None:
    """Write a temporary folder beside the target, then rename it.

    FAISS holds all vectors in memory until then.
    """
    folder = Path(target.place).absolute()
    if replace:
        _require_nothing_else(folder, target)
    with store_errors(target, OSError, RuntimeError):
        folder.parent.mkdir(parents=True, exist_ok=True)
        for path in _leftovers(folder):
            shutil.rmtree(path, ignore_errors=True)
        making = folder.with_name(_making(folder) + secrets.token_hex(6))
        making.mkdir()
        try:
            _write_files(source, making)
            _publish(making, folder, replace=replace)
        finally:
            shutil.rmtree(making, ignore_errors=True)


def read_record(target: Target) -> ExportRecord:
    """Read the record of the export."""
    return parse_record(_document(target)["record"], target)


def verify(target: Target, record: ExportRecord) -> None:
    """Check the files against their hashes."""
    for name, expected in _document(target)["files"].items():
        path = Path(target.place) / name
        digest = _digest(path) if path.is_file() else ""
        if digest != expected:
            raise changed_export(path, f"has SHA-256 {digest[:16]}…" if digest else "is missing", f"{expected[:16]}…")


def _document(target: Target) -> dict[str, Any]:
    folder = Path(target.place)
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        raise NotFoundError(f"{target}: holds no export. Export a snapshot to it first.")
    if not (folder / RECORD).is_file():
        raise incomplete(target, f"has no {RECORD}")
    try:
        return unseal((folder / RECORD).read_bytes(), name=RECORD)
    except IntegrityError as error:
        raise incomplete(target, f"its record cannot be read ({error})") from error


def _require_nothing_else(folder: Path, target: Target) -> None:
    """Refuse to replace an export if its folder holds files of somebody else."""
    others = sorted(path.name for path in folder.iterdir() if path.name not in _FILES) if folder.is_dir() else []
    if others:
        raise ConfigError(
            f"{target}: holds {others[0]}, which no export wrote; expected only {', '.join(sorted(_FILES))}. Move it "
            "away."
        )


def _write_files(source: Source, folder: Path) -> None:
    index = faiss.IndexFlatIP(source.record.dimension)
    with pq.ParquetWriter(folder / ROWS, ROW_SCHEMA, compression="zstd", write_page_checksum=True) as writer:
        for batch in source.batches():
            index.add(batch.vectors)
            writer.write_batch(batch.rows)
    faiss.write_index(index, str(folder / INDEX))
    files = {name: _digest(folder / name) for name in (INDEX, ROWS)}
    (folder / RECORD).write_bytes(seal({"record": source.record.model_dump(mode="json"), "files": files}))
    for name in _FILES:
        with (folder / name).open("rb") as stream:
            os.fsync(stream.fileno())


def _publish(making: Path, folder: Path, *, replace: bool) -> None:
    """Rename the folder to its final name; with `replace`, first move the old one aside."""
    if not (replace and folder.exists()):
        making.rename(folder)
        return
    aside = folder.with_name(_making(folder) + secrets.token_hex(6))
    folder.rename(aside)
    try:
        making.rename(folder)
    except OSError:
        aside.rename(folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _leftovers(folder: Path) -> Iterator[Path]:
    """Yield what killed exports to this folder left; a running export's folder is younger."""
    for path in folder.parent.iterdir():
        if path.name.startswith(_making(folder)) and time.time() - path.stat().st_mtime > _LEFT_AFTER_SECONDS:
            yield path


def _making(folder: Path) -> str:
    return f".{folder.name}.making-"


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
