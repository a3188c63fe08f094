"""Compare encoders x transforms on one corpus and its queries: cost, quality, and Pareto front.

Each variant is a separate collection, embedded by the same pipeline as any other; variants of one encoder share raw
vectors. Figures are cached by their inputs, so that a second comparison measures only what is new.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from pydantic import Field, field_validator, model_validator

from isospace.collection.alias import resolve
from isospace.collection.live_rows import live_rows
from isospace.encoding.registry.record import read_encoder_record
from isospace.encoding.spec import EncoderSpec
from isospace.encoding.throughput import measured_rates
from isospace.errors import ConfigError
from isospace.evaluation.gate.spec import GateSpec
from isospace.evaluation.metrics import per_query
from isospace.evaluation.norms import sample_rows, vectors_at
from isospace.evaluation.query_set_files import load_set
from isospace.evaluation.query_sets import EvaluationSet
from isospace.evaluation.runs import SetRun, answer_set
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.config_files import read_config
from isospace.search.open_index import open_index
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

METRICS = ("nDCG@10", "R@10", "R@100")
Verdict: TypeAlias = Literal["best", "no difference", "worse"]
_SAMPLE = 2_000
_BY_QUERY = "nDCG@10 of query "


class ComparisonSpec(GateSpec):
    """The variants to compare, and the queries to compare them on."""

    encoders: dict[Name, EncoderSpec] = Field(min_length=1)
    """Encoders, each under a short name."""
    query_encoders: dict[Name, EncoderSpec] = Field(default_factory=dict)
    """Encoders of queries, for those of `encoders` that encode documents only, under the same names."""
    transforms: dict[Name, TransformSpec] = Field(min_length=1)
    """Transforms, each under a short name; every encoder is combined with every transform."""

    @field_validator("rules")
    @classmethod
    def _without_rules(cls, rules: tuple[str, ...]) -> tuple[str, ...]:
        if rules:
            raise ValueError("a model comparison has no gate; remove `rules`")
        return rules

    @model_validator(mode="after")
    def _named_alike(self) -> ComparisonSpec:
        if unknown := sorted(self.query_encoders.keys() - self.encoders.keys()):
            raise ValueError(
                f"query_encoders names {', '.join(unknown)}; expected names of encoders: {', '.join(self.encoders)}"
            )
        return self


class ComparisonConfig(PipelineConfig):
    """A pipeline with several encoders and transforms to compare; those of its recipe are not used."""

    contest: ComparisonSpec
    """The variants to compare."""

    def variants(self) -> dict[tuple[str, str], PipelineConfig]:
        """Return one pipeline for each pair of encoder and transform, by their names."""
        pipelines = {}
        for encoder, encoder_spec in self.contest.encoders.items():
            for transform, transform_spec in self.contest.transforms.items():
                recipe = self.recipe.model_copy(
                    update={
                        "encoder": encoder_spec,
                        "query_encoder": self.contest.query_encoders.get(encoder),
                        "transform": transform_spec,
                        "gate": GateSpec(),
                    }
                )
                runtime = self.runtime.model_copy(
                    update={
                        "collection": f"{self.runtime.collection}--{encoder}--{transform}",
                        "promote_to": "production",
                    }
                )
                layout.checked_name(runtime.collection, "collection of a variant")
                pipelines[encoder, transform] = PipelineConfig(recipe=recipe, runtime=runtime)
        return pipelines


@dataclass(frozen=True, slots=True)
class Entry:
    """The figures of one variant: an encoder with a transform.

    Attributes
    ----------
    bytes
        Bytes per vector of the representation that is searched.
    mean_cosine, isotropy
        Measured on a sample of stored vectors.
    tokens_per_second
        Highest recorded throughput of the encoder; None if none was measured.
    device_hours
        Hours of one device to encode a million chunks of this corpus.
    cost
        Cost of encoding a million chunks, in the currency of `runtime.price_per_device_hour`.
    by_query
        nDCG@10 by query_id.
    on_front
        Whether the variant is on the Pareto front of nDCG@10, bytes, and device hours.
    difference, interval, p
        nDCG@10 minus that of the best variant, on the same queries: mean, 95 percent bootstrap interval, and p-value of
        a two-sided paired randomization test; None for the best.
    verdict
        `best`; `worse`; or `no difference`, if the interval includes zero.
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
    by_query: Mapping[str, float] = field(default_factory=dict)
    on_front: bool = False
    difference: float | None = None
    interval: tuple[float, float] | None = None
    p: float | None = None
    verdict: Verdict = "best"

    @property
    def name(self) -> str:
        """Encoder and transform, as a label."""
        return f"{self.encoder}, {self.transform}"

    @property
    def title(self) -> str:
        """Encoder and transform, as part of a sentence."""
        return f"{self.encoder} with {self.transform}"

    def as_dict(self) -> dict[str, Any]:
        """Return the figures by name, without those of single queries."""
        return {name: value for name, value in asdict(self).items() if name != "by_query"}


