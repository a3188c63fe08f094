"""The configuration: `recipe` bears identity, `runtime` never does.

Two runs with equal recipes over equal documents give the same snapshot, whatever their runtimes are.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from isospace.encoding.pooling import Pooling
from isospace.encoding.precision import Precision
from isospace.errors import ConfigError
from isospace.evaluation.gate.rules import parse_rule
from isospace.pipeline.selection import Budget, Selection
from isospace.transform.spec import TransformSpec

STEMMERS = (
    "arabic", "armenian", "basque", "catalan", "czech", "danish", "dutch", "english", "esperanto", "estonian", "finnish",
    "french", "german", "greek", "hindi", "hungarian", "indonesian", "irish", "italian", "lithuanian", "nepali", "norwegian",
    "persian", "polish", "porter", "portuguese", "romanian", "russian", "serbian", "sesotho", "spanish", "swedish", "tamil",
    "turkish", "yiddish",
)  # fmt: skip
STOPWORDS = (
    "danish", "dutch", "english", "french", "german", "italian", "norwegian", "portuguese", "russian", "spanish", "swedish",
    "turkish",
)  # fmt: skip
# Alias of the snapshot that a gate judges.
CANDIDATE = "candidate"
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True)


class DocumentsSpec(_Model):
    """How documents are read out of the source."""

    format: Literal["auto", "files", "jsonl", "csv", "parquet"] = "auto"
    """`files` reads one document a file; the others one document a row. `auto` decides by the source's suffix."""
    include: tuple[str, ...] = ("*.md", "*.markdown", "*.html", "*.htm", "*.txt", "*.rst", "*.pdf")
    """For files: names that are read, as shell patterns matched against the file's name."""
    html: Literal["main", "all"] = "main"
    """`main` strips navigation and other boilerplate from HTML, `all` keeps every text."""
    id_column: str = "doc_id"
    """For tables: the column that names a document."""
    text_columns: tuple[str, ...] = Field(default=("text",), min_length=1)
    """For tables: the columns whose texts, joined by a blank line, are the document."""
    title_column: str | None = None
    """For tables: the column with the title."""
    metadata_columns: tuple[str, ...] = ()
    """For tables: columns kept with the document as metadata."""


class PromptsSpec(_Model):
    """What is put before a text, by role."""

    document: str = ""
    """Put before every chunk."""
    query: str = ""
    """Put before every query."""


class WindowsSpec(_Model):
    """Overlapping windows over the tokens of a text that is longer than the encoder takes."""

    size: int | None = Field(default=None, ge=8)
    """Tokens in a window, with prompt and special tokens; the encoder's limit if empty."""
    stride: int = Field(default=128, ge=1)
    """Tokens from the start of one window to the start of the next."""
    pooling: Literal["max", "mean"] = "mean"
    """How the vectors of a text's windows become one: `max` keeps peaks, `mean` weighs all windows alike."""


class EncoderSpec(_Model):
    """The model that turns text into raw vectors."""

    model: str
    """A local folder, `package:NAME` for a model in an installed package, `encoder:ID` for one that is in the store, such as a
    fine-tuned one, or a hub name with `revision`."""
    revision: str | None = None
    """For a hub name: the full commit hash, 40 hexadecimal digits."""
    max_tokens: int | None = Field(default=None, ge=8)
    """Longest input including prompt and special tokens; the model's own limit if empty."""
    prompts: PromptsSpec | None = None
    """Prompts by role; the model's own ones if empty."""
    preset: str = "auto"
    """Entry of `configs/models.yaml` that the model is checked against; `auto` goes by its name, `none` checks nothing."""
    pooling: Pooling | None = None
    """How token vectors become one; the model's own way if empty."""
    precision: Precision = "float32"
    """What the network computes in. The others change vectors beyond the tolerance of float32: another encoder."""
    calibration: str | None = None
    """For int8: a text file, one text a line, that the ranges are calibrated on, once."""
    windows: WindowsSpec | None = None
    """For texts longer than `max_tokens`, with `chunking.kind: none`; without it they are refused or cut."""
    trust_remote_code: bool = False
    """Whether code that comes with a hub model may run."""

    @model_validator(mode="after")
    def _calibrated(self) -> EncoderSpec:
        if (self.precision == "int8") != (self.calibration is not None):
            raise ValueError("precision=int8 and calibration belong together: set both or neither")
        return self


class ChunkingSpec(_Model):
    """How documents are cut into chunks."""

    kind: Literal["structure", "none"] = "structure"
    """`structure` packs headings, paragraphs and sentences up to `max_tokens`; `none` makes one chunk of a document."""
    max_tokens: int | None = Field(default=None, ge=8)
    """Longest chunk including title, prompt and special tokens; the encoder's limit if empty."""
    overlap_tokens: int = Field(default=32, ge=0)
    """About how many tokens a chunk repeats of the one before it, in whole sentences or words."""
    include_title: bool = True
    """Whether `title + " "` is put before every chunk's text when it is encoded."""
    allow_truncation: bool = False
    """Whether the encoder may cut a text that is too long. Only `kind: none` can need it."""


