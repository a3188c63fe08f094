"""Distill the encoder of a collection into a static model, register it, and say what it keeps.

The model2vec recipe (each token encoded alone, frequent ones weighted down) is where the fit starts. The collection has
the teacher's vectors of its texts already; sentences of the texts are encoded as queries, since the mean over a long
text teaches little of short ones.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from isospace.collection.alias import resolve
from isospace.collection.snapshot import Manifest
from isospace.encoding.encoder import SentenceEncoder, truncation_is_meant
from isospace.encoding.engine import Engine
from isospace.encoding.loading import open_sentence_encoder
from isospace.encoding.registry.record import EncoderRecord, read_encoder_record
from isospace.encoding.registry.register import prepare_encoder
from isospace.encoding.spec import EncoderSpec
from isospace.encoding.tokenizer import Tokenizer
from isospace.errors import ConfigError, EncoderError
from isospace.finetuning.distillation.evaluated import choose_evaluated
from isospace.finetuning.distillation.kept import Kept, measure_kept
from isospace.finetuning.distillation.least_squares import fit_token_vectors
from isospace.finetuning.distillation.settings import DistillSettings
from isospace.finetuning.distillation.static_folder import write_static_folder
from isospace.finetuning.distillation.texts import TaughtTexts, read_taught
from isospace.finetuning.distillation.vocabulary import count_tokens, encode_tokens, static_tokenizer, weighted
from isospace.finetuning.lineage import Lineage, read_lineage
from isospace.ingest.pseudo_queries import Passage, make_pseudo_queries
from isospace.pipeline.executor import Reporter
from isospace.storage import paths as layout
from isospace.storage.hashing import fingerprint, seal, shortened_id
from isospace.storage.leases import run_lease
from isospace.storage.store import Store
from isospace.transform.vectors import Float32, unit

_LIBRARIES = ("numpy", "scipy", "tokenizers", "safetensors")
_BLOCK = 2_048
_ROUNDS = 8


@dataclass(frozen=True, slots=True)
class Distilled:
    """A distilled encoder.

    Attributes
    ----------
    megabytes
        Sizes of the files of teacher and static model.
    folder
        Where a copy of the model's folder was written, if asked for.
    """

    lineage: Lineage
    kept: Kept
    dimension: int
    megabytes: tuple[float, float]
    folder: str | None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, with the lineage as it is stored."""
        return {**asdict(self), "lineage": self.lineage.model_dump(mode="json")}


def distill_encoder(
    store: Store,
    collection: str,
    settings: DistillSettings,
    reporter: Reporter,
    *,
    snapshot: str = "production",
    folder: Path | None = None,
    engine: Engine | None = None,
) -> Distilled:
    """Distill the encoder of a snapshot.

    Parameters
    ----------
    folder
        Folder to write a copy of the model to, for other libraries; must not exist.

    Raises
    ------
    ConfigError
        If the folder exists, the encoder cannot be distilled, or the snapshot has too few texts.
    """
    if folder is not None and folder.exists():
        raise ConfigError(f"--folder {folder}: already exists. Give the path of a new folder.")
    started = time.monotonic()
    # One at a time, as every run that writes; the collection stays free for nightly runs.
    with run_lease(store, f"{collection}--distill", "distill", on_wait=reporter.info):
        manifest = resolve(store, collection, snapshot)
        record = read_encoder_record(store, manifest.encoder_id)
        _require_teacher(record)
        teacher = open_sentence_encoder(store, record, engine)
        evaluated = choose_evaluated(store, manifest, settings, reporter.info)
        taught = read_taught(store, manifest, evaluated, most=settings.texts)
        reporter.info(
            f"snapshot {manifest.sequence}, encoder {shortened_id(manifest.encoder_id)}: fits {len(taught.fitted):,} "
            f"texts, holds out {len(taught.held_out):,}"
        )
        tokenizer = static_tokenizer(teacher.tokenizer.data, teacher.record.max_tokens)
        table = _table(teacher, tokenizer, taught, settings, reporter)
        with TemporaryDirectory(prefix="isospace-distill-") as scratch:
            made = folder or Path(scratch) / "model"
            description = _card(teacher.record, collection, manifest, settings)
            write_static_folder(made, table, tokenizer, normalizes=teacher.record.normalizes, description=description)
            student = prepare_encoder(store, EncoderSpec(model=str(made), preset="none"), None, reporter.info)
        reporter.info("measures what the static model keeps of its teacher")
        with truncation_is_meant():
            kept = measure_kept(taught, teacher, student, evaluated)
        seconds = time.monotonic() - started
        lineage = _lineage(manifest, settings, taught, student.record, seconds)
        store.create_if_absent(layout.encoder_lineage(lineage.encoder_id), seal(lineage.model_dump(mode="json")))
        lineage = read_lineage(store, lineage.encoder_id)
    sizes = _megabytes(teacher.record), _megabytes(student.record)
    return Distilled(lineage, kept, student.record.dimension, sizes, str(folder) if folder else None)


