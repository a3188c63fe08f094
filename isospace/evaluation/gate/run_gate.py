"""Put a snapshot through its gate: candidate alias, verdict, report; nothing here moves production."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from isospace.collection.alias import aliases, promote, resolve
from isospace.collection.snapshot import Manifest
from isospace.errors import NotFoundError
from isospace.evaluation.gate.judge import gate_key, gate_set, judge
from isospace.evaluation.gate.page import verdict_page
from isospace.evaluation.gate.spec import CANDIDATE, GateSpec
from isospace.evaluation.gate.verdicts import Verdict, read_verdicts, write_verdict
from isospace.evaluation.reports.page import write_page
from isospace.search.index import open_index
from isospace.search.view import View
from isospace.storage.store import Store

if TYPE_CHECKING:
    from isospace.encoding.encoder import Encoder
    from isospace.encoding.engine import Engine


def gate_snapshot(
    store: Store,
    manifest: Manifest,
    spec: GateSpec,
    *,
    against: str,
    run_id: str,
    engine: Engine | None = None,
    encoder: Encoder | None = None,
    again: bool = False,
) -> Verdict:
    """Judge a snapshot by rules, and keep the verdict beside it.

    Parameters
    ----------
    store
        Where.
    manifest
        The snapshot; the alias `candidate` is moved to it.
    spec
        The rules.
    against
        What is in production: an alias, a number or the start of a snapshot_id; where there is no such snapshot, rules
        that compare are left open.
    run_id
        Of the run that asks; names the report.
    engine
        What runs encoders of the store.
    encoder
        That of the snapshot, if it is loaded already.
    again
        Judge although there is a verdict by the same rules, on the same queries, against the same snapshot.

    Returns
    -------
    Verdict
    """
    collection = manifest.collection
    production = _baseline(store, collection, against)
    promote(store, collection, CANDIDATE, manifest, reason=f"run {run_id}")
    given = gate_set(store, collection, spec)
    known = read_verdicts(store, collection, manifest.snapshot_id)
    key = gate_key(store, spec, given, manifest, production)
    if known and known[-1].key == key and not again:
        return known[-1]
    candidate = _opened(store, manifest, engine, encoder)
    before = None
    if production is not None:
        same = production.encoder_id == manifest.encoder_id
        before = _opened(store, production, engine, candidate.space.encoder if same else None)
    judged = judge(spec, given, candidate, before, run_id=run_id, key=key)
    path = write_page(store, f"{run_id}-gate", verdict_page(judged, candidate, before))
    judged = replace(judged, verdict=judged.verdict.model_copy(update={"report": path}))
    return write_verdict(store, judged.verdict)


def require_baseline(store: Store, collection: str, against: str) -> None:
    """Refuse what names no snapshot, unless the collection has no alias yet and nothing to compare with.

    Raises
    ------
    NotFoundError
        If it names nothing, and the collection has aliases other than `candidate`.
    """
    known = aliases(store, collection).keys() - {CANDIDATE}
    if known and _baseline(store, collection, against) is None:
        raise NotFoundError(
            f"--against {against}: there is no such alias or snapshot; the aliases are {', '.join(sorted(known))}."
        )


def _baseline(store: Store, collection: str, against: str) -> Manifest | None:
    try:
        return resolve(store, collection, against)
    except NotFoundError:
        return None


def _opened(store: Store, manifest: Manifest, engine: Engine | None, encoder: Encoder | None) -> View:
    return open_index(store, manifest.collection, str(manifest.sequence), engine=engine, encoder=encoder).view
