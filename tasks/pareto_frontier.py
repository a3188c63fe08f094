"""The Pareto frontier of a collection as Prefect tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prefect.artifacts import create_markdown_artifact
from prefect.logging import get_run_logger

from isospace.evaluation.pareto_frontier import Point, default_representations, load_corpus, measure_frontier
from isospace.evaluation.reports.artifacts import artifact_key
from isospace.evaluation.reports.frontier import frontier_plot, frontier_table
from isospace.ingest.query_files import read_judgements, read_queries
from isospace.search.open_index import open_index
from isospace.storage.store import open_store
from tasks.errors import one_line_task
from tasks.reporter import image


@one_line_task(name="measure frontier", task_run_name="measure {alias} of {collection}")
def measure(
    store: str, collection: str, queries: str, judgements: str | None, alias: str, dimensions: Sequence[int]
) -> list[Point]:
    """Open the snapshot, encode the queries, and search every representation."""
    texts = read_queries(Path(queries))
    judged = read_judgements(Path(judgements)) if judgements else None
    opened = open_store(store)
    corpus = load_corpus(opened, open_index(opened, collection, alias), texts, judged)
    get_run_logger().info(
        "searches %d vectors for %d queries in every representation", len(corpus.vectors), len(corpus.queries)
    )
    specs = default_representations(*corpus.vectors.shape)
    return measure_frontier(corpus, specs, dimensions=dimensions, on_progress=get_run_logger().info)


@one_line_task(name="show frontier", task_run_name="show frontier")
def show(points: list[Point], collection: str) -> None:
    """Show table and plot in Prefect's UI."""
    picture = image("frontier", frontier_plot(points, collection))
    title = f"{collection}: size and quality of each representation"
    note = "Left and up is better. Percentages are relative to float32; `x4` rescores four times as many candidates."
    body = f"### {title}\n\n{note}\n\n{picture}\n\n{frontier_table(points)}"
    create_markdown_artifact(key=artifact_key(collection, "frontier"), markdown=body, description=title)