def _require_teacher(record: EncoderRecord) -> None:
    """Refuse an encoder whose vectors of single tokens cannot be computed from their IDs."""
    if record.served is not None:
        raise ConfigError(
            f"encoder {record.encoder_id[:16]}…: is behind an API, and its vectors of single tokens would have to be "
            "paid for. Distill a collection that a model on disk embedded."
        )
    if record.is_static:
        raise ConfigError(
            f"encoder {record.encoder_id[:16]}…: is static already. Distill a collection that a transformer embedded."
        )
    if "subword" in record.pooling:
        raise ConfigError(
            f"encoder {record.encoder_id[:16]}…: pools by words, of which a static model knows nothing. Distill an "
            "encoder with another pooling."
        )


def _table(
    teacher: SentenceEncoder,
    tokenizer: Tokenizer,
    taught: TaughtTexts,
    settings: DistillSettings,
    reporter: Reporter,
) -> Float32:
    """Return the (vocabulary, d) float32 table of the static model."""
    limit, texts = teacher.record.max_tokens, taught.texts
    fitted = [texts[row] for row in taught.fitted]
    shares = count_tokens(tokenizer, fitted, limit)
    with _stage(reporter, "encode the vocabulary", tokenizer.size) as done:
        table = weighted(encode_tokens(teacher, tokenizer.size, done), shares)
    if settings.fit == "corpus":
        targets = taught.vectors[taught.fitted]
        if queries := _sentences([taught.passages[row] for row in taught.fitted], settings.queries):
            from scipy.sparse import vstack

            with _stage(reporter, "encode sentences as queries", len(queries)) as done:
                targets = np.concatenate([targets, _encode(teacher, queries, done)])
            shares = vstack([shares, count_tokens(tokenizer, queries, limit)]).tocsr()
        with _stage(reporter, "fit token vectors", None):
            table = fit_token_vectors(shares, targets, table, ridge=settings.ridge)
    if not np.isfinite(table).all():
        raise EncoderError("the fit of the token vectors gave NaN or infinity. Raise --ridge.")
    if settings.dimension is not None:
        table = _reduced(table, shares, settings.dimension)
    return table


def _sentences(passages: Sequence[Passage], most: int) -> list[str]:
    """Return sentences of texts, at most one of each document in every round."""
    found: dict[str, None] = {}
    for seed in range(1, _ROUNDS + 1):
        if len(found) >= most:
            break
        made = make_pseudo_queries(passages, "sentences", size=most - len(found), seed=seed, exclude=frozenset(found))
        if not made:
            break
        found |= {query.text: None for query in made}
    return list(found)


def _encode(teacher: SentenceEncoder, queries: Sequence[str], done: Any) -> Float32:
    blocks = []
    for start in range(0, len(queries), _BLOCK):
        blocks.append(teacher.encode(queries[start : start + _BLOCK], "query"))
        done(min(start + _BLOCK, len(queries)))
    return np.concatenate(blocks)


def _reduced(table: Float32, shares: Any, dimension: int) -> Float32:
    """Return the table in the directions that vary most among the vectors of the texts (PCA, without centering)."""
    if dimension >= table.shape[1]:
        raise ConfigError(f"--dimension {dimension}: the teacher has {table.shape[1]}; expected fewer, or nothing.")
    vectors = unit(shares @ table).astype(np.float64)
    _, directions = np.linalg.eigh(vectors.T @ vectors)
    return (table @ directions[:, ::-1][:, :dimension].astype(np.float32)).astype(np.float32)


def _lineage(
    manifest: Manifest, settings: DistillSettings, taught: TaughtTexts, record: EncoderRecord, seconds: float
) -> Lineage:
    left = len(taught.passages) - len(taught.fitted) - len(taught.held_out)
    described = settings.model_dump(mode="json")
    key = fingerprint({"base": manifest.encoder_id, "snapshot": manifest.snapshot_id, "distillation": described})
    return Lineage(
        encoder_id=record.encoder_id,
        base=manifest.encoder_id,
        name=settings.name,
        key=key,
        snapshot_id=manifest.snapshot_id,
        collection=manifest.collection,
        pairs={"texts": len(taught.fitted)},
        held_out=len(taught.held_out),
        left_out={"evaluated_or_repeated": left},
        negatives={},
        loss={"kind": "distillation", "fit": settings.fit},
        training=described,
        libraries={name: version(name) for name in _LIBRARIES},
        history=(),
        best_step=0,
        seconds=round(seconds, 1),
        at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _card(teacher: EncoderRecord, collection: str, manifest: Manifest, settings: DistillSettings) -> str:
    described = ", ".join(f"{key} {value}" for key, value in settings.model_dump(mode="json").items())
    return (
        f"# {settings.name}\n\nA static model: the mean of one vector for each token. Distilled by isospace from "
        f"encoder {teacher.encoder_id[:16]} and collection {collection}, snapshot {manifest.sequence} ({described}).\n"
    )


def _megabytes(record: EncoderRecord) -> float:
    return sum(file.size for file in record.files.values()) / 1e6


class _stage:
    """Report a stage while its block runs; the block gets a function that reports what is done."""

    def __init__(self, reporter: Reporter, name: str, total: int | None) -> None:
        self.reporter, self.name, self.total = reporter, name, total

    def __enter__(self) -> Any:
        self.reporter.begin(self.name, self.total)
        return self._done

    def __exit__(self, *_: object) -> None:
        self.reporter.end(self.name)

    def _done(self, number: int) -> None:
        if self.total:
            self.reporter.progress(self.name, number, self.total, f"{number:,} of {self.total:,}")
