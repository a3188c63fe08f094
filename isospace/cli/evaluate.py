"""The commands that measure search quality: evaluate, compare, lengths, frontier."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from isospace.cli.common import (
    AgainstOption,
    BackendOption,
    CollectionArgument,
    DeviceOption,
    JsonOption,
    SearchOption,
    SnapshotOption,
    StoreArgument,
    engine_of,
    parse_pairs,
    print_table,
    shortened,
    warn,
)
from isospace.cli.terminal import print_json, say
from isospace.errors import ConfigError, require_package

if TYPE_CHECKING:
    from isospace.evaluation.compare_report import ComparedSnapshots
    from isospace.search.options import SearchOptions

SetOption = Annotated[str, typer.Option("--set", metavar="NAME", help="Evaluation set of the collection.")]
_MOST_CHANGES = 10


def evaluate(
    store: StoreArgument,
    collection: CollectionArgument,
    name: SetOption = "default",
    metrics: Annotated[
        str, typer.Option("--metrics", "--measures", metavar="LIST", help="Metrics, separated by commas.")
    ] = "ndcg@10,recall@10,recall@100,mrr@10,map",
    search: SearchOption = None,
    snapshot: SnapshotOption = "production",
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure the search quality of a snapshot on an evaluation set, overall and by groups of queries."""
    engine, options = engine_of(backend, device), _search_options(search)
    from isospace.collection.find_snapshot import require_snapshots
    from isospace.evaluation.evaluate import evaluate_snapshot, require_judgements
    from isospace.evaluation.metrics import measure_name
    from isospace.evaluation.query_sets import read_set
    from isospace.search.open_index import open_index
    from isospace.storage.store import open_store

    names, opened = [measure_name(name) for name in metrics.split(",")], open_store(store)
    require_snapshots(opened, collection)
    query_set = read_set(opened, collection, name)
    require_judgements(query_set)
    with open_index(opened, collection, snapshot, engine=engine) as index:
        evaluation = evaluate_snapshot(index.view, query_set, names, options)
    if as_json:
        print_json(evaluation.as_dict())
        return
    print_table(
        ("group", "queries", *names),
        [
            (label, str(group.queries), *(f"{group.metrics[metric]:.4f}" for metric in names))
            for label, group in evaluation.groups.items()
        ],
        title=f"{collection}, snapshot {evaluation.run.snapshot}, set {name} ({evaluation.kind})",
    )
    if evaluation.run.absent:
        say(f"{evaluation.run.absent} relevant documents are not in this snapshot.")


