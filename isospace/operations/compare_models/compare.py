"""Encoders x transforms on one corpus and its queries: what each costs, what it finds, and which are worth having.

A variant is a collection of its own, embedded by the same line as any other; raw vectors are shared by encoder. Figures
are kept by what they depend on, so that a second contest measures only what is new.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, field_validator

from isospace.collection.alias import resolve
from isospace.collection.live_rows import live_rows
from isospace.encoding.registry.record import read_encoder_record
from isospace.encoding.spec import EncoderSpec
from isospace.encoding.throughput import measured_rates
from isospace.errors import ConfigError
from isospace.evaluation.gate.spec import GateSpec
from isospace.evaluation.metrics import measure
from isospace.evaluation.norms import sample_rows, vectors_at
from isospace.evaluation.query_set_files import load_set
from isospace.evaluation.query_sets import EvaluationSet
from isospace.evaluation.runs import answer_set
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.config_files import read_config
from isospace.search.index import open_index
from isospace.search.options import search_options
from isospace.storage import paths as layout
from isospace.storage.hashing import fingerprint, seal, unseal
from isospace.storage.spec import Name
from isospace.storage.store import Store
from isospace.transform.isotropy import measure_isotropy
from isospace.transform.representations import code_bytes
from isospace.transform.spec import TransformSpec

if TYPE_CHECKING:
    from isospace.encoding.engine import Engine

MEASURES = ("nDCG@10", "R@10", "R@100")
_SAMPLE = 2_000


class ContestSpec(GateSpec):
    """What is compared, on which queries."""

    encoders: dict[Name, EncoderSpec] = Field(min_length=1)
    """Encoders by a short name."""
    transforms: dict[Name, TransformSpec] = Field(min_length=1)
    """Transforms by a short name; each is tried with each encoder."""

    @field_validator("rules")
    @classmethod
    def _ungated(cls, rules: tuple[str, ...]) -> tuple[str, ...]:
        if rules:
            raise ValueError("a contest gates nothing; leave rules out")
        return rules


class ContestConfig(PipelineConfig):
    """A pipeline whose encoder and transform are each of several; those of its recipe are not used."""

    contest: ContestSpec
    """What is compared."""

    def variants(self) -> dict[tuple[str, str], PipelineConfig]:
        """Return a pipeline for each encoder and transform, by their names."""
        found = {}
        for encoder, encoder_spec in self.contest.encoders.items():
            for transform, transform_spec in self.contest.transforms.items():
                recipe = self.recipe.model_copy(
                    update={"encoder": encoder_spec, "transform": transform_spec, "gate": GateSpec()}
                )
                runtime = self.runtime.model_copy(
                    update={
                        "collection": f"{self.runtime.collection}--{encoder}--{transform}",
                        "promote_to": "production",
                    }
                )
                layout.checked_name(runtime.collection, "collection of a variant")
                found[encoder, transform] = PipelineConfig(recipe=recipe, runtime=runtime)
        return found


@dataclass(frozen=True, slots=True)
class Entry:
    """One encoder with one transform.

    Attributes
    ----------
    encoder, transform, collection, snapshot_id
        Which.
    dimension, bytes
        Of a vector, and of what is searched of it.
    ndcg_10, recall_10, recall_100
        On the queries.
    mean_cosine, isotropy
        Of a sample of stored vectors.
    tokens_per_second
        Of the encoder, when it last encoded, by the place where it ran; None if it never did.
    device_hours
        Of one device for a million chunks of this corpus.
    cost
        Of a million chunks, in the currency of `runtime.price_per_device_hour`.
    on_front
        Whether no other entry finds as much with fewer bytes and less time.
    """

    encoder: str
    transform: str
    collection: str
    snapshot_id: str
    dimension: int
    bytes: int
    ndcg_10: float
    recall_10: float
    recall_100: float
    mean_cosine: float
    isotropy: float
    tokens_per_second: float | None
    device_hours: float | None
    cost: float | None
    on_front: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the figures by name."""
        return asdict(self)


def load_contest(path: str | Path, overrides: Sequence[str] = ()) -> ContestConfig:
    """Read a contest from a YAML file, as `isospace.pipeline.config_files.load_config` reads a pipeline."""
    config = read_config(path, ContestConfig, overrides)
    config.variants()
    if not (config.contest.queries and config.contest.judgements):
        raise ConfigError(f"{path}: contest.queries and contest.judgements are needed to compare by what is found.")
    return config


