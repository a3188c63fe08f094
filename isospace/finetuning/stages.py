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
from isospace.errors import ConfigError, EncoderError, NotFoundError, install_command
from isospace.evaluation.languages import language_shares, uncovered
from isospace.evaluation.norms import sample_rows
from isospace.evaluation.query_sets import EvaluationSet, read_set
from isospace.evaluation.reports.page import write_page
from isospace.finetuning.benchmark import Measured, bench_of_files, bench_of_view, compare_encoders
from isospace.finetuning.config import FineTuneConfig, GeneratedPairs
from isospace.finetuning.decontaminate import Split, split_examples
from isospace.finetuning.examples import Example
from isospace.finetuning.hard_negatives import Mined, mine_negatives
from isospace.finetuning.lineage import Lineage, register_encoder, require_trainable, tuned_spec
from isospace.finetuning.pairs import collect_pairs, passages_of
from isospace.finetuning.report import FineTuneReport, finetune_markdown, finetune_page, judge
from isospace.finetuning.synthetic_pairs import generate_pairs, open_generator
from isospace.finetuning.tokenizer_fertility import Tokenization, report_tokenization
from isospace.finetuning.training import Job, Trained, train
from isospace.finetuning.workdir import begun, begun_path, note_begun
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.executor import Reporter, Retry, Stage
from isospace.pipeline.plan_report import PlanReport, plan_only
from isospace.pipeline.resources import driver_engine, encoder_of
from isospace.search.index import Index, open_index
from isospace.search.reranker import open_reranker
from isospace.storage.run_id import new_run_id
from isospace.storage.store import open_store

_LANGUAGE_SAMPLE, _UNCOVERED_SHARE = 2_000, 0.01


@dataclass(frozen=True, slots=True)
class Base:
    """What a fine-tuning starts from.

    Attributes
    ----------
    index
        The collection in production, opened with the base encoder; the same snapshot for all tasks.
    encoder
        The base.
    folder
        Its model on disk.
    given
        The evaluation set.
    """

    index: Index
    encoder: SentenceEncoder
    folder: Path
    given: EvaluationSet


def open_base(reporter: Reporter, config: FineTuneConfig) -> Base:
    """Open the collection, and refuse what cannot be trained before anything is spent."""
    store, runtime, spec = open_store(config.runtime.store), config.runtime, config.recipe.encoder
    encoder = encoder_of(config)
    given = read_set(store, runtime.collection, config.finetune.evaluation)
    manifest = resolve(store, runtime.collection, runtime.promote_to or "production")
    if manifest.encoder_id != encoder.record.encoder_id:
        raise ConfigError(
            f"recipe.encoder is {encoder.record.encoder_id[:16]}…, and collection {runtime.collection!r} is embedded "
            f"with {manifest.encoder_id[:16]}…: expected the same, so that the result is compared with what is in use. "
            "Embed the collection with the base first, or name its encoder."
        )
    index = open_index(store, runtime.collection, str(_snapshot(reporter, config, manifest)), encoder=encoder)
    folder = locate_model(spec, store)
    from isospace.encoding.graphs.pooled_model import own_poolings

    loaded = load_model(folder, trust_remote_code=spec.trust_remote_code)
    require_trainable(spec, encoder.record, own_poolings(list(loaded.model)))
    bench_of_view(index.view, given, most=100, seed=0)
    if config.finetune.outside is not None:
        bench_of_files(config.finetune.outside)
    reporter.info(f"base {encoder.record.encoder_id[:16]}, snapshot {index.manifest.sequence}")
    return Base(index, encoder, folder, given)


