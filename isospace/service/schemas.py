"""Bodies of requests and responses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from isospace.search.more_like import MOST_CHUNKS
from isospace.search.options import Neighbors
from isospace.search.vector.scoring import Metric
from isospace.service.errors import printable

_Token = Annotated[int, Field(ge=0, lt=2**31)]
_Weight = Annotated[float, Field(ge=0, le=1000)]
_ChunkId = Annotated[str, Field(min_length=1, max_length=2000)]
_NAME_CHARACTERS = 80


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("a text is blank; expected at least one character that is not white space")
    return text


Text = Annotated[str, Field(min_length=1, pattern=r"\S"), AfterValidator(_not_blank)]


class _Request(BaseModel):
    """The body of a request.

    Its errors are few, however large it is: lists fail fast, and of the unknown fields only the first is reported.
    """

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_fields(cls, body: Any) -> Any:
        unknown = [name for name in body if name not in cls.model_fields][:1] if isinstance(body, dict) else []
        if not unknown:
            return body
        context = {"name": printable(str(unknown[0])[:_NAME_CHARACTERS]), "known": ", ".join(cls.model_fields)}
        raise PydanticCustomError("unknown_field", "{name}: unknown field. Known: {known}.", context)


class _Answer(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class EmbeddingRequest(_Request):
    """Inputs to embed, in the format of OpenAI's API, and the role of the texts."""

    input: (
        Text
        | Annotated[list[Text], Field(min_length=1, fail_fast=True)]
        | Annotated[list[_Token], Field(min_length=1, fail_fast=True)]
        | Annotated[
            list[Annotated[list[_Token], Field(min_length=1, fail_fast=True)]], Field(min_length=1, fail_fast=True)
        ]
    )
    """One or more texts, or token IDs of the space's tokenizer, with special tokens and the role's prompt."""
    model: Annotated[str, Field(min_length=1, max_length=200)]
    """Name of the collection, or the space ID or its first 8 or more digits."""
    dimensions: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Number of dimensions to return, renormalized to unit length; for spaces that support truncation."""
    encoding_format: Literal["float", "base64"] | None = "float"
    """`base64` encodes little-endian float32; null is `float`."""
    user: Annotated[str, Field(max_length=1000)] | None = None
    """Ignored."""
    input_type: Literal["query", "document"] | None = None
    """Role of the texts. Optional if the space treats both alike."""


class Embedding(_Answer):
    """One vector."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Usage(_Answer):
    """Number of tokens, including prompts and special tokens."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingResponse(_Answer):
    """Vectors in the order of the input."""

    object: Literal["list"] = "list"
    model: str
    data: list[Embedding]
    usage: Usage
    space_id: str


@dataclass(frozen=True, slots=True)
class Like:
    """Chunks to find others like them, in the place of a query."""

    chunk_ids: tuple[str, ...]


class SearchRequest(_Request):
    """Queries, or chunks to find others like them, and search options."""

    query: Text | Annotated[list[Text], Field(min_length=1, fail_fast=True)] | None = None
    """One text or several."""
    like: _ChunkId | Annotated[list[_ChunkId], Field(min_length=1, max_length=MOST_CHUNKS, fail_fast=True)] | None = (
        None
    )
    """In place of `query`: find the chunks nearest to the chunk of this ID, or to the mean of several."""
    k: Annotated[int, Field(ge=1, le=1000)] = 10
    """Maximum number of hits per query."""
    mode: Literal["auto", "exact", "approximate", "quantized", "tiered", "lexical", "sparse", "hybrid"] = "auto"
    """Search mode; see the guide to searching."""
    recall: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    """For approximate: the share of the exact hits to find, on average; by default that of the collection."""
    representation: Annotated[str, Field(max_length=60)] | None = None
    """Stored representation that is searched first."""
    rescore: Annotated[int, Field(ge=0, le=1000)] = 4
    """r, where the r x k best are rescored from the finest representation."""
    metric: Metric = "cosine"
    """Similarity, or negated distance."""
    filter: Annotated[str, Field(max_length=2000)] | None = None
    """Expression over the documents' metadata, such as `lang == "en" and year >= 2020`."""
    neighbors: Neighbors = 0
    """How many chunks before and after a hit are returned with it, as `context`; `section` for the section that it is
    in, up to 20,000 characters."""
    group_by: Literal["document"] | None = None
    """`document`: `k` counts documents, each with its best chunks."""
    per_document: Annotated[int, Field(ge=1, le=100)] = 1
    """With `group_by`: maximum number of chunks of a document."""
    fusion: Literal["rrf", "weighted"] = "rrf"
    """For hybrid: fusion by ranks or by scores."""
    weights: Annotated[list[_Weight], Field(min_length=2, max_length=2, fail_fast=True)] = [1.0, 1.0]
    """For hybrid: weights of the vector and the BM25 ranking."""
    sparse_weight: _Weight = 1.0
    """For hybrid: weight of the ranking by sparse weights, if the snapshot has them; 0 leaves it out."""
    depth: Annotated[int, Field(ge=1, le=1000)] = 100
    """For hybrid, rerank, and diversity: how many hits of each list are fused, how many the reranker scores, and from
    how many is selected. With `offset`, also the number of candidates that modes quantized and tiered order."""
    rerank: bool = False
    """Whether to rerank the best hits with the service's cross-encoder."""
    diversity: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Above 0, hits that are unlike those before them are preferred, and selected from the `depth` best."""
    min_score: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """For vector modes without rerank: hits with a lower score are left out."""
    explain: bool = False
    """Whether hits have a `percentile`."""
    offset: Annotated[int, Field(ge=0, le=10_000)] | None = None
    """For pages: how many hits, or documents with `group_by`, are left out before the first one; 0 for the first page.
    The order of pages is determined by `depth` where candidates are rescored, fused, reranked, or selected."""
    snapshot_id: Annotated[str, Field(max_length=64)] | None = None
    """The `snapshot_id` of the first page, or its first 8 or more digits; if another snapshot is served, the answer is
    409."""

    @model_validator(mode="after")
    def _require_one(self) -> SearchRequest:
        if (self.query is None) == (self.like is None):
            found = "neither query nor like is given" if self.query is None else "both query and like are given"
            message = "{found}; expected one of them: query with texts, or like with the chunk_id of a hit."
            raise PydanticCustomError("query_or_like", message, {"found": found, "name": "query"})
        return self

    def asked(self) -> list[str | Like]:
        """Return the queries, or the only example."""
        if self.like is not None:
            return [Like((self.like,) if isinstance(self.like, str) else tuple(self.like))]
        return [self.query] if isinstance(self.query, str) else [*(self.query or ())]

    def options(self) -> dict[str, Any]:
        """Return the fields of `SearchOptions`."""
        fields = self.model_dump(exclude={"query", "like"})
        return {**fields, "weights": tuple(self.weights)}


class FoundChunk(_Answer):
    """A chunk that matches a query."""

    score: float
    chunk_id: str
    doc_id: str
    uri: str
    title: str
    text: str
    start: int
    end: int
    metadata: dict[str, Any]
    scores: dict[str, float]
    context: str
    context_start: int
    context_end: int
    percentile: float | None
    """With `explain`: percentage of pairs of chunks of different documents whose cosine is lower; null if the chunk was
    not found by its cosine."""
    heading_path: list[str]
    """The headings above the chunk, outermost first; empty if none is known."""
    highlights: list[tuple[int, int]]
    """Spans of `text` that match words of the query, in characters."""


class VisitedCells(_Answer):
    """What an approximate search visited."""

    cells: int
    rows: int
    """Chunks in these cells that could be found."""
    scored: int
    """Chunks that were scored exactly."""
    recall: float
    """The recall that was declared."""


class QueryResult(_Answer):
    """The hits of one query."""

    query: str | None
    """null for `like`."""
    hits: list[FoundChunk]
    visited: VisitedCells | None = None
    """What an approximate search visited; null for one that scored every chunk."""


class PartialSearch(BaseModel):
    """What a search left out, since shards do not answer."""

    missing_shards: list[str]
    """Their numbers, such as `2/3`."""
    searched: float
    """Share of the snapshot's chunks that was searched, from 0 to 1."""


