"""Register a recipe's sparse encoder in the store, and open it from there, just as a query does."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isospace.encoding.engine import Engine
from isospace.encoding.registry.files import fetch_files, model_files, store_files
from isospace.encoding.registry.model_kind import require_sparse_kind
from isospace.encoding.registry.model_loading import locate_model
from isospace.encoding.registry.record import FileRecord
from isospace.encoding.sparse.model import (
    SparseEncoder,
    describe_sparse,
    limit_tokens,
    load_sparse_model,
    sparse_device,
)
from isospace.encoding.sparse.record import (
    FORMAT,
    SparseEncoderRecord,
    read_sparse_record,
    write_sparse_record,
)
from isospace.encoding.sparse.spec import SparseSpec
from isospace.encoding.spec import EncoderSpec
from isospace.errors import ConfigError, EncoderError, IntegrityError, NotFoundError
from isospace.storage import paths as layout
from isospace.storage.hashing import fingerprint, seal, unseal
from isospace.storage.store import Store
from isospace.transform.affine import ROLES
from isospace.transform.probe_texts import PROBE_TEXTS

_LOG = logging.getLogger(__name__)
# A masked language model that nobody trained for retrieval gives weight to most of its vocabulary.
_MOST_FILLED, _SMALL_VOCABULARY = 0.1, 1_000


@dataclass(frozen=True)
class _Source:
    """The model of a recipe on disk; loaded only if the store does not know it."""

    spec: SparseSpec
    folder: Path
    files: dict[str, FileRecord]

    @functools.cached_property
    def model(self) -> Any:
        return load_sparse_model(self.folder)

    @functools.cached_property
    def record(self) -> SparseEncoderRecord:
        record = describe_sparse(self.files, self.model, self.spec)
        limit_tokens(self.model, record)
        _require_few_terms(SparseEncoder(record, self.model), self.folder.name)
        return record

    @property
    def key(self) -> str:
        files = {name: record.sha256 for name, record in self.files.items()}
        asked = {"max_tokens": self.spec.max_tokens}
        return fingerprint({"sparse_format": FORMAT, "files": files, "asked": asked})


def register_sparse(
    store: Store, spec: SparseSpec, on_step: Callable[[str], object] = _LOG.debug
) -> SparseEncoderRecord:
    """Register a recipe's sparse encoder in the store, and return its identity.

    The model is loaded only once; afterwards, its files are compared by hash, and those in the store by size.

    Raises
    ------
    ConfigError
        If there is no such model.
    EncoderError
        If it is no sparse encoder, or cannot be loaded.
    """
    source = _find(spec)
    known = _recorded(store, source.key)
    if known is None:
        size = sum(record.size for record in source.files.values()) / 1e6
        on_step(f"loads the sparse model {spec.model}: {size:,.1f} MB in {len(source.files):,} files")
    record = known or source.record
    store_files(store, layout.encoder_model(record.encoder_id), source.folder, record.files)
    write_sparse_record(store, record)
    if known is None:
        store.write(layout.encoder_description(source.key), seal({"encoder_id": record.encoder_id}))
    return record


def identify_sparse(store: Store, spec: SparseSpec) -> SparseEncoderRecord:
    """Return the identity of a recipe's sparse encoder without writing anything."""
    source = _find(spec)
    return _recorded(store, source.key) or source.record


def open_sparse_encoder(store: Store, encoder_id: str, engine: Engine | None = None) -> SparseEncoder:
    """Open a sparse encoder from the store.

    Raises
    ------
    EncoderError
        If it cannot be loaded here.
    IntegrityError
        If a file is missing or was changed, or if the loaded model is not what the record says.
    """
    record = read_sparse_record(store, encoder_id)
    folder = fetch_files(store, layout.encoder_model(encoder_id), record.files)
    device = sparse_device(engine)
    model = load_sparse_model(folder, device=device)
    limit_tokens(model, record)
    spec = SparseSpec(model=str(folder), max_tokens=record.max_tokens)
    if (loaded := describe_sparse(record.files, model, spec)) != record:
        changed = [name for name in type(record).model_fields if getattr(loaded, name) != getattr(record, name)]
        raise EncoderError(
            f"sparse encoder {encoder_id[:16]}…: loaded here, it differs from its record in {', '.join(changed)}. Use "
            "the version of sentence-transformers that it was registered with."
        )
    return SparseEncoder(record, model, device)


def _find(spec: SparseSpec) -> _Source:
    folder = _network_in_package(spec.model)
    try:
        folder = folder or locate_model(EncoderSpec(model=spec.model, revision=spec.revision))
    except (ConfigError, EncoderError) as error:
        raise type(error)(str(error).replace("recipe.encoder.", "recipe.sparse.")) from error
    require_sparse_kind(folder)
    return _Source(spec, folder, model_files(folder))


def _network_in_package(model: str) -> Path | None:
    """Return the folder of a network without a modules.json in an installed package; None if there is none.

    A SPLADE model is often saved as the masked language model that it is.
    """
    name = model.removeprefix("package:")
    if name == model:
        return None
    with contextlib.suppress(ImportError, ValueError):
        package = importlib.util.find_spec(name)
        for base in (package.submodule_search_locations or ()) if package else ():
            for folder in (Path(base), Path(base) / "model"):
                if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
                    return folder
    return None


def _recorded(store: Store, key: str) -> SparseEncoderRecord | None:
    path = layout.encoder_description(key)
    with contextlib.suppress(NotFoundError, IntegrityError):
        return read_sparse_record(store, str(unseal(store.read(path), name=path)["encoder_id"]))
    return None


def _require_few_terms(encoder: SparseEncoder, name: str) -> None:
    """Refuse a model whose vectors are not sparse, such as a masked language model that was not trained for it."""
    for role in ROLES:
        vectors = encoder.encode(list(PROBE_TEXTS), role)
        filled = len(vectors.terms) / (len(vectors) * encoder.vocabulary)
        if filled > _MOST_FILLED and encoder.vocabulary > _SMALL_VOCABULARY:
            raise EncoderError(
                f"sparse model {name}: {filled:.0%} of the components of its vectors are not zero, for role {role}; "
                f"expected at most {_MOST_FILLED:.0%}. It was not trained to be sparse: use a SPLADE model."
            )
        if not len(vectors.terms):
            raise EncoderError(
                f"sparse model {name}: gives no weight to any probe text, for role {role}. Check the model."
            )
