"""The `isospace` command. Exit status: 0 done, 1 failed, 2 wrong usage or configuration."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from isospace.alias import alias_history, aliases, promote, resolve, rollback
from isospace.config import load_config
from isospace.errors import ConfigError, IsospaceError, NotFoundError
from isospace.layout import checked_name
from isospace.snapshot import Manifest, read_manifest, sequences
from isospace.store import Store, open_store

app = typer.Typer(
    name="isospace",
    help="A versioned, quantized vector index whose queries are transformed exactly as its documents were.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
# Texts of a corpus are shown as they are: square brackets are no markup.
_OUT = Console(markup=False, highlight=False)

StoreArgument = Annotated[str, typer.Argument(metavar="STORE", help="Local folder or s3://bucket/prefix.")]
CollectionArgument = Annotated[str, typer.Argument(metavar="COLLECTION", help="Name of the collection.")]
AliasOption = Annotated[str, typer.Option(help="Alias, snapshot number, or start of a snapshot_id.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
ReasonOption = Annotated[str, typer.Option(help="Why; kept in the alias's history.")]
DeviceOption = Annotated[str, typer.Option(help="Device of the encoder; auto takes a GPU where there is one.")]
BackendOption = Annotated[
    str, typer.Option(help="openvino, torch, onnx; auto takes OpenVINO on a CPU, torch on a GPU.")
]


def main() -> None:
    """Run the command; errors that isospace raises on purpose are one line on standard error."""
    try:
        app()
    except ConfigError as error:
        _fail(str(error), status=2)
    except IsospaceError as error:
        _fail(str(error), status=1)
    except ModuleNotFoundError as error:
        _fail(
            f"the package {error.name} is not installed. Install isospace[pipeline], or isospace[encode] to search.",
            status=1,
        )
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        _fail(f"{error.filename or 'input or output'}: {error.strerror or error}.", status=1)


@app.command()
def plan(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="YAML file with recipe and runtime.")],
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override one key.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a run would do and cost; run nothing, write nothing."""
    loaded = load_config(config, overrides or [])
    from isospace.planning import plan_only

    report = plan_only(loaded)
    if as_json:
        _print_json(report.as_dict())
        return
    table = Table("what", "how much", title=f"plan for {report.collection}")
    for row in report.rows():
        table.add_row(*row)
    _OUT.print(table)


