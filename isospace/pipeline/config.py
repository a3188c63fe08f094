"""The configuration: `recipe` determines identity, `runtime` never does.

Two runs with equal recipes over equal documents produce the same snapshot, whatever their runtimes are.
"""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from isospace.collection.alias_entry import CANDIDATE
from isospace.collection.origins import MixedBits
from isospace.encoding.engine import DEVICE, Engine
from isospace.encoding.sparse.spec import SparseSpec
from isospace.encoding.spec import AnyEncoderSpec, EncoderSpec, EndpointSpec
from isospace.evaluation.gate.spec import GateSpec
from isospace.ingest.spec import ChunkingSpec, DocumentsSpec
from isospace.pipeline.selection import Budget, Selection
from isospace.search.spec import LexicalSpec, SearchSpec
from isospace.storage.spec import Name, SpecModel
from isospace.transform.spec import TransformSpec

_URL = re.compile(r"https?://[^\s/?#]+[^\s?#]*")


class Recipe(SpecModel):
    """Everything that determines a vector."""

    documents: DocumentsSpec = DocumentsSpec()
    """How documents are read."""
    encoder: AnyEncoderSpec
    """The model: on disk, or behind an API."""
    query_encoder: AnyEncoderSpec | None = None
    """Another model that encodes queries, of the same dimension and trained to share the space of `encoder`. If empty,
    `encoder` encodes them too, or, if it is a Router model, its route for queries. Another one makes a new space, and
    encodes no document again."""
    chunking: ChunkingSpec = ChunkingSpec()
    """How documents are chunked."""
    transform: TransformSpec = TransformSpec()
    """What is done to the raw vectors of documents and queries."""
    lexical: LexicalSpec = LexicalSpec()
    """The BM25 index; it does not affect vectors, so changing it makes no new snapshot."""
    sparse: SparseSpec | None = None
    """A sparse encoder beside the dense one, for the modes sparse and hybrid; none if empty."""
    search: SearchSpec = SearchSpec()
    """How snapshots are searched by default; it does not affect vectors."""
    gate: GateSpec = GateSpec()
    """Rules that a snapshot must pass before the alias moves; they do not affect vectors."""

    @model_serializer(mode="wrap")
    def _without_absent(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what a recipe does not have, so that its canonical JSON stays what earlier versions wrote."""
        body: dict[str, Any] = serialize(self)
        absent = {"sparse": None, "search": SearchSpec().model_dump()}
        return {name: value for name, value in body.items() if name not in absent or value != absent[name]}

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        chunking = self.chunking
        windows = self.encoder.windows if isinstance(self.encoder, EncoderSpec) else None
        if windows is not None and chunking.kind != "none":
            raise ValueError("encoder.windows needs chunking.kind=none: with other kinds, no chunk is too long")
        if chunking.allow_truncation and chunking.kind != "none":
            raise ValueError("chunking.allow_truncation=true needs chunking.kind=none: other kinds never truncate")
        return self


class WorkersSpec(SpecModel):
    """The workers that encode shards; each loads the model once."""

    kind: Literal["auto", "in_process", "processes", "ray"] = "auto"
    """`auto`: in process for one device, else one process per device. `ray`: actors on a cluster, or a local one."""
    count: int | None = Field(default=None, ge=1)
    """Number of workers; one per device if empty. Needed for ray without an address."""
    address: str | None = None
    """For ray: address of an existing cluster, such as `ray://head:10001`; if empty, a local one is started."""
    start_seconds: float = Field(default=600.0, gt=0.0)
    """Seconds that a worker may take to load the model."""
    shard_seconds: float = Field(default=1800.0, gt=0.0)
    """Seconds that a worker may take for one shard; then it counts as lost, and another one gets the shard."""

    @model_validator(mode="after")
    def _counted(self) -> WorkersSpec:
        if self.kind == "ray" and not self.address and self.count is None:
            raise ValueError("count is empty; kind ray without an address needs the number of workers")
        return self


class Runtime(SpecModel):
    """Where and how a run happens; never part of an identity."""

    store: str
    """Where everything is kept: a local folder, `s3://bucket/prefix`, `gs://bucket/prefix`, or `az://container/prefix`."""
    collection: Name
    """Name of the collection that the corpus is embedded into."""
    source: str
    """A folder, glob, or table: a local path, or a prefix of an object store as in `runtime.store`."""
    promote_to: Name | None = "production"
    """Alias to move to the new snapshot once its checks have passed; none if empty."""
    reason: str = Field(default="", max_length=100)
    """Why this run is started, for its name in Prefect's UI."""
    selection: Selection = Selection()
    """Which documents the run processes; all if empty. The others stay as they are."""
    budget: Budget = Budget()
    """What the run may spend on encoding before it stops; what is encoded is kept for the next run."""
    refit: bool = False
    """Fit a new space even if the collection has a sealed one that matches the recipe."""
    device: str = "auto"
    """Where the encoder runs: `cpu`, `cuda`, `cuda:1`, …; `auto` uses every GPU of the machine, or else the CPU."""
    backend: Literal["auto", "openvino", "torch", "onnx"] = "auto"
    """What runs the model; `auto` uses torch on a GPU, and OpenVINO on a CPU if it is installed."""
    compute: Literal["float32", "float16", "bfloat16"] = "float32"
    """For torch: the number format of the computation; refused if vectors exceed the encoder's tolerance."""
    compile: bool = False
    """For torch: whether to use torch.compile, which takes up to a minute to start."""
    mixed_bits: MixedBits = "warn"
    """What to do if a snapshot's vectors would have different bits, since they were computed by different engines,
    versions, or instruction sets: `warn`, and promise a tolerance; or `refuse`."""
    flatten: bool | None = None
    """For torch: whether to pack texts of different lengths into one unpadded batch; if empty, on a GPU if the model
    supports it."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of each worker; if empty, the workers share all CPUs. Also how many parts this machine chunks,
    transforms, and checks at the same time, and how many HTML and PDF files it parses; if empty, one for each CPU."""
    batch_tokens: int | None = Field(default=None, ge=1)
    """Tokens per batch of the encoder; if empty, it depends on the device."""
    workers: WorkersSpec = WorkersSpec()
    """The workers that encode."""
    endpoint: EndpointSpec | None = None
    """For a served encoder: where it is, and how it is called; if empty, the provider's public address."""
    shard_tokens: int = Field(default=65_536, ge=1)
    """Tokens per encoding shard: what one task encodes, and what a killed run loses. About ten seconds of work."""
    part_documents: int = Field(default=2_000, ge=1)
    """Maximum number of documents per part (one Parquet file each of documents, chunks, and vectors)."""
    part_characters: int = Field(default=8_000_000, ge=1)
    """Maximum number of characters per part."""
    retries: int = Field(default=3, ge=0)
    """How often a failed shard is retried, with increasing delays."""
    parse_seconds: float = Field(default=60.0, gt=0.0, le=86_400.0)
    """Seconds that one HTML or PDF file may take to parse before it is quarantined."""
    parse_megabytes: int = Field(default=2_048, ge=64, le=1_048_576)
    """Memory for parsing one HTML or PDF file, in addition to the parser's own; enforced on Linux only."""
    max_quarantined_share: float = Field(default=0.1, ge=0.0, le=1.0)
    """Largest share of the source's documents that may be quarantined before the run fails; an unreadable table counts
    as the documents in it."""
    max_removed_share: float = Field(default=0.5, ge=0.0, le=1.0)
    """Largest share of the collection that may vanish before the run fails: the cause may be a lost mount."""
    verify_source_hours: float = Field(default=168.0, ge=0.0)
    """Hours after which a run reads every file of the source again, and compares it with the collection. In between, it
    does not read a file whose size and time of change are those of the last run; 0 reads every file in every run."""
    price_per_device_hour: float | None = Field(default=None, ge=0.0, allow_inf_nan=False)
    """Price of one hour of the encoder's device; plans and reports then show the cost."""
    max_mean_cosine: float = Field(default=0.6, gt=0.0, le=1.0)
    """Mean cosine of different chunks above which a run warns of anisotropy."""
    serving_table_rows: int = Field(default=1_000_000, ge=0)
    """Up to this many chunks, the serving database holds a table; above, views of the segments."""
    lexical_chunks: int | None = Field(default=None, ge=0)
    """Has no effect: a BM25 index has no limit any more. Configurations of earlier versions may name it."""
    report_chunks: int = Field(default=200_000, ge=0)
    """Up to this many chunks, a run that commits writes its report as a page, for which it opens the snapshot."""
    report_url: str | None = None
    """Address of the server that `isospace reports` started for this store, such as `http://reports.example:8090`, for
    links to reports. If empty, that in `$ISOSPACE_REPORT_URL`; without either, artifacts say where the file is."""
    memory_mb: int = Field(default=512, ge=64)
    """Memory in MB for the joins of the plan, which spill to disk what exceeds it; and for the parts that are chunked,
    transformed, or checked at the same time, in addition to the processes themselves. A part of 8,000,000 characters
    takes about 160 to chunk, so that 512 suffices for three. Also bounds the HTML and PDF files that are parsed at a
    time: one for every 64 MB."""

    @field_validator("device")
    @classmethod
    def _known_device(cls, device: str) -> str:
        if not DEVICE.fullmatch(device):
            raise ValueError("expected auto, cpu, cuda, or cuda:N")
        return device

    @model_validator(mode="after")
    def _linked(self) -> Runtime:
        if self.report_url and not _URL.fullmatch(self.report_url):
            raise ValueError(
                f"report_url {self.report_url!r}: expected the address of a report server, such as "
                "http://reports.example:8090"
            )
        return self

    @model_validator(mode="after")
    def _addressed(self) -> Runtime:
        if self.workers.address and self.workers.kind != "ray":
            raise ValueError(f"workers.address {self.workers.address!r} needs workers.kind=ray")
        return self

    @model_validator(mode="after")
    def _named(self) -> Runtime:
        if (self.promote_to or "").isdecimal():
            raise ValueError(
                f"promote_to {self.promote_to!r} is a number, and numbers name snapshots; use another name"
            )
        return self


class PipelineConfig(SpecModel):
    """A pipeline: how a corpus is embedded (`recipe`), and where this run happens (`runtime`)."""

    recipe: Recipe
    """What determines a vector: equal recipes over equal documents produce the same snapshot."""
    runtime: Runtime
    """Where and how this run happens: source, store, device, sizes; it changes no vector."""

    @model_validator(mode="after")
    def _priced(self) -> PipelineConfig:
        runtime, served = self.runtime, self.recipe.encoder.kind == "served"
        token_price = runtime.endpoint.token_price[0] if runtime.endpoint else None
        if runtime.budget.money is not None and (token_price if served else runtime.price_per_device_hour) is None:
            named = "runtime.endpoint.price_per_million_tokens" if served else "runtime.price_per_device_hour"
            raise ValueError(f"runtime.budget.money = {runtime.budget.money:g}: the price is unknown; set {named}")
        queries = self.recipe.query_encoder
        if runtime.endpoint is not None and not served and (queries is None or queries.kind != "served"):
            raise ValueError("runtime.endpoint is for an encoder behind an API; set recipe.encoder.kind=served")
        return self

    @model_validator(mode="after")
    def _batched(self) -> PipelineConfig:
        encoder, endpoint = self.recipe.encoder, self.runtime.endpoint
        if endpoint is None or endpoint.batches is None:
            return self
        protocol = encoder.protocol if encoder.kind == "served" else None
        if protocol != "openai":
            found = f"recipe.encoder.protocol={protocol}" if protocol else f"recipe.encoder.kind={encoder.kind}"
            raise ValueError(
                f"runtime.endpoint.batch is for recipe.encoder.protocol=openai, and here {found}; leave it out, or set "
                "runtime.endpoint.batch.enabled=false"
            )
        if self.runtime.budget.minutes is not None:
            raise ValueError(
                f"runtime.budget.minutes = {self.runtime.budget.minutes:g}: batches are submitted at once, and waiting "
                "costs nothing; set budget.tokens or budget.money, or runtime.endpoint.batch.max_wait_hours"
            )
        return self

    @model_validator(mode="after")
    def _addressed(self) -> PipelineConfig:
        encoder, queries, endpoint = self.recipe.encoder, self.recipe.query_encoder, self.runtime.endpoint
        if isinstance(encoder, EncoderSpec) or queries is None or isinstance(queries, EncoderSpec) or endpoint is None:
            return self
        set_here = [name for name in ("url", "key_env", "key_file", "key_header", "query") if getattr(endpoint, name)]
        # One provider would receive the key of the other, and texts that are not for it.
        if set_here and encoder.protocol != queries.protocol:
            raise ValueError(
                f"runtime.endpoint.{set_here[0]} is for one provider, and recipe.encoder ({encoder.protocol}) and "
                f"recipe.query_encoder ({queries.protocol}) have two; leave it empty, so that each has its public "
                "address and its own key in the environment"
            )
        return self

    @model_validator(mode="after")
    def _judged(self) -> PipelineConfig:
        if self.recipe.gate.rules and self.runtime.promote_to == CANDIDATE:
            raise ValueError(
                f"runtime.promote_to {CANDIDATE!r} is the alias of the snapshot that the gate judges; use another alias"
            )
        return self


def engine_of(runtime: Runtime, *, trust_remote_code: bool = False) -> Engine:
    """Return the engine that a configuration asks for."""
    return Engine(
        backend=runtime.backend,
        device=runtime.device,
        compute=runtime.compute,
        compile=runtime.compile,
        flatten=runtime.flatten,
        threads=runtime.threads,
        batch_tokens=runtime.batch_tokens,
        trust_remote_code=trust_remote_code,
        endpoint=runtime.endpoint,
    )
