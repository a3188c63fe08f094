"""Rerank the best hits with a cross-encoder, which reads query and text together."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from isospace.encoding.forks import require_loaded_here
from isospace.encoding.registry.files import model_files
from isospace.errors import EncoderError, MismatchError, missing_package
from isospace.storage.hashing import fingerprint

_PAIRS_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Reranker:
    """A loaded cross-encoder."""

    name: str
    reranker_id: str
    """Fingerprint of the model's files."""
    model: Any
    """The `sentence_transformers.CrossEncoder`."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while the model computes."""
    process: int = field(default_factory=os.getpid, compare=False, repr=False)
    """ID of the process that loaded it; its forks cannot use it."""

    def scores(self, query: str, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Return (n,) float64 scores of n texts for a query; higher is more relevant.

        Raises
        ------
        EncoderError
            If the model does not return one finite score per pair, or was loaded before this process was forked.
        """
        require_loaded_here(self.process, f"reranker {self.name}")
        if not texts:
            return np.zeros(0)
        pairs = [(query, text) for text in texts]
        with self.lock:
            logits = self.model.predict(
                pairs, batch_size=_PAIRS_AT_ONCE, show_progress_bar=False, convert_to_numpy=True
            )
        scores = np.asarray(logits, np.float64)
        if scores.shape != (len(texts),) or not np.isfinite(scores).all():
            raise EncoderError(
                f"reranker {self.name}: returned scores of shape {scores.shape} for {len(texts)} pairs; expected one "
                "finite score per pair. Use a cross-encoder with one label."
            )
        return scores


def open_reranker(model: str | Path, *, device: str = "cpu", expected: str | None = None) -> Reranker:
    """Load a cross-encoder.

    Parameters
    ----------
    model
        Local folder of a sentence-transformers CrossEncoder with safetensors weights.
    device
        As torch names it.
    expected
        The reranker ID that the model must have; if None, any.

    Raises
    ------
    EncoderError
        If it cannot be loaded.
    MismatchError
        If its files are not the expected ones.
    """
    folder = Path(model)
    if not folder.is_dir():
        raise EncoderError(
            f"reranker {model}: is not a folder; expected one that CrossEncoder.save_pretrained wrote. Give its path."
        )
    files = {name: record.sha256 for name, record in model_files(folder).items()}
    reranker_id = fingerprint({"reranker": files})
    if expected not in (None, reranker_id):
        raise MismatchError(
            f"reranker {model}: has the ID {reranker_id}, expected {expected}. Use the model with the expected ID."
        )
    try:
        from sentence_transformers import CrossEncoder
    except ModuleNotFoundError as error:
        raise EncoderError(missing_package("sentence_transformers", f"reranker {model}")) from error
    _require_head(folder)
    try:
        loaded = CrossEncoder(str(folder), device=device, local_files_only=True)
    except Exception as error:  # the library raises whatever its parts raise
        reason = str(error).split("\n", 1)[0]
        raise EncoderError(
            f"reranker {model}: cannot be loaded ({reason}). Give the folder of a CrossEncoder."
        ) from error
    if loaded.num_labels != 1:
        raise EncoderError(
            f"reranker {model}: has {loaded.num_labels} labels; expected one. Use a cross-encoder with one label."
        )
    return Reranker(str(model), reranker_id, loaded)


def _require_head(folder: Path) -> None:
    """Refuse a model without a head: the library would add one with random weights, and only log that."""
    saved_as = _json(folder / "config_sentence_transformers.json").get("model_type")
    architecture = next(iter(_json(folder / "config.json").get("architectures") or []), "")
    if saved_as != "CrossEncoder" and not architecture.endswith("ForSequenceClassification"):
        raise EncoderError(
            f"reranker {folder}: is a {saved_as or architecture or 'model without config.json'}; expected a "
            "CrossEncoder, saved with its head. Give the folder of one."
        )


def _json(path: Path) -> dict[str, Any]:
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return body if isinstance(body, dict) else {}
