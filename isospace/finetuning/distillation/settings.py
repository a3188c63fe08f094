"""Settings of a distillation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from isospace.storage.spec import SpecModel


class DistillSettings(SpecModel):
    """What a static model is made from; all of it is recorded in its lineage."""

    name: str = "static"
    """Name of the result."""
    fit: Literal["corpus", "vocabulary"] = "corpus"
    """`corpus`: least squares on the collection's vectors. `vocabulary`: the teacher's vectors of single tokens,
    weighted by their frequency, as model2vec distills."""
    texts: int = Field(default=50_000, ge=100)
    """Maximum number of texts to fit and to measure."""
    queries: int = Field(default=10_000, ge=0)
    """Maximum number of sentences that are encoded as queries, and fitted too."""
    ridge: float = Field(default=3e-3, gt=0.0)
    """How strongly token vectors are held to those of `vocabulary`."""
    dimension: int | None = Field(default=None, ge=1)
    """Dimensions to keep (PCA); those of the teacher if empty, which a query encoder beside its documents needs."""
    evaluation: str | None = None
    """Evaluation set; `default` if empty and there is one."""
    fit_evaluated: bool = False
    """Whether documents that answer the queries of the evaluation set are fitted, too."""
