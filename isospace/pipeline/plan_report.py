"""The report on a plan: what a run would do, and what it would cost."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from isospace.collection.disk_usage import size_text
from isospace.encoding.encoder import token_counter
from isospace.encoding.engine import engine_for, resolve_engine
from isospace.encoding.registry.record import EncoderRecord
from isospace.encoding.registry.register import identify_encoder
from isospace.encoding.registry.router import query_spec
from isospace.encoding.role_encoders import naming_query_encoder
from isospace.encoding.served.counting import BUDGET
from isospace.encoding.spec import EndpointSpec
from isospace.encoding.throughput import measured_rate
from isospace.errors import require_package
from isospace.evaluation.reports.page import duration
from isospace.pipeline.chunk import ChunkPart, write_chunks
from isospace.pipeline.config import PipelineConfig, engine_of
from isospace.pipeline.counted import counted, money_text
from isospace.pipeline.encode.batches.records import read_records
from isospace.pipeline.encode.mixed_bits import foreseen_mixture, planned_engine
from isospace.pipeline.encode.plan import plan_shards
from isospace.pipeline.encode.refusals import read_refusals
from isospace.pipeline.encode.shards import EncodePlan
from isospace.pipeline.encode.workers.pool import planned_place
from isospace.pipeline.fit.foresee import require_fit
from isospace.pipeline.judged_documents import JudgedDocuments, require_judged
from isospace.pipeline.plan_disk import DiskPlan, bytes_per_chunk, largest_dimension, plan_disk
from isospace.pipeline.run import Run, start_run
from isospace.pipeline.scan.diff import Scan, scan_source
from isospace.pipeline.sparse.encode import plan_sparse, sparse_record
from isospace.pipeline.unknown_tokens import add_up
from isospace.pipeline.word_coverage import add_up_words
from isospace.search.approximate.index import FROM_ROWS
from isospace.storage.store import open_store

# Longest figure in a table of Prefect's UI, which does not break lines.
_CELL = 50


@dataclass(frozen=True, slots=True)
class PlanReport:
    """The figures of a plan.

    Attributes
    ----------
    base
        Number of the snapshot that the run starts from, or None.
    space
        The ID of the sealed space that is reused, or `fit a new one`.
    added, changed, unchanged, removed, stale
        Numbers of documents; `stale` ones could not be read this time and stay as they are.
    quarantined
        Number of inputs that cannot be used.
    distinct_texts, reused_texts, texts_to_encode
        Different texts among the chunks: all, those that have a raw vector, and those that need one.
    truncated_chunks, truncated_tokens
        What the encoder will cut off, which only an explicit setting allows.
    seconds
        Estimated from the rate of the last run with this encoder and device; None before the first one.
    bytes
        Estimated size of new raw vectors and segments.
    money
        Cost of `seconds` at `runtime.price_per_device_hour`; None if either is unknown.
    engine
        Library and version that will encode; the instruction set is known once it is loaded.
    stored
        What computed the vectors that the snapshot will take from the store.
    mixed
        Why the bits of the snapshot's vectors will differ, as far as the plan can tell; empty if nothing says so.
    unknown
        Share of the new texts' tokens that the encoder's vocabulary does not cover, by language, in a sample.
    mostly_unknown, only_unknown
        Number of new texts that consist mostly, or only, of such tokens.
    judged
        How many judged documents of the gate's evaluation set are in the source; None if no rule needs judgements.
    price
        `runtime.price_per_device_hour`.
    token_price
        For a served encoder: the price of a million tokens, of batches if texts are sent that way.
    token_price_key
        The key of the configuration that sets it.
    batch_window
        For batches: within which time the provider answers; else empty.
    under_way
        Texts that earlier runs submitted in batches, and that no run has fetched; their price is not part of `money`.
    sparse_texts
        Different texts that need a sparse vector; None without `recipe.sparse`.
    disk
        Bytes on disk before and after the run, and the memory to serve its snapshot.
    lexical_warnings
        Why search by words will not work for many of the new texts, as far as a sample tells.
    without_cells
        Whether a new space leaves a collection without cells that is large enough for approximate searches.
    """

    collection: str
    base: int | None
    space: str
    added: int
    changed: int
    unchanged: int
    removed: int
    stale: int
    quarantined: int
    chunks: int
    distinct_texts: int
    reused_texts: int
    texts_to_encode: int
    shards: int
    tokens: int
    truncated_chunks: int
    truncated_tokens: int
    seconds: float | None
    bytes: int
    money: float | None
    moved: int = 0
    engine: str = ""
    stored: tuple[str, ...] = ()
    mixed: str = ""
    unknown: Mapping[str, float] = field(default_factory=dict)
    mostly_unknown: int = 0
    only_unknown: int = 0
    judged: JudgedDocuments | None = None
    price: float | None = None
    token_price: float | None = None
    token_price_key: str = "runtime.endpoint.price_per_million_tokens"
    batch_window: str = ""
    under_way: int = 0
    disk: DiskPlan | None = None
    sparse_texts: int | None = None
    lexical_warnings: tuple[str, ...] = ()
    without_cells: bool = False

    def as_dict(self) -> dict[str, object]:
        """Return the figures by name."""
        return asdict(self)

    def rows(self) -> list[tuple[str, str]]:
        """Return labels and figures with their units, without those that are zero."""
        texts, tokens = counted(self.texts_to_encode, "text"), counted(self.tokens, "token")
        encoded = f"{texts} with {tokens}, in {counted(self.shards, 'shard')}"
        space = f"{self.space[:16]}… (unchanged)" if len(self.space) == 64 else "a new one will be fitted"
        counts = {
            "documents added": self.added,
            "documents changed": self.changed,
            "documents unchanged": self.unchanged,
            "of these, moved": self.moved,
            "documents removed": self.removed,
            "documents unreadable, kept": self.stale,
            "inputs quarantined": self.quarantined,
            "chunks": self.chunks,
            "distinct texts": self.distinct_texts,
            "texts already encoded": self.reused_texts,
        }
        return [
            ("starts from", f"snapshot {self.base}" if self.base else "nothing: this is the first snapshot"),
            ("space", space),
            *((label, f"{count:,}") for label, count in counts.items() if count),
            ("to encode", encoded if self.texts_to_encode else "nothing"),
            *([("in batches under way", self._under_way())] if self.under_way else []),
            *([("to encode sparsely", counted(self.sparse_texts, "text"))] if self.sparse_texts else []),
            *([("engine", self.engine)] if self.texts_to_encode and self.engine else []),
            *([("mixed bits", self.mixed)] if self.mixed else []),
            *([("unknown tokens", self._unknown_shares())] if self.unknown else []),
            *([("texts mostly unknown", self._unknown_texts())] if self.mostly_unknown else []),
            *([("judged documents", self.judged.figure())] if self.judged else []),
            *self._costs(),
            *(self.disk.rows() if self.disk is not None else []),
        ]

    def describe(self) -> str:
        """Return the plan in one sentence, with figures."""
        counts = {"added": self.added, "changed": self.changed, "unchanged": self.unchanged, "removed": self.removed}
        documents = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count) or "none"
        costs = ", ".join(f"{label} {figure}" for label, figure in self._costs())
        encoded = f"{counted(self.texts_to_encode, 'text')} with {counted(self.tokens, 'token')} to encode"
        return f"documents {documents}; {encoded}" + (f"; {costs}" if costs else "")

    def warnings(self) -> tuple[str, ...]:
        """Return what a person should look at before the texts are encoded."""
        return (*self._unknown_warnings(), *self.lexical_warnings, *self._judged_warnings(), *self._cell_warnings())

    def _cell_warnings(self) -> tuple[str, ...]:
        if not self.without_cells:
            return ()
        return (
            f"without cells, each search scores all {self.chunks:,} chunks. Set recipe.transform.cells to auto for "
            "approximate searches, which reach the recall that you declare",
        )

    def _judged_warnings(self) -> tuple[str, ...]:
        if self.judged is None or self.judged.is_usual:
            return ()
        return (f"{self.judged.describe()}: queries that only they answer count as misses",)

    def _unknown_warnings(self) -> tuple[str, ...]:
        if not self.mostly_unknown:
            return ()
        shares = f" (unknown tokens by language: {self._unknown_shares()})" if self.unknown else ""
        return (
            f"{self.mostly_unknown:,} texts consist mostly of tokens that are unknown to the encoder's tokenizer, "
            f"{self.only_unknown:,} of nothing else{shares}: these have the same vector, whatever they say, and any "
            "query of unknown tokens matches them all. Use an encoder that was trained for their language, or leave "
            "them out",
        )

    def _unknown_shares(self) -> str:
        return ", ".join(f"{code} {_percent(share)}" for code, share in self.unknown.items())

    def _unknown_texts(self) -> str:
        return f"{self.mostly_unknown:,}, of these {self.only_unknown:,} entirely"

    def _costs(self) -> list[tuple[str, str]]:
        """Return the estimated costs of encoding and storing."""
        rows = []
        if self.truncated_chunks:
            rows.append(("truncated", f"{self.truncated_chunks:,} chunks, by {self.truncated_tokens:,} tokens in all"))
        if self.texts_to_encode:
            rows.append(("encoding time", self._time()))
        if self.bytes:
            rows.append(("new vectors", f"about {size_text(self.bytes)}"))
        if self.money:
            rows.append(("cost", f"about {money_text(self.money)}{self._assumed_price()}"))
        return rows

    def _under_way(self) -> str:
        return f"{counted(self.under_way, 'text')} of earlier runs, not part of the cost"

    def _time(self) -> str:
        if self.batch_window:
            return f"up to {self.batch_window} in batches, and again for texts whose batch expires"
        unknown = "unknown until a first run with this encoder and device"
        return unknown if self.seconds is None else f"about {duration(self.seconds)}"

    def _assumed_price(self) -> str:
        if self.token_price is not None:
            return f", in your currency, at {self.token_price:g} per million tokens ({self.token_price_key})"
        if self.price is None:
            return ""
        return f", in your currency, at {self.price:g} per device hour (runtime.price_per_device_hour)"

    def markdown(self) -> str:
        """Return the figures as Markdown: a table, and a list of those that are too long for a cell in Prefect's UI."""
        short = [f"| {label} | {figure} |" for label, figure in self.rows() if len(figure) <= _CELL]
        long = [f"- {label}: {figure}" for label, figure in self.rows() if len(figure) > _CELL]
        table = ["| | |", "| --- | --- |", *short]
        return "\n".join([f"### Plan for {self.collection}", "", *table, *(["", *long] if long else [])])


