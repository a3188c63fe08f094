"""A contest of encoders and transforms as Prefect tasks."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from isospace.evaluation.reports.page import write_page
from isospace.operations.compare_models.compare import ContestConfig, Entry, contest_set, mark_front, measure_variant
from isospace.operations.compare_models.page import contest_markdown, contest_page
from isospace.pipeline.config import PipelineConfig
from isospace.storage.run_id import new_run_id
from isospace.storage.store import open_store
from tasks.reports import show_report
from tasks.resources import driver_engine


@task(cache_policy=NO_CACHE, task_run_name="measure {names[0]}, {names[1]}")
def measure(config: ContestConfig, names: tuple[str, str], variant: PipelineConfig) -> Entry:
    """Ask the queries of one variant; what was measured before is read."""
    store, spec = open_store(config.runtime.store), config.contest
    entry, is_new = measure_variant(
        store, names, variant, contest_set(config), spec.search, engine=driver_engine(variant)
    )
    get_run_logger().info("nDCG@10 %.4f (%s)", entry.ndcg_10, "measured" if is_new else "known")
    return entry


@task(cache_policy=NO_CACHE)
def conclude(config: ContestConfig, entries: list[Entry]) -> list[Entry]:
    """Mark the front, and write the report."""
    marked = mark_front(entries)
    page = contest_page(marked, contest_set(config), collection=config.runtime.collection)
    store = open_store(config.runtime.store)
    path = write_page(store, f"{new_run_id()}-contest", page)
    body = f"### {page.title}\n\n{page.outcome}\n\n{contest_markdown(marked)}\n\nReport: `{path}`"
    show_report(store, path, key="contest", markdown=body, pictures=("Variants",))
    get_run_logger().info("report: %s", path)
    return marked
