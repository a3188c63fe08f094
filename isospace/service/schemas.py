"""Bodies of requests and answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from isospace.search.vector.scoring import Metric

_Token = Annotated[int, Field(ge=0, lt=2**31)]


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("a text is blank; expected one with something to read")
    return text


Text = Annotated[str, Field(min_length=1, pattern=r"\S"), AfterValidator(_not_blank)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class _Answer(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class EmbeddingRequest(_Request):
    """What OpenAI's clients send to be embedded, and the role of the texts."""

    input: (
        Text
        | Annotated[list[Text], Field(min_length=1)]
        | Annotated[list[_Token], Field(min_length=1)]
        | Annotated[list[Annotated[list[_Token], Field(min_length=1)]], Field(min_length=1)]
    )
    """A text, texts, or token ids: of the space's own tokenizer, whole, special tokens and the role's prompt among them."""
    model: Annotated[str, Field(min_length=1, max_length=200)]
    """Name of the collection, or the space_id or the start of it (8 digits or more)."""
    dimensions: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """The first so many of the space's dimensions, at unit length; for spaces that put the most into the first ones."""
    encoding_format: Literal["float", "base64"] = "float"
    """`base64` holds little-endian float32."""
    user: Annotated[str, Field(max_length=1000)] | None = None
    """Ignored."""
    input_type: Literal["query", "document"] | None = None
    """Role of the texts. May be left out where the space treats both alike."""


class Embedding(_Answer):
    """One vector."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Usage(_Answer):
    """Tokens, prompts and special tokens included."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingResponse(_Answer):
    """Vectors in the order of the input."""

    object: Literal["list"] = "list"
    model: str
    data: list[Embedding]
    usage: Usage
    space_id: str


class SearchRequest(_Request):
    """Queries, and how they are searched."""

    query: Text | Annotated[list[Text], Field(min_length=1)]
    """One text or several."""
    k: Annotated[int, Field(ge=1, le=1000)] = 10
    """Most hits a query."""
    mode: Literal["auto", "exact", "quantized", "tiered", "lexical", "hybrid"] = "auto"
    """How: see the guide to searching."""
    representation: Annotated[str, Field(max_length=60)] | None = None
    """Which stored representation is searched first."""
    rescore: Annotated[int, Field(ge=0, le=1000)] = 4
    """How many times k are scored again from the finest representation."""
    metric: Metric = "cosine"
    """What nearness is."""
    filter: Annotated[str, Field(max_length=2000)] | None = None
    """Expression over the documents' metadata, such as `lang == "en" and year >= 2020`."""
    fusion: Literal["rrf", "weighted"] = "rrf"
    """For hybrid: by ranks or by scores."""
    weights: Annotated[list[Annotated[float, Field(ge=0, le=1000)]], Field(min_length=2, max_length=2)] = [1.0, 1.0]
    """For hybrid: of vectors and of words."""
    depth: Annotated[int, Field(ge=1, le=1000)] = 100
    """For hybrid and rerank: how many of each list are looked at."""
    rerank: bool = False
    """Whether the cross-encoder of the service orders the best again."""

    def options(self) -> dict[str, Any]:
        """Return what `SearchOptions` takes."""
        given = self.model_dump(exclude={"query"})
        return {**given, "weights": tuple(self.weights)}


class FoundChunk(_Answer):
    """One chunk found."""

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
    highlights: list[tuple[int, int]]
    """Spans of `text` that hold words of the query, in characters."""


class QueryResult(_Answer):
    """What one query found."""

    query: str
    hits: list[FoundChunk]


class SearchResponse(_Answer):
    """What was found, and where."""

    space_id: str
    snapshot: int
    snapshot_id: str
    results: list[QueryResult]
    milliseconds: dict[str, float]
    """By stage."""


class DocumentText(_Request):
    """A text to rerank, as an object."""

    text: Text


class RerankRequest(_Request):
    """A query, and the texts to put in order."""

    query: Text
    documents: Annotated[list[Text | DocumentText], Field(min_length=1)]
    model: Annotated[str, Field(max_length=200)] | None = None
    """reranker_id, or the start of it; whichever the service has if empty."""
    top_n: Annotated[int, Field(ge=1)] | None = None
    """So many of the best; all if empty."""
    return_documents: bool = False
    """Whether the texts are returned too."""


class RankedText(_Answer):
    """One text and its place in the request."""

    index: int
    relevance_score: float
    document: dict[str, str] | None = None


class RerankResponse(_Answer):
    """Texts by falling relevance."""

    model: str
    results: list[RankedText]


class ModelCard(_Answer):
    """What can be asked for as `model`."""

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
    """Whether `input_type` has to be given."""


class ModelList(_Answer):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