def require_device(config: PipelineConfig) -> None:
    """Refuse a device or workers that this machine cannot use, before the model is loaded or a document is read.

    Raises
    ------
    ConfigError
        If there is no such GPU, if backend, device, and precision conflict, or if Ray is wanted and not installed.
    """
    runtime, recipe = config.runtime, config.recipe
    if runtime.workers.kind == "ray":
        require_package("ray", "runtime.workers.kind ray")
        if (runtime.workers.address or "").startswith("ray://"):
            require_package("grpc", f"runtime.workers.address = {runtime.workers.address}")
    for spec in (recipe.encoder, recipe.query_encoder):
        if spec is not None and spec.kind != "served":
            with naming_query_encoder(spec is recipe.query_encoder):
                resolve_engine(engine_of(runtime), spec.precision, elsewhere=runtime.workers.kind == "ray")


def report_plan(
    run: Run,
    scan: Scan,
    parts: Sequence[ChunkPart],
    plan: EncodePlan,
    record: EncoderRecord,
    judged: JudgedDocuments | None = None,
    queries: EncoderRecord | None = None,
) -> PlanReport:
    """Collect the figures of a plan; `queries` is the encoder of queries, if it is not that of documents."""
    runtime = run.config.runtime
    place, engine, mixed = _planned(run, plan, record)
    rate = measured_rate(run.store, run.encoder_id, place)
    seconds = plan.tokens / rate if rate else (0.0 if not plan.tokens else None)
    price, token_price = runtime.price_per_device_hour, token_price_of(run.config)
    unknown = add_up(part.unknown for part in parts)
    endpoint = runtime.endpoint or EndpointSpec()
    batches = read_records(run) if endpoint.batches and plan.to_encode else []
    tokens = max(0, plan.tokens - sum(batch.tokens for batch in batches))
    return PlanReport(
        collection=run.collection,
        base=run.base_sequence,
        space=run.space_id or "fit a new one",
        added=scan.added,
        changed=scan.changed,
        unchanged=scan.unchanged,
        removed=scan.removed,
        stale=scan.stale,
        quarantined=scan.quarantined,
        chunks=plan.chunks,
        distinct_texts=plan.distinct,
        reused_texts=plan.reused,
        texts_to_encode=plan.to_encode,
        shards=len(plan.shards),
        tokens=plan.tokens,
        truncated_chunks=sum(part.too_long for part in parts),
        truncated_tokens=sum(part.cut_tokens for part in parts),
        seconds=seconds,
        bytes=_bytes(run, plan, record.dimension, largest_dimension(run, record)),
        money=_money(tokens, seconds, price, token_price),
        moved=scan.moved,
        engine=engine,
        stored=tuple(origin.describe() for origin in plan.stored),
        mixed=mixed,
        unknown=unknown.shares(),
        mostly_unknown=unknown.mostly,
        only_unknown=unknown.only,
        judged=judged,
        price=price,
        token_price=token_price,
        token_price_key=endpoint.token_price[1],
        under_way=sum(batch.texts for batch in batches),
        batch_window=endpoint.batches.completion_window if endpoint.batches else "",
        disk=plan_disk(run, scan, parts, plan, record, queries),
        sparse_texts=None if run.sparse_encoder_id is None else plan_sparse(run, parts).to_encode,
        lexical_warnings=add_up_words(part.words for part in parts).warnings(run.config.recipe.lexical),
        without_cells=_lacks_cells(run, plan),
    )


