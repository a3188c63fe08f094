"""Verdicts of the gate on a snapshot: numbered and immutable."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from isospace.collection.alias import alias_history, promote, require_released
from isospace.collection.alias_entry import AliasEntry, login_name
from isospace.collection.replacements import follow_replacements
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
    """The result of one rule.

    `passed` is None if the rule was skipped: because it compares with production and there is none, or because it does
    not apply to what is stored.
    """

    rule: str
    passed: bool | None
    figure: float | None
    expected: str
    detail: str


class ComparedSnapshot(_Record):
    """A snapshot that the judged one was compared with."""

    snapshot: int
    snapshot_id: str
    space_id: str


class Verdict(_Record):
    """The verdict of the gate on one snapshot.

    `key` is a fingerprint of everything the verdict depends on: with an equal key, nothing has to be judged again.
    `measures` are the metrics of the candidate, with differences if there is a production snapshot.
    """

    number: int
    collection: str
    snapshot: int
    snapshot_id: str
    space_id: str
    against: ComparedSnapshot | None
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
        """Return the findings of the rules that failed."""
        return [finding for finding in self.findings if finding.passed is False]

    def describe(self) -> str:
        """Return the outcome in a sentence, with the details of every rule that failed."""
        against = f" against snapshot {self.against.snapshot}" if self.against else ""
        if self.passed:
            skipped = sum(finding.passed is None for finding in self.findings)
            rest = f"; {skipped} skipped" if skipped else ""
            passed = len(self.findings) - skipped
            return f"snapshot {self.snapshot} passed {passed} rule{'s' * (passed != 1)}{against}{rest}"
        failed = "; ".join(f"`{finding.rule}`: {finding.detail}" for finding in self.failed())
        return f"snapshot {self.snapshot} was rejected{against}: {failed}"


def read_verdicts(store: Store, collection: str, snapshot_id: str) -> list[Verdict]:
    """Return the verdicts on a snapshot, oldest first."""
    return read_all(store, CollectionPaths(collection).verdicts(snapshot_id), Verdict)


def write_verdict(store: Store, verdict: Verdict) -> Verdict:
    """Write a verdict as the next one on its snapshot; return it with its number."""
    folder = CollectionPaths(verdict.collection).verdicts(verdict.snapshot_id)
    written = append(store, folder, lambda number: verdict.model_copy(update={"number": number}))
    return Verdict.model_validate_json(written.model_dump_json())


def carry_verdict(store: Store, old: Manifest, new: Manifest) -> None:
    """Copy the last verdict to a snapshot that replaces another, so that a rejected snapshot stays rejected."""
    verdicts = read_verdicts(store, old.collection, old.snapshot_id)
    if verdicts and new.snapshot_id != old.snapshot_id and not read_verdicts(store, new.collection, new.snapshot_id):
        carried = {"snapshot": new.sequence, "snapshot_id": new.snapshot_id}
        write_verdict(store, verdicts[-1].model_copy(update=carried))


def require_passed(verdict: Verdict | None, address: str | None = None) -> None:
    """Raise GateError if the snapshot was rejected; it is committed, but production did not move.

    `address` is where to find the report, if not under its path in the store.
    """
    if verdict is not None and not verdict.passed:
        raise GateError(
            f"{verdict.describe()}. Production did not move; the alias candidate names the snapshot. Look at "
            f"{address or verdict.report}, or run `isospace verdicts`; `isospace promote --force --reason …` overrides "
            "the gate."
        )


def promote_judged(
    store: Store,
    collection: str,
    alias: str,
    manifest: Manifest,
    *,
    reason: str,
    force: bool = False,
    release: bool = False,
    hold: bool = False,
    author: str | None = None,
) -> AliasEntry | None:
    """Move an alias to a snapshot that passed its gate, or by force.

    Parameters
    ----------
    store, collection, alias, manifest
        See `isospace.collection.alias.promote`.
    reason
        Recorded in the history; required with `force`.
    force
        Move the alias even if the gate rejected the snapshot, or never judged it.
    release
        Move the alias even if it is held, and end the hold.
    hold
        Move the alias even if it is held, and hold it at this snapshot.
    author
        Who moves the alias; by default, the login name.

    Raises
    ------
    ConfigError
        If `hold` is set and `reason` is empty.
    GateError
        If there is a `promotion_problem` and no force, or force without a reason.
    HeldError
        If the alias is held, and not to be released.
    """
    if force and not reason.strip():
        raise GateError("--force needs a reason, which is recorded. Give it with --reason.")
    if not (release or hold):
        require_released(store, collection, alias)
    problem = promotion_problem(store, manifest, alias)
    if problem and not force:
        raise GateError(f"{problem} To move {alias} anyway, give --force and --reason.")
    who = login_name() if author is None else author
    return promote(
        store, collection, alias, manifest, reason=reason, forced=problem, release=release, hold=hold, author=who
    )


def _is_same(store: Store, collection: str, against: ComparedSnapshot, entry: AliasEntry) -> bool:
    """Return whether a verdict compared with the snapshot of an entry, which an erasure may have rewritten since."""
    compared = entry.model_copy(update={"snapshot": against.snapshot, "snapshot_id": against.snapshot_id})
    (followed,) = follow_replacements(store, collection, [compared])
    return followed.snapshot_id == entry.snapshot_id


def promotion_problem(store: Store, manifest: Manifest, alias: str) -> str:
    """Return why an alias must not move to a snapshot; empty if it may.

    The snapshot must have passed the rules of its recipe, in comparison with the snapshot that the alias names now, if
    there is one. A snapshot that the alias has named before may always come back. Without rules and verdicts, every
    snapshot may be promoted.
    """
    verdicts = read_verdicts(store, manifest.collection, manifest.snapshot_id)
    rules = {" ".join(rule.split()) for rule in manifest.recipe.get("gate", {}).get("rules") or ()}
    if not verdicts and not rules:
        return ""
    history = follow_replacements(store, manifest.collection, alias_history(store, manifest.collection, alias))
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
    if history and (last.against is None or not _is_same(store, manifest.collection, last.against, history[-1])):
        against = f"snapshot {last.against.snapshot}" if last.against else "nothing"
        return (
            f"snapshot {manifest.sequence} was judged against {against}, but {alias} now names snapshot "
            f"{history[-1].snapshot}. Run `isospace gate` again."
        )
    return ""
