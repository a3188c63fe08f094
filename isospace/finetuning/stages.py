"""The stages of a fine-tuning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from isospace.collection.alias import resolve
from isospace.collection.snapshot import Manifest, read_manifest
from isospace.encoding.encoder import SentenceEncoder
from isospace.encoding.loading import open_encoder
from isospace.encoding.registry.model_card import card_languages
from isospace.encoding.registry.model_loading import load_model, locate_model
from isospace.encoding.registry.router import query_spec
from isospace.errors import ConfigError, EncoderError, NotFoundError, install_command
from isospace.evaluation.languages import language_shares, uncovered
from isospace.evaluation.norms import sample_rows
from isospace.evaluation.query_sets import EvaluationSet, read_set
from isospace.evaluation.reports.artifacts import artifact_key
from isospace.evaluation.reports.page import write_page
from isospace.finetuning import openings
from isospace.finetuning.benchmark import EncoderComparison, benchmark_from_files, benchmark_from_view, compare_encoders
from isospace.finetuning.config import FineTuneConfig, GeneratedPairs
from isospace.finetuning.decontaminate import Split, split_examples
from isospace.finetuning.examples import Example
from isospace.finetuning.hard_negatives import MinedNegatives, mine_negatives
from isospace.finetuning.lineage import Lineage, register_encoder, require_on_disk, require_trainable, tuned_spec
from isospace.finetuning.pairs import collect_pairs, passages_of
from isospace.finetuning.report import FineTuneReport, finetune_markdown, finetune_page, judge
from isospace.finetuning.synthetic_pairs import generate_pairs, open_generator
from isospace.finetuning.tokenizer_fertility import Tokenization, report_tokenization
from isospace.finetuning.training import Job, TrainingResult, train
from isospace.finetuning.workdir import note_unfinished, read_unfinished, unfinished_path
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.executor import Reporter, Retry, Stage
from isospace.pipeline.plan_report import PlanReport, plan_only
from isospace.pipeline.resources import driver_engine, encoder_of
from isospace.search.index import Index
from isospace.search.open_index import open_index
from isospace.search.reranker import open_reranker
from isospace.storage.hashing import shortened_id
from isospace.storage.run_id import new_run_id
from isospace.storage.store import open_store

_LANGUAGE_SAMPLE, _UNCOVERED_SHARE = 2_000, 0.01


@dataclass(frozen=True, slots=True)
class Base:
    """What a fine-tuning starts from.

    Attributes
    ----------
    index
        The collection, opened with the base encoder; all stages use the same snapshot.
    encoder
        The base encoder.
    folder
        Its model on disk.
    query_set
        The evaluation set.
    """

    index: Index
    encoder: SentenceEncoder
    folder: Path
    query_set: EvaluationSet


def open_base(reporter: Reporter, config: FineTuneConfig) -> Base:
    """Open the collection, and reject what cannot be trained before any expensive step."""
    store, runtime, spec = open_store(config.runtime.store), config.runtime, require_on_disk(config.recipe.encoder)
    if query_spec(spec, config.recipe.query_encoder, store) is not None:
        raise ConfigError(
            "recipe.query_encoder: fine-tuning trains one encoder for documents and queries, and this recipe has one "
            "for each. Fine-tune the encoder of a recipe that has no query_encoder and no Router model."
        )
    encoder = encoder_of(config)
    assert isinstance(encoder, SentenceEncoder)
    # First, since it names the collections that there are if this one is misspelled.
    manifest = resolve(store, runtime.collection, runtime.promote_to or "production")
    query_set = read_set(store, runtime.collection, config.finetune.evaluation)
    if manifest.query_encoder_id is not None:
        raise ConfigError(
            f"collection {runtime.collection!r} has an encoder of its own for queries, "
            f"{manifest.query_encoder_id[:16]}…, and fine-tuning trains one encoder for both roles. Embed the "
            "collection without recipe.query_encoder first."
        )
    if manifest.encoder_id != encoder.record.encoder_id:
        raise ConfigError(
            f"recipe.encoder is {encoder.record.encoder_id[:16]}…, and collection {runtime.collection!r} is embedded "
            f"with {manifest.encoder_id[:16]}…; expected the same encoder, so that the result is compared with the one "
            "in use. Embed the collection with the base first, or set recipe.encoder to the collection's encoder."
        )
    index = open_index(store, runtime.collection, str(_snapshot(reporter, config, manifest)), encoder=encoder)
    folder = locate_model(spec, store)
    from isospace.encoding.graphs.pooled_model import own_poolings

    loaded = load_model(folder, trust_remote_code=spec.trust_remote_code)
    require_trainable(spec, encoder.record, own_poolings(list(loaded.model)))
    benchmark_from_view(index.view, query_set, most=100, seed=0)
    if config.finetune.outside is not None:
        benchmark_from_files(config.finetune.outside)
    reporter.info(
        f"opened snapshot {index.manifest.sequence} with the base encoder {shortened_id(encoder.record.encoder_id)}: "
        f"{index.manifest.chunks:,} chunks, {len(query_set.queries):,} queries in set {query_set.name}"
    )
    return Base(index, encoder, folder, query_set)


def measure_tokenizer(reporter: Reporter, base: Base) -> Tokenization:
    """Measure the tokenizer's fertility, and how well the words that it over-segments can be searched."""
    view, record = base.index.view, base.encoder.record
    shares = language_shares(view, sample_rows(view, _LANGUAGE_SAMPLE, seed=0).tolist())
    for code, share in uncovered(shares, card_languages(base.folder), _UNCOVERED_SHARE).items():
        reporter.warning(
            f"{share:.1%} of the chunks are in {code!r}, a language that the model card of {record.encoder_id[:16]} "
            "does not list"
        )
    tokenization = report_tokenization(view, base.encoder)
    worst = ", ".join(one.word for one in tokenization.worst[:8])
    reporter.info(f"measured {tokenization.pieces_a_word:.2f} tokens per word; most over-segmented: {worst or 'none'}")
    return tokenization


