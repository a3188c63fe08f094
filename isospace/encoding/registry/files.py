"""Files of an encoder: the model's own, and what was exported from it, each held by its content."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict

from isospace.encoding.registry.record import EncoderRecord, FileRecord
from isospace.errors import EncoderError, IntegrityError, NotFoundError
from isospace.storage import paths as layout
from isospace.storage.cache import cache_folder
from isospace.storage.guard import confined
from isospace.storage.hashing import fingerprint, seal, unseal
from isospace.storage.store import Store

ExportKind = Literal["tokenizer", "reference", "openvino", "onnx"]

EXPORT_KINDS: tuple[ExportKind, ...] = get_args(ExportKind)

# Everything that a model could be loaded from enters; what is known to be no part of it is named here.
_PICKLED = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}

_IGNORED_SUFFIXES = {".md", ".h5", ".msgpack", ".ot", ".onnx", ".png", ".jpg", ".pdf", *_PICKLED}

_IGNORED_FILES = {"data_config.json", ".gitattributes", ".gitignore", "train_script.py", "trainer_state.json"}

_IGNORED_FOLDERS = {"onnx", "openvino", ".git", ".cache"}


class Export(BaseModel):
    """What was made from a model once, and is loaded by both sides ever after.

    Attributes
    ----------
    kind
        `tokenizer`: tokenizer.json. `reference`: raw vectors of the probes. Others: a backend's graph.
    files
        By name.
    made_with
        Versions of the libraries that made it.
    min_cosine
        For graphs: the smallest cosine of a probe with the reference.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: ExportKind
    files: dict[str, FileRecord]
    made_with: dict[str, str]
    min_cosine: float | None = None

    @property
    def export_id(self) -> str:
        """Fingerprint of the content."""
        return fingerprint({name: record.sha256 for name, record in self.files.items()})


def model_files(folder: Path) -> dict[str, FileRecord]:
    """Hash the files that a model is loaded from, by path relative to its folder.

    Raises
    ------
    EncoderError
        If the weights are not in safetensors.
    """
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    paths = [path for path in paths if not _IGNORED_FOLDERS & set(path.relative_to(folder).parts)]
    safe = {path.parent for path in paths if path.suffix == ".safetensors"}
    # A module whose only weights are pickled would be loaded from them: they would have to be in the identity.
    pickled = sorted(path for path in paths if path.suffix in _PICKLED and path.parent not in safe)
    if pickled or not safe:
        found = f"{pickled[0].relative_to(folder)} is pickled" if pickled else "none are there"
        raise EncoderError(
            f"model {folder}: expected .safetensors weights in every module, {found}. Load it once with "
            "sentence-transformers, save it with save_pretrained(FOLDER), and name that folder."
        )
    kept = [p for p in paths if p.suffix not in _IGNORED_SUFFIXES and p.name not in _IGNORED_FILES]
    return {path.relative_to(folder).as_posix(): file_record(path) for path in kept}


def store_model(store: Store, folder: Path, record: EncoderRecord) -> None:
    """Copy a model into the store, so that a query side needs neither the hub nor the configuration."""
    prefix = layout.encoder_model(record.encoder_id)
    for name, expected in record.files.items():
        if not _is_stored(store, f"{prefix}/{name}", expected):
            store.write(f"{prefix}/{name}", (folder / name).read_bytes())


def fetch_model(store: Store, record: EncoderRecord) -> Path:
    """Return a local folder with the stored model's files, every one of them verified.

    Raises
    ------
    IntegrityError
        If a file is missing or its content differs; the message names it.
    """
    return _fetch(store, layout.encoder_model(record.encoder_id), record.files)


def write_export(store: Store, encoder_id: str, export: Export, contents: Mapping[str, bytes]) -> Export:
    """Store an export, unless there is one; return the one that counts from now on.

    Parameters
    ----------
    store, encoder_id
        Where.
    export
        What it is.
    contents
        The bytes of its files.
    """
    folder = layout.encoder_export_files(encoder_id, export.kind, export.export_id)
    for name, expected in export.files.items():
        if not _is_stored(store, f"{folder}/{name}", expected):
            store.write(f"{folder}/{name}", contents[name])
    # Last, and by one writer alone: two runs that export at once go on with the same graph.
    path = layout.encoder_export(encoder_id, export.kind)
    store.create_if_absent(path, seal(export.model_dump(mode="json")))
    found = read_export(store, encoder_id, export.kind)
    if found is None:
        raise NotFoundError(f"{path}: vanished while it was written. Run the same command again.")
    return found


def read_export(store: Store, encoder_id: str, kind: ExportKind) -> Export | None:
    """Return an export, or None if it was never made."""
    path = layout.encoder_export(encoder_id, kind)
    try:
        return Export.model_validate(unseal(store.read(path), name=path))
    except NotFoundError:
        return None


def fetch_export(store: Store, encoder_id: str, export: Export) -> Path:
    """Return a local folder with the files of an export, every one of them verified; IntegrityError otherwise."""
    return _fetch(store, layout.encoder_export_files(encoder_id, export.kind, export.export_id), export.files)


def file_record(path: Path) -> FileRecord:
    """Hash a local file."""
    with path.open("rb") as stream:
        return FileRecord(size=path.stat().st_size, sha256=hashlib.file_digest(stream, "sha256").hexdigest())


def bytes_record(data: bytes) -> FileRecord:
    """Hash the content of a file."""
    return FileRecord(size=len(data), sha256=hashlib.sha256(data).hexdigest())


def _fetch(store: Store, prefix: str, files: Mapping[str, FileRecord]) -> Path:
    confined(prefix)
    for name in files:
        # By itself: an absolute one would take the place of the folder when they are joined.
        confined(name)
    if store.root is not None:
        folder = store.root / prefix
    else:
        folder = cache_folder() / prefix
        for name, expected in files.items():
            if not (folder / name).is_file() or file_record(folder / name) != expected:
                _download(store, f"{prefix}/{name}", folder / name)
    for name, expected in files.items():
        path = folder / name
        found = file_record(path) if path.is_file() else None
        if found != expected:
            state = (
                "is missing" if found is None else f"has SHA-256 {found.sha256[:16]}…, expected {expected.sha256[:16]}…"
            )
            raise IntegrityError(f"{prefix}/{name}: {state}. Restore the file, or run the flow with the model at hand.")
    return folder


def _is_stored(store: Store, path: str, expected: FileRecord) -> bool:
    """Compare content where reading is cheap, and the size where it would be a download."""
    try:
        if store.root is not None:
            return file_record(store.root / confined(path)) == expected
        return store.size(path) == expected.size
    except (NotFoundError, FileNotFoundError):
        return False


def _download(store: Store, path: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".tmp-{os.getpid()}-{target.name}")
    temporary.write_bytes(store.read(path))
    shutil.move(temporary, target)