class LexicalSpec(_Model):
    """The BM25 index that is built beside the vectors, for lexical and hybrid search."""

    kind: Literal["bm25", "none"] = "bm25"
    """`none` builds no index."""
    k1: float = Field(default=1.2, ge=0.0, le=10.0)
    """How soon a word that is repeated in a text counts no more."""
    b: float = Field(default=0.75, ge=0.0, le=1.0)
    """How much a long text is held against its matches."""
    pattern: str = r"(?u)\b\w+\b"
    """What a word is, as a regular expression over the lowercased text."""
    stemmer: str | None = None
    """Snowball algorithm that words are reduced by, such as `english`; none if empty."""
    stopwords: str | None = None
    """List of words that are left out, by the name of its language, such as `english`; none if empty."""

    @model_validator(mode="after")
    def _known(self) -> LexicalSpec:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"pattern {self.pattern!r} is no regular expression ({error})") from error
        if self.stemmer is not None and self.stemmer not in STEMMERS:
            raise ValueError(f"stemmer {self.stemmer!r} is unknown; expected one of {', '.join(STEMMERS)}")
        if self.stopwords is not None and self.stopwords not in STOPWORDS:
            raise ValueError(f"stopwords {self.stopwords!r} is unknown; expected one of {', '.join(STOPWORDS)}")
        return self


class GateSpec(_Model):
    """What a new snapshot has to hold before it takes the alias."""

    rules: tuple[str, ...] = ()
    """Such as `ndcg@10 not worse than production by more than 0.01 at p < 0.05`; without any, nothing is gated."""
    set: Name = "default"
    """Evaluation set of the collection whose queries are asked."""
    queries: str | None = None
    """File or folder of queries that is frozen as the set's next version where it differs from the current one."""
    judgements: str | None = None
    """File with query_id, doc_id, relevance for these queries."""
    search: dict[str, Any] = {}
    """Search options that the queries are answered with, such as `mode: hybrid`."""

    @model_validator(mode="after")
    def _readable(self) -> GateSpec:
        for rule in self.rules:
            try:
                parse_rule(rule)
            except ConfigError as error:
                raise ValueError(str(error).rstrip(".")) from error
        if self.judgements and not self.queries:
            raise ValueError("gate.judgements needs gate.queries: ids of queries mean nothing without their texts")
        return self


class Recipe(_Model):
    """Everything that decides what a vector is."""

    documents: DocumentsSpec = DocumentsSpec()
    """How documents are read."""
    encoder: EncoderSpec
    """The model."""
    chunking: ChunkingSpec = ChunkingSpec()
    """How documents are cut."""
    transform: TransformSpec = TransformSpec()
    """What happens to raw vectors, of documents and of queries alike."""
    lexical: LexicalSpec = LexicalSpec()
    """The BM25 index beside the vectors; no part of any vector, so that a change of it makes no new snapshot."""
    gate: GateSpec = GateSpec()
    """What a snapshot has to hold before the alias moves; no part of any vector either."""

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        chunking = self.chunking
        if self.encoder.windows is not None and chunking.kind != "none":
            raise ValueError("encoder.windows needs chunking.kind=none: other kinds make no chunk that is too long")
        if chunking.allow_truncation and chunking.kind != "none":
            raise ValueError("chunking.allow_truncation=true needs chunking.kind=none: other kinds never truncate")
        return self


class WorkersSpec(_Model):
    """The workers that shards are handed to; each loads the model once."""

    kind: Literal["auto", "in_process", "processes", "ray"] = "auto"
    """`auto`: in process for one device, one process a device for several. `ray`: actors on a cluster, or a local one."""
    count: int | None = Field(default=None, ge=1)
    """How many; one a device if empty."""
    address: str | None = None
    """For ray: address of an existing cluster, such as `ray://head:10001`; a local one is started if empty."""
    start_seconds: float = Field(default=600.0, gt=0.0)
    """How long a worker may take to load the model."""
    shard_seconds: float = Field(default=1800.0, gt=0.0)
    """How long a worker may take over one shard before it counts as lost, and the shard goes to another."""


