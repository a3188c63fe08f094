"""The commands of the query side: search, serve, and what is measured on an open index."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from isospace.cli.common import (
    OUT,
    AliasOption,
    BackendOption,
    CollectionArgument,
    DeviceOption,
    JsonOption,
    StoreArgument,
    engine_of,
    print_json,
    shortened,
)
from isospace.errors import ConfigError
from isospace.storage.store import open_store


def search(
    store: StoreArgument,
    collection: CollectionArgument,
    queries: Annotated[list[str], typer.Argument(metavar="QUERY...", help="One or more texts.")],
    k: Annotated[int, typer.Option("-k", min=1, help="Most hits a query.")] = 5,
    mode: Annotated[str, typer.Option(help="auto, exact, quantized, tiered, lexical or hybrid.")] = "auto",
    where: Annotated[str | None, typer.Option("--filter", help="Such as 'lang == \"en\" and year >= 2020'.")] = None,
    reranker: Annotated[Path | None, typer.Option(help="Folder of a cross-encoder that orders the best again.")] = None,
    option: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any other search option.")
    ] = None,
    alias: AliasOption = "production",
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Find the chunks nearest to a text."""
    from isospace.search.index import open_index

    options = {"mode": mode, "filter": where, "rerank": reranker is not None, **_values(option or [])}
    opened = _reranker(reranker)
    encode = mode != "lexical"
    index = open_index(store, collection, alias, engine=engine_of(backend, device), reranker=opened, encode=encode)
    results = index.search(queries, k, **options)
    if as_json:
        found = [
            {"query": q, "hits": [hit.as_dict() for hit in hits]} for q, hits in zip(queries, results, strict=True)
        ]
        print_json({"space_id": index.manifest.space_id, "snapshot": index.manifest.sequence, "results": found})
        return
    for query, hits in zip(queries, results, strict=True):
        table = Table("score", "document", "title", "text", title=Text(query))
        if not hits:
            OUT.print(
                f"{shortened(query, 60)}: nothing found{' that shares a word with it' if mode == 'lexical' else ''}"
            )
            continue
        for hit in hits:
            table.add_row(f"{hit.score:.4f}", hit.doc_id, shortened(hit.title, 60), shortened(hit.text, 160))
        OUT.print(table)


def serve(
    store: StoreArgument,
    collection: CollectionArgument,
    host: Annotated[str, typer.Option(help="Address to listen on; any but loopback needs API keys.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    keys: Annotated[Path | None, typer.Option(help="File with one API key a line; or ISOSPACE_API_KEYS.")] = None,
    reranker: Annotated[Path | None, typer.Option(help="Folder of a cross-encoder.")] = None,
    watch: Annotated[float, typer.Option(min=0, help="Seconds between looks at the alias; 0 for none.")] = 10.0,
    canonical: Annotated[
        bool, typer.Option(help="Queries that the tokenizer reads alike share a cached vector.")
    ] = False,
    semantic: Annotated[
        float | None, typer.Option(help="Cosine from which an earlier query's hits serve again.")
    ] = None,
    requests: Annotated[int, typer.Option(min=1, help="Requests answered at once; more get 429.")] = 128,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Listen beside a service that is there, which is ended next.")
    ] = False,
    log_share: Annotated[
        float,
        typer.Option("--log", metavar="SHARE", min=0, max=1, help="Share of searches that is logged, for audits."),
    ] = 0.0,
    log_texts: Annotated[bool, typer.Option(help="Whether logged queries keep their text, or its hash alone.")] = True,
    shadow: Annotated[
        str | None, typer.Option(metavar="ALIAS", help="Snapshot that is asked what is logged, too, such as candidate.")
    ] = None,
    alias: AliasOption = "production",
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
) -> None:
    """Serve search and embeddings of a collection over HTTP; refuses to start on any mismatch."""
    from isospace.operations.audit.query_log import AnswerLog
    from isospace.search.index import open_index
    from isospace.search.query_cache import CacheConfig
    from isospace.service.app import create_app
    from isospace.service.query_logging import Watcher
    from isospace.service.server import serve as run
    from isospace.service.settings import Limits, Settings, read_keys

    if shadow is not None and not log_share:
        raise ConfigError("--shadow compares what is logged. Give --log SHARE, such as --log 0.05.")
    settings = Settings(
        host=host, port=port, keys=read_keys(keys), limits=Limits(requests=requests), take_over=take_over
    )
    index = open_index(
        store,
        collection,
        alias,
        engine=engine_of(backend, device),
        reranker=_reranker(reranker),
        cache=CacheConfig(canonical=canonical, semantic=semantic),
        watch_seconds=watch or None,
    )
    manifest = index.manifest
    typer.echo(
        f"{collection}: snapshot {manifest.sequence}, space {manifest.space_id}, {manifest.chunks:,} chunks; "
        "handshake passed"
    )
    with contextlib.ExitStack() as opened:
        opened.enter_context(index)
        watcher = None
        if log_share:
            candidate = None
            if shadow is not None:
                candidate = open_index(
                    store, collection, shadow, engine=engine_of(backend, device), watch_seconds=watch or None
                )
                opened.enter_context(candidate)
                typer.echo(
                    f"asking snapshot {candidate.manifest.sequence} ({shadow}) too, of {log_share:.1%} of the searches"
                )
            log = AnswerLog(index.store, collection)
            watcher = Watcher(index, log, share=log_share, keep_texts=log_texts, candidate=candidate)
        run(create_app(index, settings, watcher=watcher), settings, told=typer.echo)


def export(
    store: StoreArgument,
    collection: CollectionArgument,
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET", help="faiss:FOLDER, lancedb:FOLDER#TABLE, qdrant:URL#COLLECTION or postgresql://…#TABLE."
        ),
    ],
    replace: Annotated[bool, typer.Option("--replace", help="Replace an export that is there.")] = False,
    alias: AliasOption = "production",
    as_json: JsonOption = False,
) -> None:
    """Write a snapshot's vectors and texts into another system, with its space_id."""
    from isospace.operations.export.export import export_snapshot
    from isospace.search.index import open_index

    # Stored vectors are written: no text is embedded.
    done = export_snapshot(open_index(store, collection, alias, encode=False), target, replace=replace)
    if as_json:
        print_json(asdict(done))
        return
    typer.echo(f"{done.rows:,} chunks of snapshot {done.snapshot_id[:16]}… in {done.target}; space {done.space_id}")