def collect_all(reporter: Reporter, config: FineTuneConfig, base: Base) -> list[Example]:
    """Collect pairs from every source."""
    examples: list[Example] = []
    seed = config.finetune.training.seed
    for spec in config.finetune.pairs:
        if isinstance(spec, GeneratedPairs):
            pairs, dropped = generate_pairs(base.index.view, spec, open_generator(spec), seed=seed)
            reporter.info(f"generated pairs; left out: {_listed(dropped)}")
        else:
            pairs = collect_pairs(base.index.view, spec, seed=seed)
        reporter.info(f"{spec.kind}: {len(pairs):,} pairs")
        examples += pairs
    reporter.info(f"collected {len(examples):,} pairs")
    return examples


def split_pairs(reporter: Reporter, config: FineTuneConfig, base: Base, examples: Sequence[Example]) -> Split:
    """Separate the training pairs, the held-out pairs, and the evaluation data."""
    relevant = base.query_set.relevant
    evaluated: dict[str, str] = {}
    for passage in passages_of(base.index.view):
        if passage.doc_id in relevant:
            evaluated[passage.doc_id] = f"{evaluated.get(passage.doc_id, '')} {passage.text}".strip()
    training = config.finetune.training
    split = split_examples(
        examples,
        evaluated=evaluated,
        queries=base.query_set.queries.values(),
        share=training.held_out_share,
        seed=training.seed,
    )
    reporter.info(
        f"split: {len(split.training):,} pairs for training, {len(split.held_out):,} held out; left out: "
        f"{_listed(split.leakage.as_dict())}"
    )
    return split


def mine_hard_negatives(reporter: Reporter, config: FineTuneConfig, base: Base, split: Split) -> MinedNegatives:
    """Find hard negatives for the training pairs."""
    spec = config.finetune.negatives
    note_unfinished(config, base.index.manifest.sequence, base.index.manifest.snapshot_id)
    if spec.count == 0:
        plain = tuple(replace(example, negatives=()) for example in split.training)
        reporter.info(f"no hard negatives: finetune.negatives.count is 0; {len(plain):,} pairs go without")
        return MinedNegatives(plain, 0, {}, "none")
    relevant = base.query_set.relevant
    excluded = relevant | {example.doc_id for example in split.held_out}
    reranker = open_reranker(spec.reranker) if spec.reranker else None
    mined = mine_negatives(base.index.view, split.training, spec, excluded=excluded, reranker=reranker)
    reporter.info(
        f"mined: {len(mined.examples):,} pairs with {spec.count} negatives each, {mined.short:,} with too few; "
        f"rejected candidates: {_listed(mined.refused)}"
    )
    return mined


