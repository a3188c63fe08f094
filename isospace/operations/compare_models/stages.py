"""The stages of a model comparison."""

from __future__ import annotations

from isospace.evaluation.reports.artifacts import artifact_key
from isospace.evaluation.reports.page import write_page
from isospace.operations.compare_models.compare import (
    ComparisonConfig,
    Entry,
    comparison_set,
    measure_variant,
)
from isospace.operations.compare_models.page import ARTIFACT_COLUMNS, comparison_markdown, comparison_page
from isospace.operations.compare_models.ranking import FailedVariant, ModelComparison, rank
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.executor import Reporter, Stage
from isospace.pipeline.resources import driver_engine
from isospace.storage.openable import report_address
from isospace.storage.run_id import new_run_id
from isospace.storage.store import open_store


def measure(reporter: Reporter, config: ComparisonConfig, names: tuple[str, str], variant: PipelineConfig) -> Entry:
    """Measure one variant, or read its cached figures."""
    store, spec = open_store(config.runtime.store), config.contest
    entry, is_new = measure_variant(
        store, names, variant, comparison_set(config), spec.search, engine=driver_engine(variant)
    )
    source = "measured now" if is_new else "measured by an earlier run"
    reporter.info(f"{names[0]} with {names[1]}: nDCG@10 {entry.ndcg_10:.4f}, {entry.bytes:,} bytes a vector ({source})")
    return entry


def conclude(
    reporter: Reporter, config: ComparisonConfig, entries: list[Entry], failed: list[FailedVariant]
) -> ModelComparison:
    """Compare every variant with the best, and write the report."""
    comparison, runtime = ModelComparison(rank(entries), tuple(failed)), config.runtime
    page = comparison_page(
        comparison, comparison_set(config), collection=runtime.collection, price=runtime.price_per_device_hour
    )
    store = open_store(runtime.store)
    path = write_page(store, f"{new_run_id()}-contest", page, collection=runtime.collection)
    reporter.show_page(
        store,
        path,
        key=artifact_key(runtime.collection, "models"),
        markdown=f"### {page.title}\n\n{comparison_markdown(comparison, ARTIFACT_COLUMNS)}",
        plots=("Variants", "Differences"),
        report_url=runtime.report_url,
    )
    reporter.info(comparison.describe())
    reporter.info(f"report: {report_address(store, path, runtime.report_url)}")
    return comparison


def _measure_label(config: ComparisonConfig, names: tuple[str, str], variant: PipelineConfig) -> str:
    return f"measure {names[0]}, {names[1]}"


def _measure_opening(config: ComparisonConfig, names: tuple[str, str], variant: PipelineConfig) -> str:
    return f"measures {names[0]} with {names[1]}: collection {variant.runtime.collection}"


def _conclude_opening(config: ComparisonConfig, entries: list[Entry], failed: list[FailedVariant]) -> str:
    return f"compares {len(entries)} variants with the best, and writes the report"


MEASURE = Stage("measure", measure, label=_measure_label, opening=_measure_opening)
CONCLUDE = Stage("write report", conclude, opening=_conclude_opening)