def measure_tokenizer(reporter: Reporter, base: Base) -> Tokenization:
    """Measure the tokenizer's fertility: the words that it over-segments, and searches by them."""
    view, record = base.index.view, base.encoder.record
    shares = language_shares(view, sample_rows(view, _LANGUAGE_SAMPLE, seed=0).tolist())
    for code, share in uncovered(shares, card_languages(base.folder), _UNCOVERED_SHARE).items():
        reporter.warning(
            f"{share:.1%} of the chunks are in {code!r}, which the card of the model {record.encoder_id[:16]} does not name"
        )
    tokenization = report_tokenization(view, base.encoder)
    worst = ", ".join(one.word for one in tokenization.worst[:8])
    reporter.info(f"{tokenization.pieces_a_word:.2f} tokens per word; most over-segmented: {worst or 'none'}")
    return tokenization


def collect_all(reporter: Reporter, config: FineTuneConfig, base: Base) -> list[Example]:
    """Make pairs from every source."""
    found: list[Example] = []
    seed = config.finetune.training.seed
    for spec in config.finetune.pairs:
        if isinstance(spec, GeneratedPairs):
            made, dropped = generate_pairs(base.index.view, spec, open_generator(spec), seed=seed)
            reporter.info(f"generated: left out {dropped}")
        else:
            made = collect_pairs(base.index.view, spec, seed=seed)
        reporter.info(f"{spec.kind}: {len(made)} pairs")
        found += made
    return found


def split_pairs(reporter: Reporter, config: FineTuneConfig, base: Base, examples: Sequence[Example]) -> Split:
    """Keep apart what is trained on, what training is stopped by, and what is measured."""
    relevant = base.given.relevant
    evaluated: dict[str, str] = {}
    for passage in passages_of(base.index.view):
        if passage.doc_id in relevant:
            evaluated[passage.doc_id] = f"{evaluated.get(passage.doc_id, '')} {passage.text}".strip()
    training = config.finetune.training
    found = split_examples(
        examples,
        evaluated=evaluated,
        queries=base.given.queries.values(),
        share=training.held_out_share,
        seed=training.seed,
    )
    reporter.info(
        f"{len(found.training)} pairs to train on, {len(found.held_out)} held out; left out: {found.leakage.as_dict()}"
    )
    return found


def mine_hard_negatives(reporter: Reporter, config: FineTuneConfig, base: Base, split: Split) -> Mined:
    """Find hard negatives."""
    spec = config.finetune.negatives
    note_begun(config, base.index.manifest.sequence, base.index.manifest.snapshot_id)
    if spec.count == 0:
        plain = tuple(replace(example, negatives=()) for example in split.training)
        return Mined(plain, 0, {}, "none")
    relevant = base.given.relevant
    excluded = relevant | {example.doc_id for example in split.held_out}
    reranker = open_reranker(spec.reranker) if spec.reranker else None
    found = mine_negatives(base.index.view, split.training, spec, excluded=excluded, reranker=reranker)
    reporter.info(
        f"{len(found.examples)} pairs with {spec.count} negatives each, {found.short} without; candidates left out: "
        f"{found.refused}"
    )
    return found


def train_encoder(reporter: Reporter, config: FineTuneConfig, base: Base, split: Split, mined: Mined) -> Trained:
    """Train in a separate process; after a kill, training continues from its last checkpoint."""
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
    reporter.info(f"training {job.key[:16]}")
    reporter.progress(TRAIN.name, 0.0, 1.0, "starting")

    def on_event(event: Mapping[str, Any]) -> None:
        if "ndcg" in event:
            line = f"step {event['step']} of {event['steps']}: held-out nDCG@10 {event['ndcg']:.4f}"
            reporter.info(line)
            reporter.progress(TRAIN.name, event["step"], event["steps"], line)

    trained = train(job, tell=on_event)
    reporter.progress(TRAIN.name, 1.0, 1.0, f"weights of step {trained.best_step}")
    return trained


def register(
    reporter: Reporter, config: FineTuneConfig, base: Base, split: Split, mined: Mined, trained: Trained
) -> Lineage:
    """Bring the result into the store, with its lineage."""
    spec, manifest = config.finetune, base.index.manifest
    told = {
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
        open_store(config.runtime.store), config.recipe.encoder, trained, told, driver_engine(config)
    )
    reporter.info(f"encoder {lineage.encoder_id}")
    return lineage


