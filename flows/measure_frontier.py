"""Measure the Pareto frontier: the size of each vector representation against its search quality.

python -m flows.measure_frontier STORE COLLECTION --queries FILE [--judgements FILE]
"""

from __future__ import annotations

from prefect import flow

from isospace.evaluation.pareto_frontier import Point
from isospace.pipeline.heartbeat import working
from tasks import pareto_frontier
from tasks.errors import concluding, quiet_known_errors
from tasks.run_names import run_name

quiet_known_errors()


def _describe(points: list[Point]) -> str:
    return f"measured {len(points)} representations; the smallest takes {min(p.bytes for p in points):,} bytes a vector"


@flow(name="measure-frontier", flow_run_name=run_name("frontier"))
@concluding(_describe)
def measure_frontier(
    store: str,
    collection: str,
    queries: str,
    judgements: str = "",
    alias: str = "production",
    dimensions: tuple[int, ...] = (),
) -> list[Point]:
    """Search every representation of a collection, and show a table and a plot.

    Args:
        store: Local folder, or s3://bucket/prefix, gs://…, az://….
        collection: Name of the collection.
        queries: File with the columns query_id and text, or a text file with one query per line, on the worker.
        judgements: File with query_id, doc_id, and relevance; if empty, agreement with float32 is measured.
        alias: Alias, snapshot number, or first digits of a snapshot ID.
        dimensions: Numbers of leading principal components to measure too.
    """
    with working("frontier"):
        points = pareto_frontier.measure(store, collection, queries, judgements or None, alias, dimensions)
    pareto_frontier.show(points, collection)
    return points


if __name__ == "__main__":
    import argparse

    from flows.command import one_line_errors, summary_of

    parser = argparse.ArgumentParser(prog="python -m flows.measure_frontier", description=summary_of(measure_frontier))
    parser.add_argument("store")
    parser.add_argument("collection")
    parser.add_argument("--queries", required=True)
    parser.add_argument("--judgements", default="")
    parser.add_argument("--snapshot", dest="alias", default="production")
    options = vars(parser.parse_args())
    with one_line_errors():
        measure_frontier(**options)