def train_encoder(
    reporter: Reporter, config: FineTuneConfig, base: Base, split: Split, mined: MinedNegatives
) -> TrainingResult:
    """Train in a separate process; a training that was killed continues from its last checkpoint."""
    spec = config.finetune
    held_out = {example.positive for example in split.held_out}
    others = [e.positive for e in mined.examples if e.positive not in held_out]
    device = driver_engine(config).device
    job = Job(
        base.folder,
        base.encoder.record,
        mined.examples,
        split.held_out,
        others[: max(0, spec.training.held_out_texts - len(held_out))],
        spec.loss,
        spec.training,
        "cpu" if device == "auto" and not _has_gpu() else "cuda" if device == "auto" else device,
    )
    reporter.info(f"training {shortened_id(job.key)} on {job.device}: {len(mined.examples):,} pairs")
    reporter.progress(TRAIN.name, 0.0, 1.0, "starting")

    def on_event(event: Mapping[str, Any]) -> None:
        if "ndcg" in event:
            line = f"step {event['step']} of {event['steps']}: held-out nDCG@10 {event['ndcg']:.4f}"
            reporter.info(line)
            reporter.progress(TRAIN.name, event["step"], event["steps"], line)

    trained = train(job, on_event=on_event)
    reporter.progress(TRAIN.name, 1.0, 1.0, f"weights of step {trained.best_step}")
    reporter.info(f"trained: keeps the weights of step {trained.best_step}")
    return trained


def register(
    reporter: Reporter, config: FineTuneConfig, base: Base, split: Split, mined: MinedNegatives, trained: TrainingResult
) -> Lineage:
    """Register the result in the store, with its lineage."""
    spec, manifest = config.finetune, base.index.manifest
    details = {
        "base": base.encoder.record.encoder_id,
        "name": spec.name,
        "snapshot_id": manifest.snapshot_id,
        "collection": manifest.collection,
        "pairs": dict(Counter(e.origin for e in mined.examples)),
        "held_out": len(split.held_out),
        "left_out": {**split.leakage.as_dict(), "without_negatives": mined.short},
        "negatives": {**spec.negatives.model_dump(mode="json", exclude={"reranker"}), "key": mined.key},
        "loss": spec.loss.model_dump(mode="json"),
        "training": spec.training.model_dump(mode="json"),
    }
    lineage = register_encoder(
        open_store(config.runtime.store),
        require_on_disk(config.recipe.encoder),
        trained,
        details,
        driver_engine(config),
    )
    reporter.info(f"registered encoder {shortened_id(lineage.encoder_id)} as {spec.name}")
    return lineage


def compare(
    reporter: Reporter, config: FineTuneConfig, base: Base, lineage: Lineage
) -> tuple[EncoderComparison, EncoderComparison | None]:
    """Compare base and result on the evaluation set and, if configured, on another domain."""
    store, spec = open_store(config.runtime.store), config.finetune
    is_base = lineage.encoder_id == lineage.base
    after = base.encoder if is_base else open_encoder(store, lineage.encoder_id, driver_engine(config))
    inside = benchmark_from_view(base.index.view, base.query_set, most=spec.evaluated_chunks, seed=spec.training.seed)
    outside = benchmark_from_files(spec.outside) if spec.outside else None
    measured = compare_encoders(inside, base.encoder, after)
    elsewhere = compare_encoders(outside, base.encoder, after) if outside else None
    reporter.info(f"compared both encoders on {len(base.query_set.queries):,} queries")
    return measured, elsewhere


def plan_candidate(reporter: Reporter, config: FineTuneConfig, lineage: Lineage) -> PlanReport | None:
    """Estimate the cost of embedding the collection with the result."""
    if lineage.encoder_id == lineage.base:
        reporter.info("nothing to plan: the best weights are those of the base")
        return None
    planned = plan_only(candidate_of(config, lineage))
    reporter.info(f"embedding the collection with the result: {planned.describe()}")
    return planned


