"""The figures of an audit as they are stored; `page` words them for readers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator

from isospace.evaluation.drift import Drift, Shifts
from isospace.evaluation.length_bias import LengthBucket
from isospace.evaluation.norms import Norms
from isospace.evaluation.stored_vectors import StoredVectors
from isospace.operations.audit.frozen_queries import FrozenResults
from isospace.operations.audit.logged_queries import LogResults
from isospace.operations.audit.measurements import Measurements
from isospace.operations.audit.metrics import StoredCodes
from isospace.transform.isotropy import Isotropy


class _Figures(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    # Fields whose key was different in records of earlier versions, with that key.
    former_keys: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _rename_former_keys(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        fields = {former: field for field, former in cls.former_keys.items()}
        return {fields.get(key, key): value for key, value in data.items()}


class NormFigures(_Figures):
    """Lengths of all vectors; None if a length is not finite."""

    count: int
    smallest: float | None
    largest: float | None
    largest_error: float | None
    counts: tuple[int, ...]
    edges: tuple[float, float]


class IsotropyFigures(_Figures):
    """Isotropy of the raw vectors at the fit, and of the stored vectors."""

    former_keys = {"raw_at_fit": "raw, at the fit"}
    raw_at_fit: Isotropy
    stored: Isotropy


class DimensionFigures(_Figures):
    """Shifts since the fit, one value per dimension."""

    psi: tuple[float, ...]
    ks: tuple[float, ...]
    spread: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]


class SaturationFigures(_Figures):
    """Share of components that exceed the range of a representation."""

    former_keys = {"at_fit": "at the fit"}
    now: float
    at_fit: float


class ReproducedFigures(_Figures):
    """Stored vectors compared with the re-encoded texts; `wrong` lists the chunks beyond the tolerance."""

    former_keys = {"smallest_cosine": "smallest cosine"}
    chunks: int
    smallest_cosine: float
    wrong: tuple[str, ...]


class CorpusFigures(_Figures):
    """Chunks added since the fit; `copies` are shares of all chunks."""

    former_keys = {"new_chunks": "new chunks", "copies_at_fit": "copies at the fit", "reference_snapshot": "reference"}
    new_chunks: int
    copies: float
    copies_at_fit: float
    reference_snapshot: int
    drift: Drift | None


class FrozenFigures(_Figures):
    """Frozen queries compared with their baseline."""

    former_keys = {"name": "set", "ndcg": "ndcg@10", "ndcg_before": "ndcg@10_before"}
    name: str
    kind: str
    queries: int
    compared_with: int | None
    overlap: float
    rbo: float
    ndcg: float | None
    """nDCG@10; None without judgements."""
    ndcg_before: float | None
    changed_queries: tuple[tuple[str, float], ...] = ()
    """The queries whose top ten changed most: query_id, overlap. A record names queries, and never quotes them."""
    changed: tuple[tuple[str, float], ...] = ()
    """The same with texts for query_ids, in records of earlier versions."""


class LoggedFigures(_Figures):
    """Logged queries and answers; `overlap` and `rbo` measure the agreement with the candidate."""

    former_keys = {
        "smallest_cosine": "smallest cosine",
        "overlap": "overlap with the candidate",
        "rbo": "rbo with the candidate",
    }
    count: int
    stale: float
    unverified: float
    smallest_cosine: float | None
    wrong: float
    drift: Drift | None
    compared: int
    overlap: float | None
    rbo: float | None


class Figures(_Figures):
    """All figures of one audit."""

    former_keys = {
        "random_pair_cosines": "cosines of random pairs",
        "frozen_queries": "frozen queries",
        "logged_queries": "logged answers",
    }
    norms: NormFigures
    isotropy: IsotropyFigures
    random_pair_cosines: dict[int, float]
    """By percentile."""
    dimensions: DimensionFigures
    saturated: dict[str, SaturationFigures]
    """By representation."""
    reproduced: ReproducedFigures
    length: tuple[LengthBucket, ...]
    corpus: CorpusFigures
    frozen_queries: FrozenFigures | None
    representations: tuple[StoredCodes, ...]
    logged_queries: LoggedFigures | None
    languages: dict[str, float] = {}
    """Share of each language in a sample of chunks, largest first; empty in the oldest records."""


def figures_of(measured: Measurements) -> Figures:
    """Return the figures of an audit, without its arrays."""
    stored, reproduced, corpus = measured.stored, measured.reproduced, measured.corpus
    return Figures(
        norms=_norms(stored.norms),
        isotropy=IsotropyFigures(raw_at_fit=stored.before, stored=stored.after),
        random_pair_cosines=stored.cosines,
        dimensions=_dimensions(stored.shifts),
        saturated=_saturated(stored),
        reproduced=ReproducedFigures(
            chunks=reproduced.count, smallest_cosine=reproduced.smallest_cosine, wrong=reproduced.wrong
        ),
        length=reproduced.buckets,
        corpus=CorpusFigures(
            new_chunks=corpus.new_chunks,
            copies=corpus.copies,
            copies_at_fit=measured.reference.duplicates,
            reference_snapshot=measured.reference.snapshot,
            drift=corpus.drift,
        ),
        frozen_queries=_frozen(measured.frozen) if measured.frozen else None,
        representations=measured.codes,
        logged_queries=_logged(measured.logged) if measured.logged else None,
        languages=measured.languages,
    )


def _norms(norms: Norms) -> NormFigures:
    smallest, largest, error = (
        value if np.isfinite(value) else None for value in (norms.smallest, norms.largest, norms.largest_error)
    )
    return NormFigures(
        count=norms.count,
        smallest=smallest,
        largest=largest,
        largest_error=error,
        counts=norms.counts,
        edges=norms.edges,
    )


def _dimensions(shifts: Shifts) -> DimensionFigures:
    # Six digits: thousands of values are stored for each audit.
    values = {name: [float(f"{v:.6g}") for v in getattr(shifts, name)] for name in DimensionFigures.model_fields}
    return DimensionFigures.model_validate(values)


def _saturated(stored: StoredVectors) -> dict[str, SaturationFigures]:
    return {
        name: SaturationFigures(now=share, at_fit=stored.saturated_before[name])
        for name, share in stored.saturated.items()
    }


def _frozen(frozen: FrozenResults) -> FrozenFigures:
    return FrozenFigures(
        name=frozen.name,
        kind=frozen.kind,
        queries=frozen.queries,
        compared_with=frozen.compared_with,
        overlap=frozen.overlap,
        rbo=frozen.rbo,
        ndcg=frozen.ndcg,
        ndcg_before=frozen.ndcg_before,
        changed_queries=tuple((one.query_id, one.overlap) for one in frozen.changed),
    )


def _logged(logged: LogResults) -> LoggedFigures:
    return LoggedFigures(
        count=logged.count,
        stale=logged.stale,
        unverified=logged.unverified,
        smallest_cosine=logged.reproduced,
        wrong=logged.wrong,
        drift=logged.drift,
        compared=logged.compared,
        overlap=logged.overlap,
        rbo=logged.rbo,
    )
