"""The part of a recipe that says what happens to raw vectors."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from isospace.transform.representations import Float32Spec, Int8Spec, RepresentationSpec

# Pydantic's names for the two; they show in the place of an error, and are taken out of it.
FIT_TAG, AUTO_TAG = "FitSpec", "AutoSpec"
FitKind = Literal["none", "center", "zscore", "minmax", "zca", "pca_whitening", "pca", "all_but_the_top"]
# What a kind takes beside its name; anything else that is given for it is refused.
_TAKES: dict[str, set[str]] = {
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
    L^-a V^T of the first components, `pca` V^T; `all_but_the_top` removes the first components."""
    means: Literal["shared", "by_role"] = "shared"
    """`shared` subtracts the documents' mean from both roles, `by_role` from queries a mean of their own."""
    exponent: float = Field(default=0.5, ge=0.0, le=0.5)
    """For zca and pca_whitening: a. 0.5 whitens, 0 only centres (and rotates); 0.1 to 0.15 gained most in our trials."""
    epsilon: float = Field(default=0.0, ge=0.0, le=1e6, allow_inf_nan=False)
    """For zca and pca_whitening: added to every eigenvalue, as a multiple of their mean. Large values approach
    centring."""
    covariance: Literal["sample", "ledoit_wolf", "oas"] = "sample"
    """How the covariance is estimated; the others shrink it towards a multiple of the identity by what the sample can
    carry."""
    dimensions: int | None = Field(default=None, ge=1)
    """For pca and pca_whitening: k, how many components stay."""
    components: int = Field(default=1, ge=1)
    """For all_but_the_top: D, how many components go."""
    allow_small_sample: bool = False
    """Whether a covariance may be estimated from fewer than `sample.min_ratio` x d vectors."""

    @model_validator(mode="after")
    def _fitting(self) -> FitSpec:
        given = {name for name in self.model_fields_set if getattr(self, name) != type(self).model_fields[name].default}
        wrong = sorted(given - _TAKES[self.kind] - {"kind"})
        if wrong == ["dimensions"]:
            raise ValueError(
                f"kind={self.kind} takes no dimensions: it leaves nothing in the last coordinates that could be cut. "
                "Use pca_whitening, or recipe.transform.truncate for a Matryoshka model"
            )
        if wrong:
            takes = ", ".join(sorted(_TAKES[self.kind])) or "nothing else"
            raise ValueError(f"kind={self.kind} does not take {', '.join(wrong)}; it takes {takes}")
        if self.kind in ("pca", "pca_whitening") and self.dimensions is None:
            raise ValueError(f"kind={self.kind} needs dimensions")
        return self

    def describe(self) -> str:
        """Name it in a few words."""
        given = self.model_dump(include=_TAKES[self.kind] - {"allow_small_sample"})
        defaults = {name: field.default for name, field in type(self).model_fields.items()}
        words = [f"{name} {value}" for name, value in given.items() if value != defaults[name] or name == "exponent"]
        return ", ".join([self.kind, *words])


DEFAULT_CANDIDATES = (
    FitSpec(kind="center", means="by_role"),
    FitSpec(kind="zca", exponent=0.1, means="by_role"),
    FitSpec(kind="zca", exponent=0.15, means="by_role"),
    FitSpec(kind="zca", exponent=0.25, means="by_role"),
    FitSpec(kind="zca", exponent=0.5, epsilon=1.0),
)


class AutoSpec(_Model):
    """Fit several maps, and keep the one that held-out retrieval prefers."""

    kind: Literal["auto"]
    """Let held-out retrieval choose."""
    candidates: tuple[FitSpec, ...] = Field(default=DEFAULT_CANDIDATES, min_length=1)
    """What is tried, the simpler first: a tie goes to the earlier. `none` is always compared with."""
    p_value: float = Field(default=0.05, gt=0.0, lt=1.0)
    """Level of the one-sided paired randomization test in which the best has to beat `none` on queries held back."""


def _which(value: Any) -> str:
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return AUTO_TAG if kind == "auto" else FIT_TAG


AnyFit: TypeAlias = Annotated[
    Annotated[FitSpec, Tag(FIT_TAG)] | Annotated[AutoSpec, Tag(AUTO_TAG)], Discriminator(_which)
]


class QueriesSpec(_Model):
    """Texts that stand for the queries: for a mean of their own, and for choosing a fit."""

    file: str | None = None
    """A Parquet, CSV or JSON lines file with a column `text` (and `query_id` for judgements), or a text file of one query a
    line: a log, or a labelled set. Without one, pseudo-queries are made from the corpus."""
    judgements: str | None = None
    """Parquet, CSV or JSON lines with query_id, doc_id, relevance."""
    pseudo: Literal["auto", "titles", "sentences"] = "auto"
    """Where pseudo-queries come from: a sentence taken out of a chunk, or a document's title; `auto` takes titles where
    chunks have too few sentences."""
    size: int = Field(default=2_000, ge=20)
    """Most queries. For pseudo-queries as many chunks are encoded again, without the query."""

    @model_validator(mode="after")
    def _judged(self) -> QueriesSpec:
        if self.judgements and not self.file:
            raise ValueError("queries.judgements needs queries.file")
        return self


class SampleSpec(_Model):
    """The sample of the domain that everything is fitted on."""

    size: int = Field(default=50_000, ge=1)
    """Chunks in the sample; all of them where the collection has fewer."""
    seed: int = 0
    """Which uniform sample is drawn."""
    min_ratio: float = Field(default=10.0, ge=0.0, allow_inf_nan=False)
    """Fewest vectors a dimension for a fit that estimates a covariance."""


class TransformSpec(_Model):
    """What happens to raw vectors."""

    truncate: int | None = Field(default=None, ge=1)
    """First dimensions that are kept, before anything else: for models trained for it (Matryoshka)."""
    allow_untrained_truncation: bool = False
    """Whether `truncate` may be used with a model that was not trained for it."""
    fit: AnyFit = FitSpec()
    """The affine map."""
    queries: QueriesSpec = QueriesSpec()
    """What stands for queries where the fit needs them."""
    sample: SampleSpec = SampleSpec()
    """What it is fitted on."""
    normalization: Literal["l2", "none"] = "l2"
    """L2 makes every vector one of unit length; none keeps lengths, and scores are inner products."""
    representations: tuple[RepresentationSpec, ...] = Field(default=(Float32Spec(), Int8Spec()), min_length=1)
    """What is stored of every vector; the first one is searched."""

    @model_validator(mode="after")
    def _distinct(self) -> TransformSpec:
        names = [spec.name for spec in self.representations]
        if len(set(names)) != len(names):
            raise ValueError(f"representations {names} repeat one; name each once, with `name`")
        return self

    @property
    def needs_queries(self) -> bool:
        """Whether the fit looks at queries."""
        return isinstance(self.fit, AutoSpec) or self.fit.means == "by_role"