def compare(
    reporter: Reporter, config: FineTuneConfig, base: Base, lineage: Lineage
) -> tuple[Measured, Measured | None]:
    """Measure base and result on the evaluation set, and on another domain."""
    store, spec = open_store(config.runtime.store), config.finetune
    is_base = lineage.encoder_id == lineage.base
    after = base.encoder if is_base else open_encoder(store, lineage.encoder_id, driver_engine(config))
    inside = bench_of_view(base.index.view, base.given, most=spec.evaluated_chunks, seed=spec.training.seed)
    outside = bench_of_files(spec.outside) if spec.outside else None
    return (
        compare_encoders(inside, base.encoder, after),
        compare_encoders(outside, base.encoder, after) if outside else None,
    )


def plan_candidate(reporter: Reporter, config: FineTuneConfig, lineage: Lineage) -> PlanReport | None:
    """Tell what embedding the collection with the result would cost."""
    return None if lineage.encoder_id == lineage.base else plan_only(candidate_of(config, lineage))


def conclude(
    reporter: Reporter,
    config: FineTuneConfig,
    lineage: Lineage,
    measured: tuple[Measured, Measured | None],
    tokenization: Tokenization,
    planned: PlanReport | None,
) -> FineTuneReport:
    """Say whether it paid, and write the report."""
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
    path = write_page(store, f"{new_run_id()}-finetune", finetune_page(report, tokenization))
    report = replace(report, report=path)
    plots = ("Before and after", "Query by query")
    reporter.show_page(store, path, key="finetune", markdown=finetune_markdown(report), plots=plots)
    reporter.info(sentence)
    return report


def candidate_of(config: FineTuneConfig, lineage: Lineage) -> PipelineConfig:
    """Return the pipeline that embeds the collection with the result."""
    encoder = tuned_spec(config.recipe.encoder, lineage.encoder_id)
    reason = f"fine-tuning {config.finetune.name}"
    return PipelineConfig(
        recipe=config.recipe.model_copy(update={"encoder": encoder}),
        runtime=config.runtime.model_copy(update={"reason": reason}),
    )


def _snapshot(reporter: Reporter, config: FineTuneConfig, current: Manifest) -> int:
    """Return the current snapshot, or that of a run that was cut off: other pairs would train from the beginning."""
    earlier = begun(config)
    if earlier is None or earlier.snapshot_id == current.snapshot_id:
        return current.sequence
    try:
        found = read_manifest(open_store(config.runtime.store), config.runtime.collection, earlier.snapshot)
    except NotFoundError:
        return current.sequence
    if (found.snapshot_id, found.encoder_id) != (earlier.snapshot_id, current.encoder_id):
        return current.sequence
    reporter.warning(
        f"continues with snapshot {found.sequence}, from which an interrupted run took its pairs, instead of "
        f"{current.sequence}, which is current. To start over, remove {begun_path(config)}"
    )
    return found.sequence


def _has_gpu() -> bool:
    try:
        import torch
    except ModuleNotFoundError as error:
        raise EncoderError(f"fine-tuning needs torch. Run: {install_command('finetune')}") from error
    return torch.cuda.is_available()


def _is_worth_one_more(error: BaseException) -> bool:
    return True


OPEN_BASE = Stage("open base", open_base)
MEASURE_TOKENIZER = Stage("measure tokenizer", measure_tokenizer)
COLLECT = Stage("collect pairs", collect_all)
SPLIT = Stage("split pairs", split_pairs)
MINE = Stage("mine negatives", mine_hard_negatives)
# A training that died continues from its checkpoint.
TRAIN = Stage("train", train_encoder, Retry(1, (0.0,), _is_worth_one_more))
REGISTER = Stage("register encoder", register)
COMPARE = Stage("compare encoders", compare)
PLAN_CANDIDATE = Stage("plan candidate", plan_candidate)
CONCLUDE = Stage("conclude", conclude)
