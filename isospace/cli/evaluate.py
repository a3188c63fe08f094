"""The commands that measure and judge: sets, evaluate, compare, gate, verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.table import Column, Table
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
    fail,
    print_json,
    shortened,
    whole,
)
from isospace.collection.alias import aliases, resolve
from isospace.errors import ConfigError, NotFoundError
from isospace.storage.run_id import new_run_id
from isospace.storage.store import open_store

SetOption = Annotated[str, typer.Option("--set", metavar="NAME", help="Evaluation set of the collection.")]
SearchOption = Annotated[
    list[str] | None,
    typer.Option("--search", metavar="KEY=VALUE", help="Search option, such as mode=hybrid; may be repeated."),
]
sets = typer.Typer(
    name="sets", help="Evaluation sets: frozen queries of a collection, versioned.", no_args_is_help=True
)


@sets.command("add")
def add_set(
    store: StoreArgument,
    collection: CollectionArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the set.")],
    queries: Annotated[Path, typer.Argument(metavar="QUERIES", help="File of queries, or a folder in BEIR's layout.")],
    judgements: Annotated[Path | None, typer.Option(help="File with query_id, doc_id, relevance.")] = None,
    split: Annotated[str, typer.Option(help="Which judgements of a BEIR folder.")] = "test",
) -> None:
    """Freeze queries, with judgements or for agreement alone."""
    from isospace.evaluation.query_set_files import load_set
    from isospace.evaluation.query_sets import freeze_set

    given = load_set(name, queries, judgements, split=split)
    _tell(freeze_set(open_store(store), collection, given, source=str(queries)))


@sets.command("make")
def make_pseudo_set(
    store: StoreArgument,
    collection: CollectionArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the set.")],
    kind: Annotated[str, typer.Option(help="What becomes a query: auto, titles or sentences.")] = "auto",
    size: Annotated[int, typer.Option(min=20, help="Most queries.")] = 300,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 0,
    alias: AliasOption = "production",
) -> None:
    """Make pseudo-queries out of the corpus, where there are no real ones; marked as such."""
    from isospace.evaluation.pseudo_query_set import make_set
    from isospace.evaluation.query_sets import freeze_set
    from isospace.search.index import open_index

    if kind not in ("auto", "titles", "sentences"):
        raise ConfigError(f"--kind {kind}: expected auto, titles or sentences.")
    with open_index(store, collection, alias, encode=False) as index:
        given = make_set(index.view, name, kind=kind, size=size, seed=seed)  # type: ignore[arg-type]
        _tell(freeze_set(index.store, collection, given, source=f"snapshot {index.manifest.sequence}"))


@sets.command("list")
def list_all(store: StoreArgument, collection: CollectionArgument, as_json: JsonOption = False) -> None:
    """Show the current version of every set."""
    from isospace.evaluation.query_sets import list_sets

    found = list_sets(open_store(store), collection)
    if as_json:
        print_json([record.model_dump(mode="json") for record in found])
        return
    table = Table(
        Column("set", overflow="fold"),
        "version",
        "kind",
        "queries",
        "judged",
        whole("set_id"),
        "source",
        title=collection,
    )
    for record in found:
        table.add_row(
            record.name,
            str(record.number),
            record.kind,
            str(record.queries),
            str(record.judged),
            record.set_id[:8],
            shortened(record.source, 50),
        )
    OUT.print(table)


def evaluate(
    store: StoreArgument,
    collection: CollectionArgument,
    name: SetOption = "default",
    measures: Annotated[str, typer.Option(help="Such as ndcg@10,recall@100,mrr@10,map,precision@5.")] = (
        "ndcg@10,recall@10,recall@100,mrr@10,map"
    ),
    search: SearchOption = None,
    alias: AliasOption = "production",
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure a snapshot on an evaluation set, in all and by groups of queries."""
    from isospace.evaluation.metrics import measure, measure_name, per_query
    from isospace.evaluation.query_sets import read_set
    from isospace.evaluation.runs import answer_set
    from isospace.evaluation.slices import slices_of
    from isospace.search.index import open_index
    from isospace.search.options import search_options

    names = [measure_name(one) for one in measures.split(",")]
    given = read_set(open_store(store), collection, name)
    if not given.judged:
        raise ConfigError(
            f"evaluation set {name!r}: has no judgements, so nothing can be measured on one snapshot. Compare two."
        )
    with open_index(store, collection, alias, engine=engine_of(backend, device)) as index:
        run = answer_set(index.view, given, search_options(_options(search)))
        figures = measure(run.documents, given.judged, names)
        values = per_query(run.documents, given.judged, names)
        groups = slices_of(given, index.view)
    rows = {"all": (len(given.judged), figures)}
    for column, parts in groups.items():
        for value, members in parts.items():
            kept = [one for one in members if one in given.judged]
            rows[f"{column} = {value}"] = (
                len(kept),
                {one: sum(values[one][query] for query in kept) / max(len(kept), 1) for one in names},
            )
    if as_json:
        body = {"snapshot": run.snapshot, "space_id": run.space_id, "set_id": run.set_id, "kind": given.kind}
        print_json(
            {
                **body,
                "absent": run.absent,
                "figures": {row: found for row, (_, found) in rows.items()},
                "queries": values,
            }
        )
        return
    table = Table("queries of", "", *names, title=f"{collection}, snapshot {run.snapshot}, set {name} ({given.kind})")
    for row, (count, found) in rows.items():
        table.add_row(row, str(count), *(f"{found[one]:.4f}" for one in names))
    OUT.print(table)
    if run.absent:
        OUT.print(f"{run.absent} relevant documents are not in this snapshot.")


