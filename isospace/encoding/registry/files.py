"""Files of an encoder in the store: the model's own files and its exports, addressed by content."""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import shutil
from collections.abc import Iterator, Mapping
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

# Every file that a model could be loaded from is part of its identity. These are known not to be.
_PICKLED = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}

_IGNORED_SUFFIXES = {".md", ".h5", ".msgpack", ".ot", ".onnx", ".png", ".jpg", ".pdf", *_PICKLED}

_IGNORED_FILES = {"data_config.json", ".gitattributes", ".gitignore", "train_script.py", "trainer_state.json"}

_WITHOUT_FILES = {"Normalize", "Dropout"}
_IGNORED_FOLDERS = {"onnx", "openvino", ".git", ".cache"}


class Export(BaseModel):
    """Record of files that were exported from a model once, and that indexing and querying both load.

    Attributes
    ----------
    kind
        `tokenizer`: tokenizer.json. `reference`: raw vectors of the probes. Others: a backend's graph.
    made_with
        Versions of the libraries that exported it.
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
        """Fingerprint of the files' content."""
        return fingerprint({name: record.sha256 for name, record in self.files.items()})


def model_files(folder: Path) -> dict[str, FileRecord]:
    """Hash the files that a model is loaded from; keys are paths relative to its folder.

    Raises
    ------
    EncoderError
        If any of the weights are not in safetensors.
    """
    paths = sorted(_files_below(folder))
    paths = [path for path in paths if not _IGNORED_FOLDERS & set(path.relative_to(folder).parts)]
    safe = {path.parent for path in paths if path.suffix == ".safetensors"}
    # A module with pickled weights only would be loaded from them, so that they would be part of the identity.
    pickled = sorted(path for path in paths if path.suffix in _PICKLED and path.parent not in safe)
    if pickled or not safe:
        problem = f"{pickled[0].relative_to(folder)} is pickled" if pickled else "there are none"
        raise EncoderError(
            f"model {folder}: expected .safetensors weights in every module, but {problem}. Load the model once with "
            "sentence-transformers, save it with save_pretrained(FOLDER), and use that folder."
        )
    loaded = [p for p in paths if p.suffix not in _IGNORED_SUFFIXES and p.name not in _IGNORED_FILES]
    files = {path.relative_to(folder).as_posix(): file_record(path) for path in loaded}
    _require_every_module(folder, files)
    return files


def _files_below(folder: Path, above: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Yield the files below a folder, those in linked folders too: a model may be assembled from links."""
    real = os.path.realpath(folder)
    if real in above:
        # A link to a folder that contains it.
        return
    for path in folder.iterdir():
        if path.is_dir():
            yield from _files_below(path, above | {real})
        elif path.is_file():
            yield path


def _require_every_module(folder: Path, files: Mapping[str, FileRecord]) -> None:
    """Check that the identity covers every module of a sentence-transformers model.

    Raises
    ------
    EncoderError
        If modules.json names a folder from which no file was read.
    """
    try:
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except ValueError as error:
        raise EncoderError(
            f"model {folder}: modules.json is not valid JSON ({error}). Save the model again."
        ) from error
    for module in modules:
        # model2vec names the model's own folder ".".
        path, kind = posixpath.normpath(str(module.get("path") or ".")), str(module.get("type", "")).rpartition(".")[2]
        # These have neither weights nor settings, and are saved as an empty folder or none.
        if path != "." and kind not in _WITHOUT_FILES and not any(name.startswith(f"{path}/") for name in files):
            raise EncoderError(
                f"model {folder}: modules.json names {path!r} ({kind}), but no file was found there. Its weights would "
                "be missing from the identity of the encoder. Copy the folder into the model, or save the model again."
            )


def store_model(store: Store, folder: Path, record: EncoderRecord) -> None:
    """Copy a model into the store, so that querying needs neither the Hub nor the configuration."""
    store_files(store, layout.encoder_model(record.encoder_id), folder, record.files)


def store_files(store: Store, prefix: str, folder: Path, files: Mapping[str, FileRecord]) -> None:
    """Copy files of a local folder into a folder of the store, except those that it has."""
    for name, expected in files.items():
        if not _is_stored(store, f"{prefix}/{name}", expected):
            store.write(f"{prefix}/{name}", (folder / name).read_bytes())


def fetch_model(store: Store, record: EncoderRecord) -> Path:
    """Return a local folder with the files of the stored model, all verified.

    Raises
    ------
    IntegrityError
        If a file is missing, or its content differs from its hash; the message names it.
    """
    return fetch_files(store, layout.encoder_model(record.encoder_id), record.files)


def write_export(store: Store, encoder_id: str, export: Export, contents: Mapping[str, bytes]) -> Export:
    """Store an export unless the encoder has one of its kind; return the one in the store.

    Parameters
    ----------
    store, encoder_id, export
        Store, encoder, and the record of the export.
    contents
        Content of the export's files, by name.
    """
    folder = layout.encoder_export_files(encoder_id, export.kind, export.export_id)
    for name, expected in export.files.items():
        if not _is_stored(store, f"{folder}/{name}", expected):
            store.write(f"{folder}/{name}", contents[name])
    # Written last, and by a single writer: two runs that export at the same time continue with the same graph.
    path = layout.encoder_export(encoder_id, export.kind)
    store.create_if_absent(path, seal(export.model_dump(mode="json")))
    stored = read_export(store, encoder_id, export.kind)
    if stored is None:
        raise NotFoundError(f"{path}: deleted while it was being written. Run the same command again.")
    return stored


def read_export(store: Store, encoder_id: str, kind: ExportKind) -> Export | None:
    """Return the record of an export, or None if there is none."""
    path = layout.encoder_export(encoder_id, kind)
    try:
        return Export.model_validate(unseal(store.read(path), name=path))
    except NotFoundError:
        return None


def fetch_export(store: Store, encoder_id: str, export: Export) -> Path:
    """Return a local folder with the files of an export; raise IntegrityError unless all of them verify."""
    return fetch_files(store, layout.encoder_export_files(encoder_id, export.kind, export.export_id), export.files)


def file_record(path: Path) -> FileRecord:
    """Return the size and hash of a local file."""
    with path.open("rb") as stream:
        return FileRecord(size=path.stat().st_size, sha256=hashlib.file_digest(stream, "sha256").hexdigest())


def bytes_record(data: bytes) -> FileRecord:
    """Return the size and hash of a file's content."""
    return FileRecord(size=len(data), sha256=hashlib.sha256(data).hexdigest())


def fetch_files(store: Store, prefix: str, files: Mapping[str, FileRecord]) -> Path:
    """Return a local folder with files from a folder of the store; raise IntegrityError unless all of them verify."""
    confined(prefix)
    for name in files:
        # Checked without the folder: joined to it, an absolute path would replace it.
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
        actual = file_record(path) if path.is_file() else None
        if actual != expected:
            state = (
                "is missing"
                if actual is None
                else f"has SHA-256 {actual.sha256[:16]}…, expected {expected.sha256[:16]}…"
            )
            raise IntegrityError(
                f"{prefix}/{name}: {state}. Restore the file, or run `isospace run` on a machine that has the model."
            )
    return folder


def _is_stored(store: Store, path: str, expected: FileRecord) -> bool:
    """Compare the content in a local store, and only the size in a remote one, to save the download."""
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