def load_comparison(path: str | Path, overrides: Sequence[str] = ()) -> ComparisonConfig:
    """Read a model comparison from a YAML file, as `load_config` reads a pipeline."""
    return checked_comparison(read_config(path, ComparisonConfig, overrides), str(path))


def checked_comparison(config: ComparisonConfig, path: str) -> ComparisonConfig:
    """Return a comparison that can be run; raise ConfigError if queries or judgements are missing."""
    config.variants()
    if not (config.contest.queries and config.contest.judgements):
        raise ConfigError(
            f"{path}: contest.queries or contest.judgements is missing; a comparison needs both. Set the missing one "
            "to the path of a file."
        )
    return config


def comparison_set(config: ComparisonConfig) -> EvaluationSet:
    """Load the queries and judgements of a comparison.

    Raises
    ------
    ConfigError
        If a file cannot be read, or no query has a relevant document.
    """
    spec = config.contest
    query_set = load_set(spec.set, Path(spec.queries or ""), Path(spec.judgements or ""))
    if not query_set.relevant:
        raise ConfigError(
            f"contest.judgements = {spec.judgements}: no query of {spec.queries} has a relevant document there. Check "
            "that both files use the same query_ids."
        )
    return query_set


def measure_variant(
    store: Store,
    names: tuple[str, str],
    config: PipelineConfig,
    query_set: EvaluationSet,
    search: Mapping[str, Any],
    *,
    engine: Engine | None = None,
) -> tuple[Entry, bool]:
    """Measure one embedded variant; return its figures, and False if they were cached.

    `names` are those of its encoder and transform, `search` the options that the queries are searched with.
    """
    collection = config.runtime.collection
    manifest = resolve(store, collection, "production")
    key = fingerprint(
        {
            "snapshot_id": manifest.snapshot_id,
            "set_id": query_set.set_id,
            "search": dict(search),
            "sample": _SAMPLE,
            "by_query": _BY_QUERY,
        }
    )
    path = layout.comparison_figures(key)
    is_new = not store.exists(path)
    if is_new:
        with open_index(store, collection, engine=engine) as index:
            run = answer_set(index.view, query_set, search_options(dict(search)))
            _require_judged(query_set, run)
            vectors = vectors_at(index.view, sample_rows(index.view, _SAMPLE, seed=0))
            record = index.space.space.record
            searched = next(spec for spec in record.spec.representations if spec.name == index.representation)
        isotropy = measure_isotropy(vectors)
        values = per_query(run.documents, query_set.judged, METRICS)
        figures = {
            **{name: sum(by_query.values()) / len(by_query) for name, by_query in values.items()},
            # Flat, since a file of figures is kept by an erasure only if it holds nothing but numbers.
            **{f"{_BY_QUERY}{query_id}": value for query_id, value in values[METRICS[0]].items()},
            "mean_cosine": isotropy.mean_cosine,
            "isotropy": isotropy.score,
            "dimension": record.dimension,
            "bytes": code_bytes(searched, record.dimension),
        }
        store.write(path, seal(figures))
    figures = unseal(store.read(path), name=path)
    rate = max(measured_rates(store, manifest.encoder_id).values(), default=None)
    hours = 1e6 * _tokens_per_chunk(store, manifest.collection) / rate / 3600 if rate else None
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
        by_query={name.removeprefix(_BY_QUERY): value for name, value in figures.items() if name.startswith(_BY_QUERY)},
    )
    return entry, is_new


def _require_judged(query_set: EvaluationSet, run: SetRun) -> None:
    if run.absent == len(query_set.relevant):
        raise ConfigError(
            f"evaluation set {query_set.name}: none of its {run.absent:,} judged documents is in the corpus, such as "
            f"{min(query_set.relevant)!r}. Set contest.queries and contest.judgements to files of this corpus."
        )


def _tokens_per_chunk(store: Store, collection: str) -> float:
    manifest = resolve(store, collection, "production")
    encoder = read_encoder_record(store, manifest.encoder_id)
    # Longer chunks are truncated, unless windows cover them.
    most = np.inf if encoder.windows else encoder.max_tokens
    counts = [table["n_tokens"].to_numpy() for table in live_rows(store, manifest, "chunks", ["n_tokens"])]
    return float(np.minimum(np.concatenate(counts), most).mean()) if counts else 0.0
