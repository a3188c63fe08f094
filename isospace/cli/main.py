"""The `isospace` command. Exit status: 0 done, 1 failed, 2 wrong usage or configuration."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from rich.table import Table

from isospace.cli.audit import answers, audit
from isospace.cli.common import (
    OUT,
    AliasOption,
    BackendOption,
    CollectionArgument,
    DeviceOption,
    JsonOption,
    ReasonOption,
    StoreArgument,
    engine_of,
    fail,
    print_json,
    whole,
)
from isospace.cli.encoders import encoders
from isospace.cli.evaluate import compare, evaluate, gate, sets, verdicts
from isospace.cli.init import init
from isospace.cli.maintenance import compact, forget, vacuum
from isospace.cli.models import compare_models, finetune
from isospace.cli.run import backfill, refit, run
from isospace.cli.search import export, frontier, lengths, search, serve
from isospace.collection.alias import alias_history, aliases, resolve, rollback
from isospace.collection.snapshot import Manifest, read_manifest, sequences
from isospace.errors import ConfigError, IsospaceError, NotFoundError
from isospace.evaluation.gate.verdicts import promote_judged
from isospace.pipeline.config_files import load_config
from isospace.storage.paths import checked_name, list_collections
from isospace.storage.store import Store, open_store

app = typer.Typer(
    name="isospace",
    help="A versioned, quantized vector index whose queries are transformed exactly as its documents were.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command; errors that isospace raises on purpose are one line on standard error."""
    try:
        app()
    except ConfigError as error:
        fail(str(error), status=2)
    except IsospaceError as error:
        fail(str(error), status=1)
    except ModuleNotFoundError as error:
        fail(f"the package {error.name} is not installed. Install isospace[{_extra_of(error.name)}].", status=1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        fail(f"{error.filename or 'input or output'}: {error.strerror or error}.", status=1)


# What brings a package that is missing; everything else comes with the pipeline.
_EXTRAS = {
    "fastapi": "serve", "uvicorn": "serve", "prometheus_client": "serve", "starlette": "serve", "openvino": "query",
    "tokenizers": "query", "bm25s": "query", "Stemmer": "query", "faiss": "fast", "torch": "encode",
    "sentence_transformers": "encode", "matplotlib": "report", "jinja2": "report", "sklearn": "report", "scipy": "report",
}  # fmt: skip


def _extra_of(package: str | None) -> str:
    return _EXTRAS.get((package or "").partition(".")[0], "pipeline")


@app.command()
def plan(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="YAML file with recipe and runtime.")],
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override one key.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a run would do and cost; run nothing, write nothing."""
    loaded = load_config(config, overrides or [])
    from isospace.pipeline.plan_report import plan_only

    report = plan_only(loaded)
    if as_json:
        print_json(report.as_dict())
        return
    table = Table("what", "how much", title=f"plan for {report.collection}")
    for row in report.rows():
        table.add_row(*row)
    OUT.print(table)


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
    names = [collection] if collection else list_collections(opened)
    if not names:
        raise NotFoundError(f"{store}: holds no collection. Embed one with python -m flows.embed_corpus CONFIG.")
    rows = [row for name in names for row in _status_rows(opened, name)]
    if collection and not rows:
        raise NotFoundError(
            f"collection {collection!r}: no snapshot in {store}. There: {', '.join(list_collections(opened))}."
        )
    if as_json:
        print_json(rows)
        return
    for name in names:
        table = Table(
            whole("#"), whole("snapshot_id"), whole("space"), "documents", "chunks", "committed", "aliases", title=name
        )
        for row in (row for row in rows if row["collection"] == name):
            table.add_row(
                str(row["snapshot"]),
                row["snapshot_id"][:8],
                row["space_id"][:8],
                f"{row['documents']:,}",
                f"{row['chunks']:,}",
                row["committed_at"][5:16].replace("T", " "),
                ", ".join(row["aliases"]),
            )
        OUT.print(table)


@app.command()
def show(store: StoreArgument, collection: CollectionArgument, alias: AliasOption = "production") -> None:
    """Print everything about one snapshot as JSON: recipe, space, fit, files, provenance, alias history."""
    from isospace.encoding.embedder import load_space

    opened = open_store(store)
    manifest = resolve(opened, collection, alias)
    space = load_space(opened, manifest.space_id)
    body = manifest.model_dump(mode="json")
    body["space"] = {"record": space.record.model_dump(mode="json"), "provenance": space.provenance}
    body["alias_history"] = [entry.model_dump(mode="json") for entry in alias_history(opened, collection, alias)]
    print_json(body)


@app.command()
def verify(
    store: StoreArgument,
    collection: CollectionArgument,
    alias: AliasOption = "production",
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
) -> None:
    """Hash every file of a snapshot again, and encode the probes of its space again."""
    from isospace.operations.maintenance.verify import verify_snapshot

    result = verify_snapshot(open_store(store), collection, alias, engine=engine_of(backend, device))
    for failure in result.failures:
        typer.echo(f"damaged: {failure}", err=True)
    if result.failures:
        fail(f"snapshot {result.snapshot}: {len(result.failures)} faults in {result.files} files.", status=1)
    typer.echo(
        f"snapshot {result.snapshot} ({result.snapshot_id[:16]}…): {result.files} files, {result.bytes:,} bytes, all "
        "as committed"
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
    force: Annotated[
        bool, typer.Option("--force", help="Move it although the gate rejected the snapshot; needs --reason.")
    ] = False,
) -> None:
    """Move an alias to a snapshot; one that its gate rejected, or never judged, only by force."""
    checked_name(alias, "alias")
    opened = open_store(store)
    manifest = resolve(opened, collection, snapshot)
    moved = promote_judged(opened, collection, alias, manifest, reason=reason, force=force)
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


for command in (
    search,
    serve,
    export,
    lengths,
    frontier,
    evaluate,
    compare,
    gate,
    verdicts,
    audit,
    answers,
    compact,
    vacuum,
    forget,
    encoders,
):
    app.command()(command)
for new in (init, run, refit, backfill, finetune, compare_models):
    app.command()(new)
app.add_typer(sets)


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