def _lacks_cells(run: Run, plan: EncodePlan) -> bool:
    spec = run.config.recipe.transform
    is_possible = spec.cells is None and spec.normalization == "l2"
    return is_possible and run.space_id is None and plan.chunks >= FROM_ROWS


def _planned(run: Run, plan: EncodePlan, record: EncoderRecord) -> tuple[str, str, str]:
    """Return the place that rates are recorded by, what will encode, and why bits will differ, if they will."""
    runtime = run.config.runtime
    if (served := record.served) is not None:
        named = f"{served.model} behind an API ({served.protocol}), {_counted_with(served.tokenizer)}"
        return f"served {served.protocol}", named, foreseen_mixture(plan.stored, None) or ""
    configured = engine_for(record, engine_of(runtime))
    engine = resolve_engine(configured, record.precision, elsewhere=runtime.workers.kind == "ray")
    place = planned_place(configured, runtime.workers, record.precision)
    return place, planned_engine(engine), foreseen_mixture(plan.stored, engine if plan.to_encode else None) or ""


def _counted_with(tokenizer: str) -> str:
    if tokenizer == BUDGET:
        return "tokens estimated at two letters each, about twice as many as there are"
    return "tokens counted with the model's tokenizer" if len(tokenizer) == 64 else f"tokens counted with {tokenizer}"