def lengths(
    store: StoreArgument,
    collection: CollectionArgument,
    sample: Annotated[int, typer.Option(min=2, help="Chunks to measure; they are encoded.")] = 1000,
    alias: AliasOption = "production",
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Show what a text's length does to its vector: norm, self-retrieval, neighbours."""
    from isospace.evaluation.length_bias import length_bias_of
    from isospace.search.index import open_index

    found = length_bias_of(open_index(store, collection, alias, engine=engine_of(backend, device)), sample=sample)
    if as_json:
        print_json([bucket.as_dict() for bucket in found])
        return
    table = Table("tokens", "texts", "norm", "finds itself", "popularity (10)", "neighbours' length", title=collection)
    for bucket in found:
        table.add_row(
            f"{bucket.shortest} to {bucket.longest}",
            f"{bucket.texts:,}",
            f"{bucket.norm:.3f}",
            f"{bucket.self_retrieval:.0%}",
            f"{bucket.popularity:.1f}",
            f"{bucket.neighbour_length:.2f}",
        )
    OUT.print(table)


def frontier(
    store: StoreArgument,
    collection: CollectionArgument,
    queries: Annotated[Path, typer.Option(help="Parquet, CSV or JSON lines with query_id, text; or one query a line.")],
    judgements: Annotated[Path | None, typer.Option(help="The same with query_id, doc_id, relevance.")] = None,
    dimension: Annotated[list[int] | None, typer.Option(help="So many principal components too; repeatable.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Write the plot of bytes against nDCG@10 as SVG.")] = None,
    alias: AliasOption = "production",
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure what each representation costs in bytes and keeps of retrieval, with and without rescoring."""
    from isospace.evaluation.pareto_frontier import default_representations, load_corpus, measure_frontier
    from isospace.evaluation.reports.frontier import frontier_plot, frontier_table
    from isospace.ingest.query_files import read_judgements, read_queries
    from isospace.search.index import open_index

    if picture and picture.suffix != ".svg":
        raise ConfigError(f"--picture {picture}: the plot is written as SVG. Give a file name that ends in .svg.")
    asked, judged = read_queries(queries), read_judgements(judgements) if judgements else None
    opened = open_store(store)
    index = open_index(opened, collection, alias, engine=engine_of(backend, device))
    corpus = load_corpus(opened, index, asked, judged)
    specs = default_representations(*corpus.vectors.shape)
    points = measure_frontier(corpus, specs, dimensions=dimension or ())
    if picture:
        picture.write_text(frontier_plot(points, collection), encoding="utf-8")
    if as_json:
        print_json([point.as_dict() for point in points])
        return
    OUT.print(frontier_table(points))


def _values(settings: list[str]) -> dict[str, Any]:
    """Read KEY=VALUE pairs, values as YAML."""
    import yaml

    found = {}
    for setting in settings:
        key, separator, text = setting.partition("=")
        if not separator:
            raise ConfigError(f"--set {setting}: expected KEY=VALUE, such as rescore=10.")
        found[key] = yaml.safe_load(text)
    return found


def _reranker(folder: Path | None) -> Any:
    if folder is None:
        return None
    from isospace.search.reranker import open_reranker

    return open_reranker(folder)
