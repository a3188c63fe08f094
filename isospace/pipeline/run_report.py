"""The report of a run, as JSON for the store and as Markdown."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from isospace.collection.segments import NORM_TOLERANCE
from isospace.evaluation.reports.artifacts import markdown_table
from isospace.evaluation.reports.markdown import as_text
from isospace.evaluation.reports.page import duration
from isospace.evaluation.reports.quotes import Heading, Tone, names_of, remove_if_forgotten, write_quotes
from isospace.pipeline.checks import CheckResult
from isospace.pipeline.commit import Commit
from isospace.pipeline.counted import counted
from isospace.pipeline.plan_report import PlanReport
from isospace.pipeline.run import Run
from isospace.pipeline.scan.diff import Scan
from isospace.pipeline.scan.notes import NoteCount
from isospace.pipeline.segment import Segment
from isospace.storage import paths as layout
from isospace.storage.hashing import canonical_json
from isospace.transform.space import Space


@dataclass(frozen=True, slots=True)
class RunReport:
    """What a run did; small enough to be the result of a Prefect flow.

    Attributes
    ----------
    snapshot, snapshot_id, space_id
        The latest snapshot of the collection, and its space.
    committed
        Whether this run committed the snapshot.
    promoted
        The alias that was moved, if any.
    gate
        The verdict of the gate, in a sentence; None without a gate.
    documents, chunks
        Live documents and chunks in the snapshot.
    encoded, tokens, seconds
        Number of texts that this run encoded, their tokens, and the time it took.
    reused
        Number of texts that already had a raw vector.
    left
        Number of texts that the budget did not reach; the next run continues with them.
    money
        Cost of encoding, at the price of a device's hour or of a million tokens; None without a price.
    billed_tokens
        Tokens that a provider billed.
    resent_texts
        Most texts that were sent to a provider twice: after failures, and after an earlier run was killed.
    clipped, saturated
        Number of values in this run's segments that reached a bound of the affine map, or of int8.
    quarantined, quarantine
        Number of inputs that could not be used, and the table in the store that lists them with reasons.
    notes
        How the documents of the source were read: counts and examples by kind.
    held
        That the alias is held, in a sentence with the command that releases it; empty if it is not.
    stays
        Why the alias does not move to the snapshot although it is not held, in a sentence; empty if it moved, if it
        names the snapshot already, or if the gate rejected the snapshot.
    added, changed, unchanged, removed, stale, forgotten
        Numbers of documents; `stale` ones could not be read this time and stay as they were, `forgotten` ones are in
        the source and must not be ingested.
    rejected
        Whether the gate rejected the snapshot, so that the alias did not move.
    price_key
        The key of the price of a million tokens; empty if `money` is that of a device's hours.
    stages
        Wall time in seconds of each stage, in their order, up to the report.
    """

    run_id: str
    collection: str
    snapshot: int
    snapshot_id: str
    space_id: str
    committed: bool
    promoted: str | None
    gate: str | None
    documents: int
    chunks: int
    encoded: int
    tokens: int
    seconds: float
    reused: int
    left: int
    money: float | None
    clipped: int
    saturated: int
    quarantined: int
    quarantine: str | None
    warnings: tuple[str, ...]
    notes: tuple[NoteCount, ...] = ()
    held: str = ""
    stays: str = ""
    added: int = 0
    changed: int = 0
    unchanged: int = 0
    removed: int = 0
    stale: int = 0
    forgotten: int = 0
    rejected: bool = False
    stages: tuple[tuple[str, float], ...] = ()
    billed_tokens: int = 0
    resent_texts: int = 0
    price_key: str = ""

    @property
    def tone(self) -> Tone:
        """Whether a person should look at it."""
        if self.warnings or self.rejected:
            return "bad"
        # Held on purpose: nothing is wrong, and the snapshot is not searched.
        return "plain" if self.held or self.stays else "good"

    @property
    def outcome(self) -> str:
        """What the run led to, in a sentence or two."""
        if not self.snapshot:
            return "Unfinished; there is no snapshot yet."
        size = f"{counted(self.documents, 'document')} in {counted(self.chunks, 'chunk')}"
        state = "Committed" if self.committed else "Unfinished, still at" if self.left else "No changes, still at"
        promoted = f", which {self.promoted} now names" if self.promoted else ""
        gate = f" Gate: {self.gate}." if self.gate else ""
        unmoved = self.held or self.stays
        stays = f" {unmoved[0].upper()}{unmoved[1:]}." if unmoved else ""
        return f"{state} snapshot {self.snapshot}{promoted}: {size}.{gate}{stays}"

    def document_rows(self) -> list[tuple[str, str, str]]:
        """Return what happened to documents: name, number, and meaning of each kind that there is."""
        return [
            (name, f"{count:,}", meaning)
            for name, count, meaning in (
                ("added", self.added, "new in the source"),
                ("changed", self.changed, "another title, text, or metadata than before"),
                ("unchanged", self.unchanged, "taken over as they were"),
                ("removed", self.removed, "no longer in the source, and no longer found"),
                ("unreadable, kept", self.stale, "could not be read this time; their earlier version stays"),
                ("forgotten", self.forgotten, "in the source, but erased by `isospace forget`: left out"),
                ("quarantined inputs", self.quarantined, "could not become documents, see their reasons"),
            )
            if count
        ]

    def work_rows(self) -> list[tuple[str, str, str]]:
        """Return what the run encoded and spent: name, figure, and meaning."""
        rate = self.tokens / self.seconds if self.seconds else 0.0
        rows = [("encoded", counted(self.encoded, "text"), "different texts that had no raw vector yet")]
        if self.encoded:
            rows += [
                ("tokens", f"{self.tokens:,}", "in these texts, with prompts"),
                ("encoding", duration(self.seconds), f"working time of all workers; {rate:,.0f} tokens per second"),
            ]
        if self.billed_tokens:
            rows.append(("billed", counted(self.billed_tokens, "token"), "by the provider"))
        if self.resent_texts:
            rows.append(("sent twice", f"up to {counted(self.resent_texts, 'text')}", "after failures or a killed run"))
        if self.reused:
            rows.append(("reused", counted(self.reused, "text"), "had a raw vector from an earlier run"))
        if self.left:
            rows.append(("left", counted(self.left, "text"), "beyond the budget; the next run continues with them"))
        if self.money is not None:
            priced = self.price_key or "runtime.price_per_device_hour"
            figure = f"{self.money:,.2f}" if self.money >= 1.0 else f"{self.money:,.4g}"
            rows.append(("cost", figure, f"of encoding, at {priced}"))
        return rows

    def as_dict(self) -> dict[str, Any]:
        """Return the report as a dictionary."""
        return asdict(self)


def run_warnings(run: Run, scan: Scan, checked: CheckResult | None, commit: Commit) -> tuple[str, ...]:
    """Return the warnings of a run: what a person should look at."""
    warnings = [*(checked.warnings if checked else ()), *([commit.warning] if commit.warning else [])]
    warnings += commit.metadata
    if run.damaged:
        warnings.append(
            f"the snapshot was rebuilt, since {len(run.damaged)} of its files were lost, such as {run.damaged[0]}"
        )
    if scan.unreadable > scan.quarantined:
        warnings.append(
            f"the {scan.quarantined:,} quarantined inputs stand for about {scan.unreadable:,} documents; see `isospace "
            "quarantine`"
        )
    if scan.stale:
        warnings.append(
            f"{scan.stale} documents could not be read this time and stay as they were; see `isospace quarantine`"
        )
    warnings += [note.describe() for note in scan.notes if note.warns]
    return tuple(warnings)


def write_report(
    run: Run, report: RunReport, plan: PlanReport, checked: CheckResult | None, segments: list[Segment], commit: Commit
) -> str:
    """Write the report as JSON, which quotes no document and names few; return its path in the store."""
    body = {
        "run": asdict(report),
        "plan": plan.as_dict(),
        "checks": asdict(checked) if checked else None,
        "segments": [{"part": s.part, "clipped": s.clipped, "saturated": s.saturated} for s in segments],
        "provenance": commit.manifest.provenance,
    }
    examples = [doc_id for note in report.notes for doc_id, _ in note.examples]
    named = names_of([*examples, *(plan.judged.missing if plan.judged else ())])
    heading = Heading(f"{report.collection}: snapshot {report.snapshot}", report.outcome, report.tone)
    write_quotes(run.store, run.run_id, run.collection, named, heading)
    path = layout.report(run.run_id)
    run.store.write(path, canonical_json(body))
    remove_if_forgotten(run.store, run.run_id, run.collection)
    return path


def checks_rows(checked: CheckResult) -> list[tuple[str, str, str, str]]:
    """Return the checks before the commit: name, value, bound, and meaning. A value beyond its bound fails the run."""
    return [
        ("rows read back", f"{checked.rows:,}", "as many as planned", "written, read again, and compared"),
        (
            "largest distance of a length from 1",
            f"{checked.largest_norm_error:.2g}",
            f"at most {NORM_TOLERANCE:g}",
            "so that inner products are cosines",
        ),
        (
            "smallest cosine of a probe",
            f"{checked.probe_cosine:.7f}",
            "within the tolerance of the space",
            "reference texts, encoded again and compared with their sealed vectors",
        ),
    ]


def checks_markdown(collection: str, checked: CheckResult, most_cosine: float) -> str:
    """Return the checks as Markdown; `most_cosine` is the bound of the mean cosine."""
    before, after = checked.before, checked.after
    isotropy = [
        ("mean cosine of random pairs", before.mean_cosine, after.mean_cosine, f"at most {most_cosine:g}"),
        ("evenness", before.evenness, after.evenness, "the higher, the more dimensions are used"),
        ("isotropy score", before.score, after.score, "1 is even in all directions"),
    ]
    shown = [(name, f"{raw:.3f}", f"{stored:.3f}", bound) for name, raw, stored, bound in isotropy]
    lines = [
        f"### {collection}: checks before the commit passed",
        "What was written is read back before it becomes visible; a failed check ends the run without a snapshot.",
        markdown_table(("check", "value", "bound"), [row[:3] for row in checks_rows(checked)], numbers=(1,)),
        "Vectors of length 1 make inner products cosines. Probes are reference texts whose vectors are sealed with the "
        "space: they are encoded again and compared.",
        "How evenly a sample of vectors fills the space, before and after the transform:",
        markdown_table(("", "raw", "stored", "bound or meaning"), shown, numbers=(1, 2)),
        *(f"**Warning:** {as_text(warning)}" for warning in checked.warnings),
    ]
    return "\n\n".join(lines)


def space_markdown(collection: str, space: Space) -> str:
    """Return a space as Markdown: what was fitted, and the evidence for the choice."""
    fit, choice = space.provenance.get("fit", {}), space.provenance.get("choice")
    kind = space.record.fitted.describe() if space.record.fitted.kind != "none" else "without a fit"
    figures = [(label, _figure(fit[name])) for name, label in _FIT.items() if fit.get(name) is not None]
    lines = [
        f"### {collection}: a new space, {kind}",
        f"Sealed as `{space.space_id[:16]}…`. Documents and queries of every later run go through exactly this "
        "transform, until a refit.",
        *([markdown_table(("sample and arithmetic", ""), figures, numbers=(1,))] if figures else []),
    ]
    stored = space.provenance.get("representations", {})
    if stored:
        names = {name: label for name, label in _STORED.items() if name in next(iter(stored.values()))}
        rows = [(one, *(_figure(row[name]) for name in names)) for one, row in stored.items()]
        head = ("representation", *names.values())
        lines += [
            "What is stored of each vector; an error is how much a cosine of two vectors changes by it:",
            markdown_table(head, rows, numbers=tuple(range(1, len(head)))),
        ]
    if choice:
        head = ("fit", "first half", "held-out half", "gain", "95 % interval", "p")
        keys = ("choosing", "held_back", "gain", "interval", "p")
        rows = [(one["fit"], *(_figure(one[key]) for key in keys)) for one in choice["tried"]]
        lines += [
            as_text(choice["reason"]),
            f"nDCG@10 on {as_text(choice['source'])}; the second half was held out. A gain is over no fit at all.",
            markdown_table(head, rows, numbers=(1, 2, 3, 5)),
        ]
    lines += [f"**Warning:** {as_text(warning)}" for warning in space.provenance.get("warnings", [])]
    return "\n\n".join(lines)


_FIT = {
    "n": "vectors in the sample",
    "n_per_d": "vectors per dimension (a covariance needs 10 or more)",
    "d": "dimensions of the model",
    "rank": "of these, dimensions that vary",
    "condition_number": "condition number (how much directions are stretched)",
    "epsilon": "added to every eigenvalue",
    "shrinkage": "shrinkage of the covariance (0 is none)",
    "k": "dimensions stored",
    "held_out_variance": "variance of held-out vectors (1 is ideal)",
    "clipped": "values clipped at the bounds",
    "cosine_error_bound": "error of a cosine by rounding, at most",
}
_STORED = {"bytes": "bytes per chunk", "cosine_error": "mean error", "largest_cosine_error": "largest error"}


def _figure(value: Any) -> str:
    match value:
        case float():
            # Less is what the measurement itself rounds.
            return f"{value:.3g}" if abs(value) >= 1e-15 else "0"
        case int() if not isinstance(value, bool):
            return f"{value:,}"
        case dict():
            return ", ".join(f"{name} {_figure(part)}" for name, part in value.items())
        case list() | tuple():
            return " to ".join(_figure(part) for part in value)
        case None:
            return "–"
        case _:
            return str(value)


def run_markdown(report: RunReport) -> str:
    """Return the report as Markdown."""
    documents, slowest = report.document_rows(), sorted(report.stages, key=lambda stage: -stage[1])[:3]
    total = sum(seconds for _, seconds in report.stages)
    longest = ", ".join(f"{name} {duration(seconds)}" for name, seconds in slowest)
    lines = [
        f"### {report.collection}: snapshot {report.snapshot}",
        as_text(report.outcome),
        *(f"**Warning:** {as_text(warning)}" for warning in report.warnings),
        *([markdown_table(("documents", "", "meaning"), documents, numbers=(1,))] if documents else []),
        markdown_table(("work", "", "meaning"), report.work_rows(), numbers=(1,)),
        *([f"The run took {duration(total)}, most of it for: {longest}."] if total else []),
        *_notes(report),
    ]
    return "\n\n".join(lines)


def _notes(report: RunReport) -> list[str]:
    lines = [f"- {as_text(note.describe())}" for note in report.notes]
    return ["How documents were read:", "\n".join(lines)] if lines else []