def token_price_of(config: PipelineConfig) -> float | None:
    """Return the price of a million tokens of a served encoder; None if it is unknown, or the encoder is not served."""
    endpoint = config.runtime.endpoint
    return endpoint.token_price[0] if endpoint and config.recipe.encoder.kind == "served" else None


def _money(tokens: int, seconds: float | None, price: float | None, token_price: float | None) -> float | None:
    if token_price is not None:
        return token_price * tokens / 1e6
    return None if price is None or seconds is None else price * seconds / 3600.0


def plan_only(config: PipelineConfig) -> PlanReport:
    """Plan a run without writing to its store."""
    require_device(config)
    store = open_store(config.runtime.store)
    record, tokenizer = identify_encoder(store, config.recipe.encoder, engine=engine_of(config.runtime))
    counter = token_counter(tokenizer, record)
    with tempfile.TemporaryDirectory(prefix="isospace-plan-") as scratch:
        queries, sparse = _queries(config, record), sparse_record(config, lambda step: None, dry=True)
        run = start_run(config, record, Path(scratch), queries=queries, dry=True, sparse=sparse)
        scan = scan_source(run, read_refusals(run))
        parts = [write_chunks(run, documents, counter) for documents in scan.parts]
        plan = plan_shards(run, parts, limit=record.longest, kept=scan.kept)
        require_fit(run, plan, parts, record)
        return report_plan(run, scan, parts, plan, record, require_judged(run, scan, parts), queries)


def _queries(config: PipelineConfig, document: EncoderRecord) -> EncoderRecord | None:
    """Return the identity of the encoder of queries without writing anything; None if it is that of documents."""
    store = open_store(config.runtime.store)
    spec = query_spec(config.recipe.encoder, config.recipe.query_encoder, store)
    if spec is None:
        return None
    with naming_query_encoder(config.recipe.query_encoder is not None):
        record, _ = identify_encoder(store, spec, "query", engine_of(config.runtime))
    return record if record.encoder_id != document.encoder_id else None


def _bytes(run: Run, plan: EncodePlan, dimension: int, largest: int) -> int:
    stored = bytes_per_chunk(run.config.recipe.transform, largest)
    return plan.to_encode * 4 * dimension + plan.chunks * stored


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}" if share >= 0.001 else "under 0.1%"