def contest_set(config: ContestConfig) -> EvaluationSet:
    """Return the queries of a contest."""
    spec = config.contest
    return load_set(spec.set, Path(spec.queries or ""), Path(spec.judgements or ""))


def measure_variant(
    store: Store,
    names: tuple[str, str],
    config: PipelineConfig,
    given: EvaluationSet,
    search: Mapping[str, Any],
    *,
    engine: Engine | None = None,
) -> tuple[Entry, bool]:
    """Measure one variant that is embedded; return whether it had to be measured, too.

    Parameters
    ----------
    store
        Where.
    names
        Of encoder and transform.
    config
        The variant's pipeline.
    given, search
        Queries, and options that they are searched with.
    engine
        What runs the encoder.
    """
    collection = config.runtime.collection
    manifest = resolve(store, collection, "production")
    key = fingerprint(
        {"snapshot_id": manifest.snapshot_id, "set_id": given.set_id, "search": dict(search), "sample": _SAMPLE}
    )
    path = layout.comparison_figures(key)
    is_new = not store.exists(path)
    if is_new:
        with open_index(store, collection, engine=engine) as index:
            run = answer_set(index.view, given, search_options(dict(search)))
            vectors = vectors_at(index.view, sample_rows(index.view, _SAMPLE, seed=0))
            record = index.space.space.record
            searched = next(spec for spec in record.spec.representations if spec.name == index.representation)
        isotropy = measure_isotropy(vectors)
        figures = {
            **measure(run.documents, given.judged, MEASURES),
            "mean_cosine": isotropy.mean_cosine,
            "isotropy": isotropy.score,
            "dimension": record.dimension,
            "bytes": code_bytes(searched, record.dimension),
        }
        store.write(path, seal(figures))
    figures = unseal(store.read(path), name=path)
    rate = max(measured_rates(store, manifest.encoder_id).values(), default=None)
    hours = 1e6 * _tokens_a_chunk(store, manifest.collection) / rate / 3600 if rate else None
    price = config.runtime.price_per_device_hour
    entry = Entry(
        encoder=names[0],
        transform=names[1],
        collection=collection,
        snapshot_id=manifest.snapshot_id,
        dimension=int(figures["dimension"]),
        bytes=int(figures["bytes"]),
        ndcg_10=figures["nDCG@10"],
        recall_10=figures["R@10"],
        recall_100=figures["R@100"],
        mean_cosine=figures["mean_cosine"],
        isotropy=figures["isotropy"],
        tokens_per_second=rate,
        device_hours=hours,
        cost=hours * price if hours is not None and price is not None else None,
    )
    return entry, is_new


def mark_front(entries: Sequence[Entry]) -> list[Entry]:
    """Mark the Pareto front of nDCG@10, bytes and device hours; best nDCG@10 first."""
    marked = []
    for one in entries:
        beaten = any(_beats(other, one) for other in entries if other is not one)
        marked.append(Entry(**{**one.as_dict(), "on_front": not beaten}))
    return sorted(marked, key=lambda one: (-one.ndcg_10, one.bytes, one.encoder, one.transform))


def _beats(one: Entry, other: Entry) -> bool:
    """Tell whether one is as good in everything, and better in something."""
    pairs = [(-one.ndcg_10, -other.ndcg_10), (one.bytes, other.bytes)]
    if one.device_hours is not None and other.device_hours is not None:
        pairs.append((one.device_hours, other.device_hours))
    return all(mine <= theirs for mine, theirs in pairs) and any(mine < theirs for mine, theirs in pairs)


def _tokens_a_chunk(store: Store, collection: str) -> float:
    manifest = resolve(store, collection, "production")
    encoder = read_encoder_record(store, manifest.encoder_id)
    # What is longer is cut, unless windows cover it.
    most = np.inf if encoder.windows else encoder.max_tokens
    counts = [table["n_tokens"].to_numpy() for table in live_rows(store, manifest, "chunks", ["n_tokens"])]
    return float(np.minimum(np.concatenate(counts), most).mean()) if counts else 0.0
