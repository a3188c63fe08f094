"""Verdicts: what a gate found about one snapshot; numbered beside it, never changed."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from isospace.collection.alias import AliasEntry, alias_history, promote
from isospace.collection.snapshot import Manifest
from isospace.errors import GateError
from isospace.storage.numbered_log import append, read_all
from isospace.storage.paths import CollectionPaths
from isospace.storage.store import Store

# Event of a rejection, for automations.
REJECTED = "isospace.gate.rejected"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Finding(_Record):
    """One rule, and what was found.

    `passed` is None where the rule is left open: it compares with production, and there is none, or does not go with
    what is stored.
    """

    rule: str
    passed: bool | None
    figure: float | None
    expected: str
    detail: str


class Compared(_Record):
    """A snapshot that the judged one was compared with."""

    snapshot: int
    snapshot_id: str
    space_id: str


class Verdict(_Record):
    """What the gate found about one snapshot.

    `key` says what was judged by what against what: an equal one need not be judged again. `measures` are those of the
    candidate, and differences from production where there is one.
    """

    number: int
    collection: str
    snapshot: int
    snapshot_id: str
    space_id: str
    against: Compared | None
    evaluation_set: str | None
    set_id: str | None
    set_kind: str | None
    passed: bool
    findings: tuple[Finding, ...]
    measures: dict[str, Any]
    agreement: dict[str, float]
    notes: tuple[str, ...]
    key: str
    run_id: str
    at: str
    report: str | None

    def failed(self) -> list[Finding]:
        """Return the rules that do not hold."""
        return [finding for finding in self.findings if finding.passed is False]

    def describe(self) -> str:
        """Return the outcome in a sentence, with the figures of every rule that does not hold."""
        against = f" against snapshot {self.against.snapshot}" if self.against else ""
        if self.passed:
            left = sum(one.passed is None for one in self.findings)
            rest = f"; {left} left open" if left else ""
            return f"snapshot {self.snapshot} holds {len(self.findings) - left} rules{against}{rest}"
        broken = "; ".join(f"`{one.rule}`: {one.detail}" for one in self.failed())
        return f"snapshot {self.snapshot} was rejected{against}: {broken}"


def read_verdicts(store: Store, collection: str, snapshot_id: str) -> list[Verdict]:
    """Return the verdicts on a snapshot, oldest first."""
    return read_all(store, CollectionPaths(collection).verdicts(snapshot_id), Verdict)


def write_verdict(store: Store, verdict: Verdict) -> Verdict:
    """Write a verdict as the next one on its snapshot; its number is set here."""
    folder = CollectionPaths(verdict.collection).verdicts(verdict.snapshot_id)
    written = append(store, folder, lambda number: verdict.model_copy(update={"number": number}))
    return Verdict.model_validate_json(written.model_dump_json())


def carry_verdict(store: Store, old: Manifest, new: Manifest) -> None:
    """Give a snapshot that takes another's place the last verdict on that one: what was rejected stays rejected."""
    verdicts = read_verdicts(store, old.collection, old.snapshot_id)
    if verdicts and new.snapshot_id != old.snapshot_id and not read_verdicts(store, new.collection, new.snapshot_id):
        carried = {"snapshot": new.sequence, "snapshot_id": new.snapshot_id}
        write_verdict(store, verdicts[-1].model_copy(update=carried))


def require_passed(verdict: Verdict | None) -> None:
    """Raise GateError for a rejection: the run has done its work, and production did not move."""
    if verdict is not None and not verdict.passed:
        raise GateError(
            f"{verdict.describe()}. Production stays where it was; the snapshot is the alias candidate. Look at "
            f"{verdict.report}, or `isospace verdicts`; `isospace promote --force --reason …` overrides it."
        )


def promote_judged(
    store: Store, collection: str, alias: str, manifest: Manifest, *, reason: str, force: bool = False
) -> AliasEntry | None:
    """Move an alias to a snapshot that its gate has let pass, or by force.

    Parameters
    ----------
    store, collection, alias, manifest
        As `isospace.collection.alias.promote` has them.
    reason
        Kept in the history; required by `force`.
    force
        Move it although the gate rejected the snapshot, or never judged it.

    Raises
    ------
    GateError
        If there is something against it, see `promotion_problem`, or force is used without a reason.
    """
    if force and not reason.strip():
        raise GateError("--force needs a reason, which is kept. Give it with --reason.")
    problem = promotion_problem(store, manifest, alias)
    if problem and not force:
        raise GateError(f"{problem} To move {alias} all the same, give --force and --reason.")
    return promote(store, collection, alias, manifest, reason=reason, forced=problem)


def promotion_problem(store: Store, manifest: Manifest, alias: str) -> str:
    """Return what speaks against moving an alias to a snapshot; empty if nothing does.

    A snapshot that was judged needs a verdict that let it pass, by the rules of its recipe, against what the alias
    names now, if it names anything. What the alias has named before may come back. Without rules and verdicts there is
    nothing to
    hold.
    """
    verdicts = read_verdicts(store, manifest.collection, manifest.snapshot_id)
    rules = {" ".join(rule.split()) for rule in manifest.recipe.get("gate", {}).get("rules") or ()}
    if not verdicts and not rules:
        return ""
    history = alias_history(store, manifest.collection, alias)
    if any(entry.snapshot_id == manifest.snapshot_id and not entry.forced for entry in history):
        return ""
    fitting = [verdict for verdict in verdicts if rules <= {finding.rule for finding in verdict.findings}]
    if not fitting:
        return (
            f"snapshot {manifest.sequence} was not judged by the {len(rules)} rules of its recipe. Run `isospace gate`."
        )
    last = fitting[-1]
    if not last.passed:
        return f"{last.describe()}."
    if history and (last.against is None or last.against.snapshot_id != history[-1].snapshot_id):
        against = f"snapshot {last.against.snapshot}" if last.against else "nothing"
        return (
            f"snapshot {manifest.sequence} was judged against {against}, and {alias} names snapshot "
            f"{history[-1].snapshot}. Run `isospace gate` again."
        )
    return ""