@app.command()
def status(
    store: StoreArgument,
    collection: Annotated[
        str | None, typer.Argument(metavar="[COLLECTION]", help="All collections if left out.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the snapshots of collections, and which one each alias names."""
    opened = open_store(store)
    names = [collection] if collection else opened.folders("collections")
    if not names:
        raise NotFoundError(f"{store}: holds no collection. Embed one with python -m flows.embed_corpus CONFIG.")
    rows = [row for name in names for row in _status_rows(opened, name)]
    if collection and not rows:
        raise NotFoundError(
            f"collection {collection!r}: no snapshot in {store}. There: {', '.join(opened.folders('collections'))}."
        )
    if as_json:
        _print_json(rows)
        return
    for name in names:
        table = Table("#", "snapshot_id", "space", "documents", "chunks", "committed", "aliases", title=name)
        for row in (row for row in rows if row["collection"] == name):
            table.add_row(
                str(row["snapshot"]), row["snapshot_id"][:8], row["space_id"][:8], f"{row['documents']:,}",
                f"{row['chunks']:,}", row["committed_at"][5:16].replace("T", " "), ", ".join(row["aliases"]),
            )  # fmt: skip
        _OUT.print(table)


@app.command()
def show(store: StoreArgument, collection: CollectionArgument, alias: AliasOption = "production") -> None:
    """Print everything about one snapshot as JSON: recipe, space, fit, files, provenance, alias history."""
    from isospace.opening import load_space

    opened = open_store(store)
    manifest = resolve(opened, collection, alias)
    space = load_space(opened, manifest.space_id)
    body = manifest.model_dump(mode="json")
    body["space"] = {"record": space.record.model_dump(mode="json"), "provenance": space.provenance}
    body["alias_history"] = [entry.model_dump(mode="json") for entry in alias_history(opened, collection, alias)]
    _print_json(body)


@app.command()
def search(
    store: StoreArgument,
    collection: CollectionArgument,
    queries: Annotated[list[str], typer.Argument(metavar="QUERY...", help="One or more texts.")],
    k: Annotated[int, typer.Option("-k", min=1, help="Most hits a query.")] = 5,
    alias: AliasOption = "production",
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Find the chunks nearest to a text."""
    from isospace.index import open_index

    index = open_index(store, collection, alias, engine=_engine(backend, device))
    results = index.search(queries, k)
    if as_json:
        found = [
            {"query": q, "hits": [hit.as_dict() for hit in hits]} for q, hits in zip(queries, results, strict=True)
        ]
        _print_json({"space_id": index.manifest.space_id, "snapshot": index.manifest.sequence, "results": found})
        return
    for query, hits in zip(queries, results, strict=True):
        table = Table("score", "document", "title", "text", title=Text(query))
        for hit in hits:
            table.add_row(f"{hit.score:.4f}", hit.doc_id, _short(hit.title, 60), _short(hit.text, 160))
        _OUT.print(table)


@app.command()
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
    from isospace.index import open_index
    from isospace.length_bias import length_bias_of

    found = length_bias_of(open_index(store, collection, alias, engine=_engine(backend, device)), sample=sample)
    if as_json:
        _print_json([bucket.as_dict() for bucket in found])
        return
    table = Table("tokens", "texts", "norm", "finds itself", "popularity (10)", "neighbours' length", title=collection)
    for bucket in found:
        table.add_row(
            f"{bucket.shortest} to {bucket.longest}", f"{bucket.texts:,}", f"{bucket.norm:.3f}",
            f"{bucket.self_retrieval:.0%}", f"{bucket.popularity:.1f}", f"{bucket.neighbour_length:.2f}",
        )  # fmt: skip
    _OUT.print(table)


@app.command()
def frontier(
    store: StoreArgument,
    collection: CollectionArgument,
    queries: Annotated[Path, typer.Option(help="Parquet, CSV or JSON lines with query_id, text; or one query a line.")],
    judgements: Annotated[Path | None, typer.Option(help="The same with query_id, doc_id, relevance.")] = None,
    dimension: Annotated[list[int] | None, typer.Option(help="So many principal components too; repeatable.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Write the plot of bytes against nDCG@10 as PNG.")] = None,
    alias: AliasOption = "production",
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure what each representation costs in bytes and keeps of retrieval, with and without rescoring."""
    from isospace.frontier import default_representations, load_corpus, markdown, measure_frontier, plot
    from isospace.index import open_index
    from isospace.queries import read_judgements, read_queries

    asked, judged = read_queries(queries), read_judgements(judgements) if judgements else None
    opened = open_store(store)
    index = open_index(opened, collection, alias, engine=_engine(backend, device))
    corpus = load_corpus(opened, index, asked, judged)
    specs = default_representations(*corpus.vectors.shape)
    points = measure_frontier(corpus, specs, dimensions=dimension or ())
    if picture:
        picture.write_bytes(plot(points, collection))
    if as_json:
        _print_json([point.as_dict() for point in points])
        return
    _OUT.print(markdown(points))


@app.command()
def verify(
    store: StoreArgument,
    collection: CollectionArgument,
    alias: AliasOption = "production",
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
) -> None:
    """Hash every file of a snapshot again, and encode the probes of its space again."""
    from isospace.verify import verify_snapshot

    result = verify_snapshot(open_store(store), collection, alias, engine=_engine(backend, device))
    for failure in result.failures:
        typer.echo(f"damaged: {failure}", err=True)
    if result.failures:
        _fail(f"snapshot {result.snapshot}: {len(result.failures)} faults in {result.files} files.", status=1)
    typer.echo(
        f"snapshot {result.snapshot} ({result.snapshot_id[:16]}…): {result.files} files, {result.bytes:,} bytes, all as committed"
    )


@app.command(name="promote")
def promote_command(
    store: StoreArgument,
    collection: CollectionArgument,
    snapshot: Annotated[
        str, typer.Argument(metavar="SNAPSHOT", help="Alias, snapshot number, or start of a snapshot_id.")
    ],
    alias: Annotated[str, typer.Option(help="Alias that is moved.")] = "production",
    reason: ReasonOption = "",
) -> None:
    """Move an alias to a snapshot."""
    checked_name(alias, "alias")
    opened = open_store(store)
    manifest = resolve(opened, collection, snapshot)
    moved = promote(opened, collection, alias, manifest, reason=reason)
    typer.echo(
        f"{alias} {'is now' if moved else 'was already'} snapshot {manifest.sequence} ({manifest.snapshot_id[:16]}…)"
    )


@app.command(name="rollback")
def rollback_command(
    store: StoreArgument,
    collection: CollectionArgument,
    alias: Annotated[str, typer.Option(help="Alias that is moved back.")] = "production",
    reason: ReasonOption = "",
) -> None:
    """Move an alias back to the snapshot it named before."""
    entry = rollback(open_store(store), collection, alias, reason=reason)
    typer.echo(f"{alias} is now snapshot {entry.snapshot} ({entry.snapshot_id[:16]}…)")


def _engine(backend: str, device: str) -> Any:
    from isospace.engine import Engine

    known = ("auto", "openvino", "torch", "onnx")
    if backend not in known:
        raise ConfigError(f"--backend {backend}: expected one of {', '.join(known)}.")
    return Engine(backend=backend, device=device)  # type: ignore[arg-type]


def _status_rows(store: Store, collection: str) -> list[dict[str, Any]]:
    named: dict[int, list[str]] = {}
    for name, entry in aliases(store, collection).items():
        named.setdefault(entry.snapshot, []).append(name)
    manifests = [read_manifest(store, collection, number) for number in sequences(store, collection)]
    return [_status_row(manifest, named.get(manifest.sequence, [])) for manifest in manifests]


def _status_row(manifest: Manifest, names: list[str]) -> dict[str, Any]:
    return {
        "collection": manifest.collection,
        "snapshot": manifest.sequence,
        "snapshot_id": manifest.snapshot_id,
        "space_id": manifest.space_id,
        "documents": manifest.documents,
        "chunks": manifest.chunks,
        "parts": len(manifest.parts),
        "committed_at": str(manifest.provenance.get("committed_at", "")),
        "aliases": names,
    }


def _short(text: str, width: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _fail(message: str, *, status: int) -> None:
    typer.echo(f"error: {message}", err=True)
    sys.exit(status)