class Runtime(_Model):
    """Where and how a run happens; never part of an identity."""

    store: str
    """The object-store prefix: a local folder or `s3://bucket/prefix`."""
    collection: Name
    """Name of the corpus that is kept embedded."""
    source: str
    """A folder, glob or table: a local path or `s3://bucket/prefix`."""
    promote_to: Name | None = "production"
    """Alias that is moved to the new snapshot once its checks have passed; none if empty."""
    reason: str = Field(default="", max_length=100)
    """Why this run is made, for its name in Prefect's UI."""
    selection: Selection = Selection()
    """Which documents the run looks at; all if empty. The others stay as they are."""
    budget: Budget = Budget()
    """What the run may spend on encoding before it stops and keeps what it has."""
    refit: bool = False
    """Fit a new space on the documents of this run, although the collection has a sealed one."""
    device: str = "auto"
    """Where the encoder runs: `cpu`, `cuda`, `cuda:1`, …; `auto` takes every GPU of the machine, else the CPU."""
    backend: Literal["auto", "openvino", "torch", "onnx"] = "auto"
    """What runs the model's graph; `auto` takes torch on a GPU, and OpenVINO on a CPU where it is installed."""
    compute: Literal["float32", "float16", "bfloat16"] = "float32"
    """For torch: what the network computes in, refused where vectors leave the encoder's tolerance."""
    compile: bool = False
    """For torch: whether torch.compile is used; it takes up to a minute to start."""
    flatten: bool | None = None
    """For torch: whether texts of any length share a call, unpadded, one behind the other; if empty, on a GPU where they can."""
    threads: int | None = Field(default=None, ge=1)
    """Processors that one worker uses; all if empty, shared among the workers."""
    batch_tokens: int | None = Field(default=None, ge=1)
    """Tokens in one call of the encoder; found on the device if empty."""
    workers: WorkersSpec = WorkersSpec()
    """Who encodes."""
    shard_tokens: int = Field(default=65_536, ge=1)
    """Tokens in one shard: what one task encodes, and what a killed run loses. About ten seconds of work."""
    part_documents: int = Field(default=2_000, ge=1)
    """Most documents in one part (one Parquet file of documents, of chunks, and of vectors)."""
    part_characters: int = Field(default=8_000_000, ge=1)
    """Most characters of text in one part."""
    retries: int = Field(default=3, ge=0)
    """How often a failed shard is tried again, with growing pauses."""
    parse_seconds: float = Field(default=60.0, gt=0.0, le=86_400.0)
    """How long one HTML or PDF file may take to parse before it is set aside."""
    parse_megabytes: int = Field(default=2_048, ge=64, le=1_048_576)
    """Memory for parsing one HTML or PDF file, beyond what the parser needs itself; held to on Linux."""
    max_quarantined_share: float = Field(default=0.1, ge=0.0, le=1.0)
    """Largest share of the source that may be set aside as unreadable before the run fails."""
    max_removed_share: float = Field(default=0.5, ge=0.0, le=1.0)
    """Largest share of the collection that may vanish in one run before it fails: a lost mount is no deletion."""
    price_per_device_hour: float | None = Field(default=None, ge=0.0, allow_inf_nan=False)
    """Money for one hour of the encoder's device; `plan` then tells the cost."""
    max_mean_cosine: float = Field(default=0.6, gt=0.0, le=1.0)
    """Mean off-diagonal cosine above which a run warns of anisotropy."""
    serving_table_rows: int = Field(default=1_000_000, ge=0)
    """Up to this many chunks the serving database holds a table; above, views over the segments."""
    lexical_chunks: int = Field(default=1_000_000, ge=0)
    """Up to this many chunks a lexical index is built; it is made in memory, some 30 bytes for each word of each chunk."""
    report_chunks: int = Field(default=200_000, ge=0)
    """Up to this many chunks a run that commits draws its report as a page; it opens the snapshot for that."""
    memory_mb: int = Field(default=512, ge=64)
    """Memory for the joins of the plan; what exceeds it is spilled to disk."""

    @model_validator(mode="after")
    def _addressed(self) -> Runtime:
        if self.workers.address and self.workers.kind != "ray":
            raise ValueError(f"workers.address {self.workers.address!r} is for workers.kind=ray")
        return self

    @model_validator(mode="after")
    def _named(self) -> Runtime:
        if (self.promote_to or "").isdecimal():
            raise ValueError(
                f"promote_to {self.promote_to!r} is a number, which names a snapshot; give the alias a name"
            )
        return self


class PipelineConfig(_Model):
    """A pipeline: what is embedded how (`recipe`), and where this run happens (`runtime`)."""

    recipe: Recipe
    """What a vector is: equal recipes over equal documents give the same snapshot."""
    runtime: Runtime
    """Where and how this run happens: source, store, device, sizes; changes no vector."""

    @model_validator(mode="after")
    def _judged(self) -> PipelineConfig:
        if self.recipe.gate.rules and self.runtime.promote_to == CANDIDATE:
            raise ValueError(f"runtime.promote_to {CANDIDATE!r} is the alias of what the gate judges; name another")
        return self
