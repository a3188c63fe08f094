"""The configuration: `recipe` bears identity, `runtime` never does.

Two runs with equal recipes over equal documents give the same snapshot, whatever their runtimes are.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from isospace.encoding.engine import Engine
from isospace.encoding.spec import EncoderSpec
from isospace.evaluation.gate.spec import CANDIDATE, GateSpec
from isospace.ingest.spec import ChunkingSpec, DocumentsSpec
from isospace.pipeline.selection import Budget, Selection
from isospace.search.spec import LexicalSpec
from isospace.storage.spec import Name, SpecModel
from isospace.transform.spec import TransformSpec


class Recipe(SpecModel):
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


class WorkersSpec(SpecModel):
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


class Runtime(SpecModel):
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
    """For torch: whether texts of any length share a call, unpadded, one behind the other; if empty, on a GPU where
    they can."""
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


class PipelineConfig(SpecModel):
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


def engine_of(runtime: Runtime, *, trust_remote_code: bool = False) -> Engine:
    """Return what a configuration says about the engine."""
    return Engine(
        backend=runtime.backend,
        device=runtime.device,
        compute=runtime.compute,
        compile=runtime.compile,
        flatten=runtime.flatten,
        threads=runtime.threads,
        batch_tokens=runtime.batch_tokens,
        trust_remote_code=trust_remote_code,
    )