def compare(
    store: StoreArgument,
    collection: CollectionArgument,
    before: Annotated[str, typer.Argument(metavar="BEFORE", help="Alias, number or start of a snapshot_id.")],
    after: Annotated[str, typer.Argument(metavar="AFTER", help="Alias, number or start of a snapshot_id.")],
    name: SetOption = "default",
    search: SearchOption = None,
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Compare two snapshots on an evaluation set: differences with their chance, agreement, the queries that changed most."""
    from isospace.evaluation.comparison import compare_runs
    from isospace.evaluation.query_sets import read_set
    from isospace.evaluation.runs import answer_set
    from isospace.evaluation.slices import slices_of
    from isospace.search.index import open_index
    from isospace.search.options import search_options

    given, options = read_set(open_store(store), collection, name), search_options(_options(search))
    engine = engine_of(backend, device)
    with (
        open_index(store, collection, before, engine=engine) as one,
        open_index(store, collection, after, engine=engine) as other,
    ):
        runs = [answer_set(index.view, given, options) for index in (one, other)]
        found = compare_runs(given, *runs, groups=slices_of(given, one.view, other.view))
    if as_json:
        print_json({"before": runs[0].snapshot, "after": runs[1].snapshot, "set_id": given.set_id, **found.as_dict()})
        return
    table = Table(
        "measure",
        f"snapshot {runs[0].snapshot}",
        f"snapshot {runs[1].snapshot}",
        "difference",
        "95 %",
        "p",
        title=f"{collection}, set {name} ({given.kind})",
    )
    for measure, one_difference in found.measures.items():
        low, high = one_difference.interval
        table.add_row(
            measure,
            f"{one_difference.before:.4f}",
            f"{one_difference.after:.4f}",
            f"{one_difference.difference:+.4f}",
            f"{low:+.4f} to {high:+.4f}",
            f"{one_difference.p:.4f}",
        )
    OUT.print(table)
    OUT.print(f"top-10 overlap {found.overlap:.4f}, rank-biased overlap {found.rbo:.4f}")
    for change in found.changes[:10]:
        figures = (
            "" if change.before is None or change.after is None else f"{change.before:.3f} to {change.after:.3f}  "
        )
        OUT.print(f"  {change.query_id}  {figures}overlap {change.overlap:.1f}  {shortened(change.text, 70)}")


def gate(
    store: StoreArgument,
    collection: CollectionArgument,
    snapshot: Annotated[str, typer.Argument(metavar="[SNAPSHOT]", help="What is judged.")] = "candidate",
    against: Annotated[str, typer.Option(help="Alias that it is compared with.")] = "production",
    rule: Annotated[
        list[str] | None, typer.Option(help="Instead of those of the snapshot's recipe; may be repeated.")
    ] = None,
    name: Annotated[str | None, typer.Option("--set", metavar="NAME", help="Instead of the recipe's set.")] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Judge although nothing has changed since the last verdict.")
    ] = False,
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Judge a snapshot by its rules against production, and keep the verdict; exit status 1 for a rejection."""
    from isospace.evaluation.gate.run_gate import gate_snapshot
    from isospace.evaluation.gate.spec import CANDIDATE, GateSpec

    opened = open_store(store)
    manifest = resolve(opened, collection, snapshot)
    known = aliases(opened, collection).keys() - {CANDIDATE}
    if against not in known and known:
        raise NotFoundError(f"--against {against}: there is no such alias; expected one of {', '.join(sorted(known))}.")
    spec = GateSpec.model_validate({**manifest.recipe.get("gate", {}), **_given(rule, name)})
    if not spec.rules:
        raise ConfigError(
            "there is no rule. Give --rule, such as --rule 'recall@100 >= 0.9', or set recipe.gate.rules."
        )
    verdict = gate_snapshot(
        opened, manifest, spec, against=against, run_id=new_run_id(), engine=engine_of(backend, device), again=again
    )
    if as_json:
        print_json(verdict.model_dump(mode="json"))
    else:
        _print_verdict(verdict)
    if not verdict.passed:
        fail(
            f"snapshot {verdict.snapshot} was rejected by {len(verdict.failed())} of {len(verdict.findings)} rules.",
            status=1,
        )


def verdicts(
    store: StoreArgument,
    collection: CollectionArgument,
    snapshot: Annotated[str, typer.Argument(metavar="[SNAPSHOT]", help="Which snapshot.")] = "candidate",
    as_json: JsonOption = False,
) -> None:
    """Show what the gate found about a snapshot."""
    from isospace.evaluation.gate.verdicts import read_verdicts

    opened = open_store(store)
    manifest = resolve(opened, collection, snapshot)
    found = read_verdicts(opened, collection, manifest.snapshot_id)
    if as_json:
        print_json([verdict.model_dump(mode="json") for verdict in found])
        return
    if not found:
        OUT.print(f"snapshot {manifest.sequence} was never judged.")
    for verdict in found:
        _print_verdict(verdict)


def _print_verdict(verdict: Any) -> None:
    against = (
        f"against snapshot {verdict.against.snapshot}" if verdict.against else "there is no production to compare with"
    )
    title = f"snapshot {verdict.snapshot} {'passed' if verdict.passed else 'was rejected'}, {against} ({verdict.at})"
    table = Table("", "rule", "expected", "found", title=Text(title))
    signs = {True: "ok", False: "NO", None: "–"}
    for one in verdict.findings:
        table.add_row(signs[one.passed], one.rule, one.expected, one.detail)
    OUT.print(table)
    for note in verdict.notes:
        OUT.print(f"Note: {note}.")
    if verdict.report:
        OUT.print(f"report: {verdict.report}")


def _given(rule: list[str] | None, name: str | None) -> dict[str, Any]:
    # A set that is named replaces the files of the recipe.
    named = {"set": name, "queries": None, "judgements": None} if name else {}
    return {**({"rules": tuple(rule)} if rule else {}), **named}


def _options(given: list[str] | None) -> dict[str, Any]:
    pairs = [one.partition("=") for one in given or []]
    if wrong := next(
        (one for one, (key, sign, _) in zip(given or [], pairs, strict=True) if not key or not sign), None
    ):
        raise ConfigError(f"--search {wrong}: expected KEY=VALUE, such as mode=hybrid.")
    return {key: yaml.safe_load(value) for key, _, value in pairs}


def _tell(record: Any) -> None:
    version = f"{record.name}, version {record.number} ({record.set_id[:16]}…)"
    typer.echo(f"{version}: {record.queries} queries, {record.judged} judged, {record.kind}")