def compare(
    store: StoreArgument,
    collection: CollectionArgument,
    against: AgainstOption,
    snapshot: SnapshotOption = "production",
    name: SetOption = "default",
    search: SearchOption = None,
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Compare two snapshots on an evaluation set, say which is better, and write a report."""
    engine, options = engine_of(backend, device), _search_options(search)
    from isospace.collection.find_snapshot import require_snapshots
    from isospace.evaluation.compare_report import report_comparison
    from isospace.evaluation.query_sets import read_set
    from isospace.search.open_index import open_index
    from isospace.storage.openable import report_address
    from isospace.storage.store import open_store

    opened = open_store(store)
    require_snapshots(opened, collection)
    query_set = read_set(opened, collection, name)
    with (
        open_index(opened, collection, against, engine=engine) as old,
        open_index(opened, collection, snapshot, engine=engine) as new,
    ):
        compared = report_comparison(opened, old.view, new.view, query_set, options)
    address = report_address(opened, compared.report) if compared.report else None
    if address is None:
        warn(f"the report could not be written: {compared.problem}")
    if as_json:
        numbers = {"before": compared.before.snapshot, "after": compared.after.snapshot, "report": address}
        print_json({**numbers, "set_id": query_set.set_id, **compared.comparison.as_dict()})
        return
    _print_comparison(compared, f"{collection}, set {name} ({query_set.kind})")
    if address:
        say(f"report: {address}")


def lengths(
    store: StoreArgument,
    collection: CollectionArgument,
    sample: Annotated[
        int, typer.Option(metavar="COUNT", min=2, help="Number of chunks to re-encode and measure.")
    ] = 1000,
    snapshot: SnapshotOption = "production",
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Show how the length of texts affects their vectors: norms, whether a text finds itself, and neighbors."""
    engine = engine_of(backend, device)
    from isospace.evaluation.length_bias import length_bias_of
    from isospace.search.open_index import open_index

    buckets = length_bias_of(open_index(store, collection, snapshot, engine=engine), sample=sample)
    if as_json:
        print_json([bucket.as_dict() for bucket in buckets])
        return
    rows = [
        (
            f"{bucket.shortest} to {bucket.longest}",
            f"{bucket.texts:,}",
            f"{bucket.norm:.3f}",
            f"{bucket.self_retrieval:.0%}",
            f"{bucket.popularity:.1f}",
            f"{bucket.neighbour_length:.2f}",
        )
        for bucket in buckets
    ]
    header = ("tokens", "texts", "norm", "finds itself", "popularity (10)", "neighbor length ratio")
    print_table(header, rows, title=collection)


def frontier(
    store: StoreArgument,
    collection: CollectionArgument,
    queries: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="Parquet, CSV, or JSON Lines with columns query_id and text, or a text file with one query per line.",
        ),
    ],
    judgements: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", exists=True, dir_okay=False, help="File with columns query_id, doc_id, relevance."
        ),
    ] = None,
    dimensions: Annotated[
        list[int] | None,
        typer.Option("--dimension", min=1, help="Also measure vectors of this many principal components. Repeatable."),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a plot of size against quality to this SVG file.")
    ] = None,
    snapshot: SnapshotOption = "production",
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure the size and search quality of each vector representation: the Pareto frontier."""
    engine = engine_of(backend, device)
    if picture:
        _require_plot(picture)
    from isospace.evaluation.pareto_frontier import default_representations, load_corpus, measure_frontier
    from isospace.evaluation.reports.frontier import frontier_plot, frontier_table
    from isospace.ingest.query_files import read_judgements, read_queries
    from isospace.search.open_index import open_index
    from isospace.storage.store import open_store

    texts, judged = read_queries(queries), read_judgements(judgements) if judgements else None
    opened = open_store(store)
    corpus = load_corpus(opened, open_index(opened, collection, snapshot, engine=engine), texts, judged)
    specs = default_representations(*corpus.vectors.shape)
    points = measure_frontier(corpus, specs, dimensions=dimensions or (), on_progress=warn)
    if picture:
        picture.write_text(frontier_plot(points, collection), encoding="utf-8")
    if as_json:
        print_json([point.as_dict() for point in points])
    else:
        say(frontier_table(points))


def _search_options(pairs: list[str] | None) -> SearchOptions:
    values = parse_pairs("--search", pairs, "mode=hybrid")
    from isospace.search.options import search_options

    return search_options(values)


def _require_plot(picture: Path) -> None:
    """Refuse a plot that cannot be written now, not after minutes of work."""
    require_package("matplotlib", "--picture")
    if picture.suffix != ".svg":
        raise ConfigError(f"--picture {picture}: the plot is an SVG. Give a file name that ends in .svg.")
    if not picture.absolute().parent.is_dir():
        raise ConfigError(f"--picture {picture}: there is no folder {picture.parent}. Create it first.")


def _print_comparison(compared: ComparedSnapshots, title: str) -> None:
    from isospace.evaluation.comparison_page import verdict

    comparison, sides = compared.comparison, compared.sides
    if comparison.measures:
        rows = [sides.metric_row(name, one) for name, one in comparison.measures.items()]
        print_table(sides.metric_head(), rows, title=title)
    say(f"top-10 overlap {comparison.overlap:.4f}, rank-biased overlap {comparison.rbo:.4f}")
    if comparison.changes:
        changed = comparison.changes[:_MOST_CHANGES]
        rows = [sides.change_row(replace(change, text=shortened(change.text, 60))) for change in changed]
        print_table(sides.change_head(), rows, title="Queries that changed most")
    say(verdict(comparison, sides))
