"""Search options, shared by the library, the command line, and the service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias, TypedDict

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import ErrorDetails, PydanticCustomError

from isospace.errors import QueryError
from isospace.search.vector.scoring import Metric

Mode: TypeAlias = Literal["auto", "exact", "approximate", "quantized", "tiered", "lexical", "sparse", "hybrid"]
Fusion: TypeAlias = Literal["rrf", "weighted"]
_Weight = Annotated[float, Field(ge=0.0, le=1_000.0, allow_inf_nan=False)]

# Lists of groups make it long.
LONGEST_SCOPE = 20_000
# The place of the last hit of a page: what is before a page has to be searched, too.
LAST_PLACE = 10_000


# Modes that search for words or terms alone, so that they need no vector of the query.
WORD_MODES: frozenset[Mode] = frozenset({"lexical", "sparse"})
# Modes that need the queries as texts.
TEXT_MODES: frozenset[Mode] = WORD_MODES | {"hybrid"}


def _one_message(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """Say of a wrong value what is expected, instead of what each type of a union would have expected."""
    try:
        return check(value)
    except ValidationError:
        raise PydanticCustomError("neighbors", "expected 0 to 20, or section") from None


Neighbors: TypeAlias = Annotated[Annotated[int, Field(ge=0, le=20)] | Literal["section"], WrapValidator(_one_message)]


class SearchOptions(BaseModel):
    """The options of a search."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    k: int = Field(default=10, ge=1)
    """Maximum number of hits per query."""
    mode: Mode = "auto"
    """`exact` scores every vector; `approximate` scores those in the cells near the query, for a recall that you state;
    `quantized` scores every code and rescores the best; `tiered` searches the short
    (truncated) representation first; `lexical` is BM25; `sparse` adds the weights of a sparse encoder; `hybrid` fuses
    vectors, BM25, and sparse weights if the snapshot has them. `auto` is approximate if the space has cells and the
    snapshot 100,000 chunks or more, else exact if the space stores floats, else quantized."""
    recall: float | None = Field(default=None, gt=0.0, le=1.0, allow_inf_nan=False)
    """For approximate: the share of the exact hits to find, on average; by default that of `recipe.search.recall`."""
    representation: str | None = Field(default=None, max_length=60)
    """Stored representation that is searched first; by default the first one that the mode can use."""
    rescore: int = Field(default=4, ge=0, le=1_000)
    """For quantized and tiered: r, where the r x k best are rescored from the finest representation; 0 for none."""
    metric: Metric = "cosine"
    """`cosine`, `dot`, or the negated distances `l2` and `l1`; l1 needs mode exact."""
    filter: str | None = Field(default=None, max_length=2_000)
    """Expression over the documents' metadata, such as `lang == "en" and year >= 2020`."""
    neighbors: Neighbors = 0
    """How many chunks of the document before and after a hit are returned with it, as `context`; `section` for the
    section that it is in, up to 20,000 characters."""
    group_by: Literal["document"] | None = None
    """`document`: `k` is the number of documents, each with its best chunks; by default, of chunks."""
    per_document: int = Field(default=1, ge=1, le=100)
    """With `group_by`: maximum number of chunks of a document."""
    scope: str | None = Field(default=None, max_length=LONGEST_SCOPE)
    """A second filter, for what a caller may see at all: only documents that pass it are searched, whatever `filter`
    says. The service takes it from the API key or the token, never from the request."""
    fusion: Fusion = "rrf"
    """For hybrid: `rrf` adds weight / (60 + rank); `weighted` adds weight x score, scores scaled to 0..1 per list."""
    weights: tuple[_Weight, _Weight] = (1.0, 1.0)
    """For hybrid: weights of the vector and the BM25 ranking."""
    sparse_weight: _Weight = 1.0
    """For hybrid: weight of the ranking by sparse weights, if the snapshot has them; 0 leaves it out."""
    depth: int = Field(default=100, ge=1)
    """For hybrid, rerank, and diversity: how many hits of each list are fused, how many the reranker scores, and from
    how many is selected. With `offset`, also the number of candidates that modes quantized and tiered order."""
    rerank: bool = False
    """Whether to rerank the `depth` best with the cross-encoder that the index was opened with."""
    diversity: float = Field(default=0.0, ge=0.0, le=1.0, allow_inf_nan=False)
    """Above 0, hits are selected from the `depth` best one after another, each by (1 - diversity) x its score, scaled
    to 0..1, - diversity x its highest cosine with those before it (maximal marginal relevance)."""
    min_score: float | None = Field(default=None, allow_inf_nan=False)
    """For vector modes without rerank: hits with a lower score are left out."""
    explain: bool = False
    """Whether hits have a `percentile`."""
    offset: int | None = Field(default=None, ge=0)
    """For pages: how many hits are left out before the first one, 0 for the first page; with `group_by`, how many
    documents. `offset + k` is at most 10,000, and at most `depth` where candidates are rescored, fused,
    reranked, or selected for diversity."""
    snapshot_id: str | None = Field(default=None, max_length=64)
    """ID of the snapshot that must be searched, or its first eight digits or more: that of the first page."""

    @property
    def uses_sparse(self) -> bool:
        """Whether sparse vectors are searched, if the snapshot has them."""
        return self.mode == "sparse" or (self.mode == "hybrid" and self.sparse_weight > 0)

    def by_words(self) -> SearchOptions:
        """Return options that search words alone, for when queries cannot be embedded."""
        for_vectors = ("representation", "rescore", "metric", "fusion", "weights", "sparse_weight", "min_score")
        usual = {name: SearchOptions.model_fields[name].default for name in for_vectors}
        return self.model_copy(update={**usual, "mode": "lexical"})


class SearchKeywords(TypedDict, total=False):
    """The options as keywords of `Index.search`, for type checkers: the fields of `SearchOptions` without `k`."""

    mode: Mode
    recall: float | None
    representation: str | None
    rescore: int
    metric: Metric
    filter: str | None
    neighbors: int | Literal["section"]
    group_by: Literal["document"] | None
    per_document: int
    scope: str | None
    fusion: Fusion
    weights: tuple[float, float]
    sparse_weight: float
    depth: int
    rerank: bool
    diversity: float
    min_score: float | None
    explain: bool
    offset: int | None
    snapshot_id: str | None


def search_options(values: Mapping[str, object]) -> SearchOptions:
    """Build search options; a QueryError names the invalid one."""
    try:
        options = SearchOptions.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        known = f" Known: {', '.join(SearchOptions.model_fields)}." if first["type"] == "extra_forbidden" else ""
        raise QueryError(f"{name} = {first['input']!r:.80}: {_expected(first)}.{known}") from error
    if options.per_document > 1 and options.group_by is None:
        raise QueryError(f'per_document = {options.per_document}: needs group_by = "document", which k then counts.')
    if options.min_score is not None and (options.mode in TEXT_MODES or options.rerank):
        raise QueryError(
            f"min_score = {options.min_score:g}: mode {options.mode}, rerank {options.rerank}: expected mode auto, "
            "exact, quantized, or tiered without rerank. Other scores do not compare between queries."
        )
    if options.offset is not None and options.offset + options.k > LAST_PLACE:
        raise QueryError(
            f"offset + k = {options.offset + options.k}: expected {LAST_PLACE} or less. Narrow the search by a filter."
        )
    return options


def _expected(error: ErrorDetails) -> str:
    limits = error.get("ctx", {})
    if "ge" in limits:
        return f"expected {limits['ge']} or more"
    return f"expected {limits['le']} or less" if "le" in limits else str(error["msg"])
