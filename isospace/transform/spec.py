"""Configuration of the transform: fit, queries, sample, normalization, representations."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
    model_validator,
)

from isospace.transform.cells_spec import AnyCells
from isospace.transform.representations import Float32Spec, Int8Spec, RepresentationSpec

# Pydantic's tags of the two models. They appear in the location of an error, from which the message removes them.
FIT_TAG, AUTO_TAG = "FitSpec", "AutoSpec"
FitKind = Literal["none", "center", "zscore", "minmax", "zca", "pca_whitening", "pca", "all_but_the_top"]
# The parameters of each kind; any other is an error.
_PARAMETERS: dict[str, set[str]] = {
    "none": set(),
    "center": {"means"},
    "zscore": {"means"},
    "minmax": set(),
    "zca": {"means", "exponent", "epsilon", "covariance", "allow_small_sample"},
    "pca_whitening": {"means", "exponent", "epsilon", "covariance", "dimensions", "allow_small_sample"},
    "pca": {"means", "covariance", "dimensions", "allow_small_sample"},
    "all_but_the_top": {"means", "covariance", "components", "allow_small_sample"},
}


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True)


class FitSpec(_Model):
    """One affine map, fitted on the sample."""

    kind: FitKind = "none"
    """`center` subtracts the mean; `zscore` and `minmax` scale each dimension; `zca` is V L^-a V^T, `pca_whitening`
    L^-a V^T of the first components, `pca` V^T of them; `all_but_the_top` removes the first components."""
    means: Literal["shared", "by_role"] = "shared"
    """`shared` subtracts the mean of the documents from both roles; `by_role` subtracts the mean of the queries from
    queries."""
    exponent: float = Field(default=0.5, ge=0.0, le=0.5)
    """For zca and pca_whitening: a. 0.5 whitens, 0 only centers (and rotates). 0.1 to 0.15 were best in our trials."""
    epsilon: float = Field(default=0.0, ge=0.0, le=1e6, allow_inf_nan=False)
    """For zca and pca_whitening: added to every eigenvalue, as a multiple of their mean. Large values approach
    centering."""
    covariance: Literal["sample", "ledoit_wolf", "oas"] = "sample"
    """How the covariance is estimated. `ledoit_wolf` and `oas` shrink it toward a multiple of the identity, the more so
    the smaller the sample."""
    dimensions: int | None = Field(default=None, ge=1)
    """For pca and pca_whitening: k, the number of components to keep."""
    components: int = Field(default=1, ge=1)
    """For all_but_the_top: D, the number of components to remove."""
    allow_small_sample: bool = False
    """Allow a covariance to be estimated from fewer than `sample.min_ratio` x d vectors."""

    @model_validator(mode="after")
    def _parameters_match_kind(self) -> FitSpec:
        defaults = type(self).model_fields
        changed = {name for name in self.model_fields_set if getattr(self, name) != defaults[name].default}
        unknown = sorted(changed - _PARAMETERS[self.kind] - {"kind"})
        if unknown == ["dimensions"]:
            raise ValueError(
                f"kind={self.kind} takes no dimensions, since its output dimensions are not sorted by variance. Use "
                "pca_whitening, or recipe.transform.truncate for a Matryoshka model"
            )
        if unknown:
            known = ", ".join(sorted(_PARAMETERS[self.kind])) or "nothing else"
            raise ValueError(f"kind={self.kind} does not take {', '.join(unknown)}; it takes {known}")
        if self.kind in ("pca", "pca_whitening") and self.dimensions is None:
            raise ValueError(f"kind={self.kind} needs dimensions")
        return self

    def describe(self) -> str:
        """Return the kind and the parameters that differ from their defaults, in a few words."""
        values = self.model_dump(include=_PARAMETERS[self.kind] - {"allow_small_sample"})
        defaults = {name: field.default for name, field in type(self).model_fields.items()}
        words = [f"{name} {value}" for name, value in values.items() if value != defaults[name] or name == "exponent"]
        return ", ".join([self.kind, *words])


DEFAULT_CANDIDATES = (
    FitSpec(kind="center", means="by_role"),
    FitSpec(kind="zca", exponent=0.1, means="by_role"),
    FitSpec(kind="zca", exponent=0.15, means="by_role"),
    FitSpec(kind="zca", exponent=0.25, means="by_role"),
    FitSpec(kind="zca", exponent=0.5, epsilon=1.0),
)


class AutoSpec(_Model):
    """Fit several maps, and keep the one that retrieves best on held-out queries."""

    kind: Literal["auto"]
    """Choose by retrieval on held-out queries."""
    candidates: tuple[FitSpec, ...] = Field(default=DEFAULT_CANDIDATES, min_length=1)
    """Candidates, the simplest first: in a tie the earlier one wins. `none` is always compared too."""
    p_value: float = Field(default=0.05, gt=0.0, lt=1.0)
    """Significance level of the one-sided paired randomization test in which the best candidate must beat `none` on
    held-out queries."""


def _fit_tag(value: Any) -> str:
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return AUTO_TAG if kind == "auto" else FIT_TAG


AnyFit: TypeAlias = Annotated[
    Annotated[FitSpec, Tag(FIT_TAG)] | Annotated[AutoSpec, Tag(AUTO_TAG)], Discriminator(_fit_tag)
]


class QueriesSpec(_Model):
    """Sample of the queries, for their mean and for choosing a fit."""

    file: str | None = None
    """A Parquet, CSV, or JSON lines file with a column `text` (and `query_id` for judgements), or a text file with one
    query per line. It can be a query log or a labeled set. Without a file, pseudo-queries are generated from the
    corpus."""
    judgements: str | None = None
    """Parquet, CSV, or JSON lines file with the columns query_id, doc_id, relevance."""
    pseudo: Literal["auto", "titles", "sentences"] = "auto"
    """Source of pseudo-queries: a sentence removed from a chunk, or the title of a document. `auto` uses titles if
    chunks have too few sentences."""
    size: int = Field(default=2_000, ge=20)
    """Maximum number of queries. For each pseudo-query, one chunk is re-encoded without the query."""

    @model_validator(mode="after")
    def _judgements_have_queries(self) -> QueriesSpec:
        if self.judgements and not self.file:
            raise ValueError("queries.judgements needs queries.file: give the file with the queries, too")
        return self


class SampleSpec(_Model):
    """The sample of chunks that everything is fitted on."""

    size: int = Field(default=50_000, ge=1)
    """Number of chunks in the sample; all chunks if the collection has fewer."""
    seed: int = 0
    """Random seed of the sample."""
    min_ratio: float = Field(default=10.0, ge=0.0, allow_inf_nan=False)
    """Minimum number of vectors per dimension for a fit that estimates a covariance."""


class TransformSpec(_Model):
    """How raw vectors are transformed and stored."""

    truncate: int | None = Field(default=None, ge=1)
    """Number of leading dimensions to keep, before all other steps. For models trained for truncation (Matryoshka)."""
    allow_untrained_truncation: bool = False
    """Allow `truncate` for a model that was not trained for truncation."""
    fit: AnyFit = FitSpec()
    """The affine map."""
    queries: QueriesSpec = QueriesSpec()
    """The sample of queries, for fits that need one."""
    sample: SampleSpec = SampleSpec()
    """The sample of chunks."""
    normalization: Literal["l2", "none"] = "l2"
    """`l2` scales every vector to unit length; `none` keeps lengths, and scores are inner products."""
    representations: tuple[RepresentationSpec, ...] = Field(default=(Float32Spec(), Int8Spec()), min_length=1)
    """What is stored of every vector. The first representation is searched."""
    cells: AnyCells | None = None
    """Cells for approximate searches: `auto`, a number of cells, or a mapping; none if empty. Adding them makes a new
    space, and encodes no text again."""

    @model_serializer(mode="wrap")
    def _without_absent_parts(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A part that is absent must not change the fingerprints of spaces that were sealed before it existed.
        body: dict[str, Any] = serialize(self)
        return {name: value for name, value in body.items() if name != "cells" or value is not None}

    @model_validator(mode="after")
    def _names_are_distinct(self) -> TransformSpec:
        names = [spec.name for spec in self.representations]
        if len(set(names)) != len(names):
            raise ValueError(f"representations {names} repeat a name; give each its own `name`")
        if self.cells is not None and (taken := sorted({"cell", "cells"} & set(names))):
            # Without cells, the names stay allowed: there are spaces that use them.
            raise ValueError(f"representation {taken[0]!r} has the name of a column of cells; give it another `name`")
        return self

    @property
    def needs_queries(self) -> bool:
        """Whether the fit needs queries."""
        return isinstance(self.fit, AutoSpec) or self.fit.means == "by_role"
