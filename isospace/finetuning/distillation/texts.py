"""The texts that a static model is fitted to, with the vectors that the collection has of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isospace.collection.live_rows import live_rows
from isospace.collection.raw_vectors import gather
from isospace.collection.sampling import bottom_k
from isospace.collection.snapshot import Manifest
from isospace.collection.vector_homes import find_files
from isospace.errors import ConfigError
from isospace.finetuning.distillation.evaluated import Evaluated
from isospace.ingest.pseudo_queries import Passage
from isospace.storage.store import Store
from isospace.transform.vectors import Float32

_HELD_OUT_SHARE, _MOST_HELD_OUT, _LEAST = 0.1, 1_000, 100


@dataclass(frozen=True, slots=True)
class TaughtTexts:
    """Different texts of a snapshot, and what the teacher made of them.

    Attributes
    ----------
    passages
        n passages; a text that several documents have is there once for each.
    vectors
        (n, d) float32 raw vectors.
    fitted, held_out
        Rows that the model is fitted to, and rows that are kept to measure it. Rows in neither belong to documents that
        answer the queries of the evaluation set.
    """

    passages: tuple[Passage, ...]
    vectors: Float32
    fitted: npt.NDArray[np.int64]
    held_out: npt.NDArray[np.int64]

    @property
    def texts(self) -> list[str]:
        """The texts as they are encoded."""
        return [passage.prefix + passage.text for passage in self.passages]


def read_taught(store: Store, manifest: Manifest, evaluated: Evaluated | None, *, most: int) -> TaughtTexts:
    """Read a sample of a snapshot's texts, with all texts of some documents, and their raw vectors.

    Parameters
    ----------
    evaluated
        The queries to measure on: all texts of documents that answer them are read, and none of those that the fit
        leaves out is fitted or held out.
    most
        Size of the sample. It depends on the texts alone, and a tenth of it, at most 1,000 texts, is held out.

    Raises
    ------
    ConfigError
        If there are fewer than 100 texts to fit.
    """
    passages, hashes = _passages(store, manifest)
    kept = evaluated.query_set.relevant if evaluated is not None else set()
    left_out = evaluated.left_out if evaluated is not None else frozenset()
    sampled = set(bottom_k(hashes, most, seed=0))
    rows = [n for n, key in enumerate(hashes) if key in sampled or passages[n].doc_id in kept]
    passages, hashes = [passages[n] for n in rows], [hashes[n] for n in rows]
    # By text, so that one which an evaluated document shares with another is left out, too.
    judged = {key for key, passage in zip(hashes, passages, strict=True) if passage.doc_id in left_out}
    usable = sorted(set(hashes) - judged)
    held = set(bottom_k(usable, min(_MOST_HELD_OUT, int(_HELD_OUT_SHARE * len(usable))), seed=1))
    first: dict[bytes, int] = {}
    for number, key in enumerate(hashes):
        first.setdefault(key, number)
    fitted = sorted(first[key] for key in usable if key not in held)
    if len(fitted) < _LEAST:
        raise _too_few(len(fitted), len(held), len(judged), evaluated)
    dimension = manifest_dimension(store, manifest)
    vectors = gather(store, manifest.encoder_id, find_files(store, manifest.encoder_id, hashes), hashes, dimension)
    held_rows = np.array(sorted(first[key] for key in held), np.int64)
    return TaughtTexts(tuple(passages), vectors, np.array(fitted, np.int64), held_rows)


def _too_few(fitted: int, held: int, judged: int, evaluated: Evaluated | None) -> ConfigError:
    """Return the error for too few texts; it names the evaluation set if there were enough without it."""
    if evaluated is None or fitted + judged < _LEAST:
        return ConfigError(
            f"{fitted} texts to fit a static model to; expected at least {_LEAST}, and better thousands. Embed more "
            "documents first."
        )
    return ConfigError(
        f"{fitted} texts to fit a static model to; expected at least {_LEAST}, and better thousands. Of "
        f"{fitted + held + judged} different texts, {judged} are left out because their {len(evaluated.left_out)} "
        f"documents answer queries of evaluation set {evaluated.query_set.name!r}, and {held} are held out. Give "
        "--fit-evaluated to fit them, too, or name a smaller set with --evaluation."
    )


def manifest_dimension(store: Store, manifest: Manifest) -> int:
    """Return the dimensions of a snapshot's raw vectors."""
    from isospace.encoding.registry.record import read_encoder_record

    return read_encoder_record(store, manifest.encoder_id).dimension


def _passages(store: Store, manifest: Manifest) -> tuple[list[Passage], list[bytes]]:
    passages: list[Passage] = []
    hashes: list[bytes] = []
    for table in live_rows(store, manifest, "chunks", ["doc_id", "chunk_hash", "prefix", "text"]):
        columns = table.to_pydict()
        rows = zip(columns["doc_id"], columns["prefix"], columns["text"], strict=True)
        passages += [Passage(doc_id, "", prefix, text) for doc_id, prefix, text in rows]
        hashes += columns["chunk_hash"]
    return passages, hashes