def conclude(
    reporter: Reporter,
    config: FineTuneConfig,
    lineage: Lineage,
    measured: tuple[EncoderComparison, EncoderComparison | None],
    tokenization: Tokenization,
    planned: PlanReport | None,
) -> FineTuneReport:
    """Decide whether the fine-tuning paid off, and write the report."""
    inside, outside = measured
    paid, sentence = judge(inside, outside, is_base=lineage.encoder_id == lineage.base)
    report = FineTuneReport(
        config.runtime.collection,
        config.finetune.name,
        lineage.encoder_id,
        lineage.base,
        paid,
        sentence,
        inside,
        outside,
        lineage,
        planned,
    )
    store = open_store(config.runtime.store)
    page = finetune_page(report, tokenization)
    path = write_page(store, f"{new_run_id()}-finetune", page, collection=config.runtime.collection)
    report = replace(report, report=path)
    plots = ("Before and after", "Query by query")
    reporter.show_page(
        store,
        path,
        key=artifact_key(config.runtime.collection, "finetune"),
        markdown=finetune_markdown(report),
        plots=plots,
        report_url=config.runtime.report_url,
    )
    reporter.info(sentence)
    return report


def candidate_of(config: FineTuneConfig, lineage: Lineage) -> PipelineConfig:
    """Return the configuration of the pipeline that embeds the collection with the result."""
    encoder = tuned_spec(require_on_disk(config.recipe.encoder), lineage.encoder_id)
    reason = f"fine-tuning {config.finetune.name}"
    return PipelineConfig(
        recipe=config.recipe.model_copy(update={"encoder": encoder}),
        runtime=config.runtime.model_copy(update={"reason": reason}),
    )


def _snapshot(reporter: Reporter, config: FineTuneConfig, current: Manifest) -> int:
    """Return the number of the current snapshot, or of the one that an interrupted run used.

    With another snapshot the pairs would differ, and training would start over.
    """
    earlier = read_unfinished(config)
    if earlier is None or earlier.snapshot_id == current.snapshot_id:
        return current.sequence
    try:
        manifest = read_manifest(open_store(config.runtime.store), config.runtime.collection, earlier.snapshot)
    except NotFoundError:
        return current.sequence
    if (manifest.snapshot_id, manifest.encoder_id) != (earlier.snapshot_id, current.encoder_id):
        return current.sequence
    reporter.warning(
        f"continues with snapshot {manifest.sequence}, from which an interrupted run took its pairs, instead of the "
        f"current snapshot {current.sequence}. To start over, delete {unfinished_path(config)}"
    )
    return manifest.sequence


def _listed(counts: Mapping[str, int]) -> str:
    """Return counts by name in words, such as: 12 duplicate, 3 empty."""
    return ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items() if count) or "none"


def _has_gpu() -> bool:
    try:
        import torch
    except ModuleNotFoundError as error:
        raise EncoderError(f"fine-tuning needs torch. Run: {install_command('finetune')}") from error
    return torch.cuda.is_available()


def _always(error: BaseException) -> bool:
    return True


OPEN_BASE = Stage("open base", open_base, opening=openings.open_base)
MEASURE_TOKENIZER = Stage("measure tokenizer", measure_tokenizer, opening=openings.measure_tokenizer)
COLLECT = Stage("collect pairs", collect_all, opening=openings.collect)
SPLIT = Stage("split pairs", split_pairs, opening=openings.split)
MINE = Stage("mine negatives", mine_hard_negatives, opening=openings.mine)
# The second attempt continues from the last checkpoint.
TRAIN = Stage("train", train_encoder, Retry(1, (0.0,), _always), opening=openings.train)
REGISTER = Stage("register encoder", register, opening=openings.register)
COMPARE = Stage("compare encoders", compare, opening=openings.compare)
PLAN_CANDIDATE = Stage("plan candidate", plan_candidate, opening=openings.plan_candidate)
CONCLUDE = Stage("write report", conclude, opening=openings.conclude)