class SearchResponse(_Answer):
    """The results, and the snapshot that was searched."""

    space_id: str
    snapshot: int
    snapshot_id: str
    results: list[QueryResult]
    milliseconds: dict[str, float]
    """By stage."""
    degraded: str | None = None
    """Why words alone were searched, instead of the mode that was asked for; null if nothing is wrong."""
    partial: PartialSearch | None = None
    """What was not searched, since shards do not answer; null if nothing is missing."""


class DocumentText(_Request):
    """A text to rerank, as an object."""

    text: Text


class RerankRequest(_Request):
    """A query, and the texts to rank."""

    query: Text
    documents: Annotated[list[Text | DocumentText], Field(min_length=1, fail_fast=True)]
    model: Annotated[str, Field(max_length=200)] | None = None
    """Reranker ID, or its first digits; by default the reranker that the service has."""
    top_n: Annotated[int, Field(ge=1)] | None = None
    """Number of results to return; by default all."""
    return_documents: bool = False
    """Whether to return the texts, too."""


class RankedText(_Answer):
    """The score of one text; `index` is its position in the request."""

    index: int
    relevance_score: float
    document: dict[str, str] | None = None


class RerankResponse(_Answer):
    """Texts by descending relevance."""

    model: str
    results: list[RankedText]


class ModelCard(_Answer):
    """A name that can be given as `model`."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "isospace"
    space_id: str
    snapshot: int
    dimension: int
    max_tokens: int
    representations: list[str]
    roles_differ: bool
    """Whether `input_type` is required."""
    modes: list[str]
    """Modes that can search this snapshot."""
    fields: dict[str, str]
    """Metadata fields that a filter can use, and their types."""
    reranker: str | None = None
    """Reranker ID, if searches can be reranked."""


class ModelList(_Answer):
    """All models."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
