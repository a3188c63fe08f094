"""Run the gate on a snapshot: candidate alias, verdict, and report; production does not move here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isospace.collection.alias import aliases, promote, resolve
from isospace.collection.alias_entry import CANDIDATE
from isospace.collection.snapshot import Manifest
from isospace.errors import NotFoundError
from isospace.evaluation.gate.judge import gate_key, gate_set, judge
from isospace.evaluation.gate.page import verdict_page
from isospace.evaluation.gate.spec import GateSpec
from isospace.evaluation.gate.verdicts import Verdict, read_verdicts, write_verdict
from isospace.evaluation.reports.page import write_page
from isospace.search.open_index import open_index
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
    """Judge a snapshot by rules, and record the verdict.

    Parameters
    ----------
    store
        The store.
    manifest
        The snapshot; the alias `candidate` is moved to it.
    spec
        The rules.
    against
        The snapshot in production: alias, number, or first digits of a snapshot ID. If it does not exist, rules that
        compare are skipped.
    run_id
        ID of the run; names the report.
    engine
        Runs encoders of the store.
    encoder
        The snapshot's encoder, if it is already loaded.
    again
        Judge again even if there is a verdict by the same rules, on the same queries, against the same snapshot.
    """
    collection = manifest.collection
    production = _baseline(store, collection, against)
    promote(store, collection, CANDIDATE, manifest, reason=f"run {run_id}")
    query_set = gate_set(store, collection, spec)
    verdicts = read_verdicts(store, collection, manifest.snapshot_id)
    key = gate_key(store, spec, query_set, manifest, production)
    if verdicts and verdicts[-1].key == key and not again:
        return verdicts[-1]
    candidate = _opened(store, manifest, engine, encoder)
    before = None
    if production is not None:
        same = production.encoder_ids == manifest.encoder_ids
        before = _opened(store, production, engine, candidate.space.encoder if same else None)
    result = judge(spec, query_set, candidate, before, run_id=run_id, key=key)
    path = write_page(store, f"{run_id}-gate", verdict_page(result, candidate, before), collection=collection)
    return write_verdict(store, result.verdict.model_copy(update={"report": path}))


def require_baseline(store: Store, collection: str, against: str) -> None:
    """Refuse a name without a snapshot, unless the collection has no aliases yet, and so nothing to compare with.

    Raises
    ------
    NotFoundError
        If the name has no snapshot, and the collection has aliases other than `candidate`.
    """
    known = aliases(store, collection).keys() - {CANDIDATE}
    if known and _baseline(store, collection, against) is None:
        raise NotFoundError(
            f"--against {against}: there is no such alias or snapshot. Aliases: {', '.join(sorted(known))}."
        )


def _baseline(store: Store, collection: str, against: str) -> Manifest | None:
    try:
        return resolve(store, collection, against)
    except NotFoundError:
        return None


def _opened(store: Store, manifest: Manifest, engine: Engine | None, encoder: Encoder | None) -> View:
    return open_index(store, manifest.collection, str(manifest.sequence), engine=engine, encoder=encoder).view
