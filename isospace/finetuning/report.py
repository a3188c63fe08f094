"""Whether a fine-tuning paid, in one sentence, and the report around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from isospace.evaluation.comparison import Difference
from isospace.evaluation.reports import plots
from isospace.evaluation.reports.page import Page, Section, Table, Tone, figure
from isospace.finetuning.benchmark import Measured
from isospace.finetuning.lineage import Lineage
from isospace.finetuning.tokenizer_fertility import Tokenization
from isospace.pipeline.plan_report import PlanReport

MEASURE = "nDCG@10"
_P = 0.05


@dataclass(frozen=True, slots=True)
class FineTuneReport:
    """The outcome of a fine-tuning.

    Attributes
    ----------
    collection, name
        Which.
    encoder_id, base
        Fingerprints of the result and of what it was trained from; equal where nothing was better than the base.
    paid
        Whether the set of the domain was answered better, beyond chance.
    sentence
        That, and what was lost.
    inside, outside
        The domain, and the other one.
    lineage
        How the encoder came to be.
    plan
        What embedding the collection with it would cost; None where it is the base.
    report
        Path of the page.
    """

    collection: str
    name: str
    encoder_id: str
    base: str
    paid: bool
    sentence: str
    inside: Measured
    outside: Measured | None
    lineage: Lineage
    plan: PlanReport | None
    report: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the figures by name."""
        found = {
            name: getattr(self, name)
            for name in ("collection", "name", "encoder_id", "base", "paid", "sentence", "report")
        }
        return {
            **found,
            "inside": self.inside.as_dict(),
            "outside": self.outside.as_dict() if self.outside else None,
            "lineage": self.lineage.model_dump(mode="json"),
            "plan": asdict(self.plan) if self.plan else None,
        }


def judge(inside: Measured, outside: Measured | None, *, is_base: bool) -> tuple[bool, str]:
    """Say in one sentence whether it paid: a gain beyond chance in the domain, and what it cost outside."""
    if is_base:
        return (
            False,
            "It did not pay: no step of the training was better than the base model on the held-out documents.",
        )
    gain = inside.measures[MEASURE]
    paid = gain.difference > 0 and gain.p < _P
    if paid:
        told = f"It paid: {inside.name} is answered better, {_difference(gain)}"
    elif gain.difference < 0 and gain.p < _P:
        told = f"It did harm: {inside.name} is answered worse, {_difference(gain)}"
    else:
        told = f"It did not pay: the difference on {inside.name} may be chance, {_difference(gain)}"
    if outside is None:
        return paid, f"{told}; what it lost elsewhere was not measured."
    loss = outside.measures[MEASURE]
    if loss.p >= _P:
        return (
            paid,
            f"{told}; outside the domain {outside.name} shows no difference beyond chance, {_difference(loss)}.",
        )
    word = "lost" if loss.difference < 0 else "gained too"
    return paid, f"{told}; outside the domain {outside.name} {word}, {_difference(loss)}."


def finetune_page(report: FineTuneReport, tokenization: Tokenization, before: Sequence[str] = ()) -> Page:
    """Return the report as a page."""
    tone: Tone = "good" if report.paid else "plain"
    benches = [report.inside, *([report.outside] if report.outside else [])]
    differences = {f"{one.name}, {name}": found for one in benches for name, found in one.measures.items()}
    lineage = report.lineage
    scored = [entry for entry in lineage.history if "ndcg" in entry]
    sections = [
        Section(
            "Before and after",
            f"{report.inside.queries} queries over {report.inside.texts:,} chunks, by raw vectors and brute force"
            + (f"; outside, {report.outside.queries} over {report.outside.texts:,}." if report.outside else ".")
            + " Intervals are 95 % bootstrap intervals of the difference, p that of a paired randomization test.",
            plots.intervals(differences),
            Table(("set", "measure", "before", "after", "difference", "95 %", "p"), _rows(differences)),
        ),
        Section("Query by query", "nDCG@10 in the domain.", plots.changes(*report.inside.values, MEASURE)),
        Section(
            "Held-out documents",
            f"nDCG@10 of {lineage.held_out} pairs that were not trained on, at each evaluation; the weights are those "
            f"of step {lineage.best_step}. Training took {lineage.seconds:,.0f} s.",
            table=Table(("step", MEASURE), tuple((f"{entry['step']:.0f}", figure(entry["ndcg"])) for entry in scored)),
        ),
        Section(
            "Isotropy",
            "Of document vectors; no measure of retrieval.",
            table=Table(
                ("set", "mean cosine before", "after", "evenness before", "after"),
                tuple(
                    (
                        one.name,
                        figure(old.mean_cosine),
                        figure(new.mean_cosine),
                        figure(old.evenness),
                        figure(new.evenness),
                    )
                    for one in benches
                    for old, new in [one.isotropy]
                ),
            ),
        ),
        _words(tokenization),
        Section("What it was made from", table=Table(("what", "value"), _facts(lineage))),
        *(
            [
                Section(
                    "What it would cost",
                    "Embedding the collection with it.",
                    table=Table(("what", "how much"), tuple((label, value) for label, value in report.plan.rows())),
                )
            ]
            if report.plan
            else []
        ),
    ]
    return Page(
        f"{report.collection}: fine-tuning {report.name}", report.sentence, tone, tuple(sections), report.as_dict()
    )


def finetune_markdown(report: FineTuneReport) -> str:
    """Return the outcome as Markdown."""
    benches = [report.inside, *([report.outside] if report.outside else [])]
    differences = {f"{one.name}, {name}": found for one in benches for name, found in one.measures.items()}
    rows = "\n".join("| " + " | ".join(row) + " |" for row in _rows(differences))
    return (
        f"### {report.collection}: fine-tuning {report.name}\n\n{report.sentence}\n\n"
        "| set | measure | before | after | difference | 95 % | p |\n| --- | --- | ---: | ---: | ---: | --- | ---: |\n"
        f"{rows}\n\nEncoder `{report.encoder_id}`, from `{report.base}`. Report: `{report.report}`"
    )


def _difference(found: Difference) -> str:
    low, high = found.interval
    change = f"{found.difference:+.4f}, 95 % {low:+.4f} to {high:+.4f}, p = {found.p:.3g}"
    return f"{MEASURE} {found.before:.4f} to {found.after:.4f} ({change})"


def _rows(differences: dict[str, Difference]) -> tuple[tuple[str, ...], ...]:
    return tuple(
        (
            *label.rsplit(", ", 1),
            f"{one.before:.4f}",
            f"{one.after:.4f}",
            f"{one.difference:+.4f}",
            f"{one.interval[0]:+.4f} to {one.interval[1]:+.4f}",
            f"{one.p:.3g}",
        )
        for label, one in differences.items()
    )


def _words(found: Tokenization) -> Section:
    shares = ", ".join(
        f"{share:.1%} in {pieces}" for pieces, share in zip(("1", "2", "3", "4 or more"), found.shares, strict=True)
    )
    text = (
        f"{found.occurrences:,} words are cut into {found.pieces_a_word:.2f} pieces on average: {shares}. Below, the "
        "words that cost most pieces in all."
    )
    if found.asked:
        told = ", ".join(f"{name} {value:.3f}" for name, value in found.retrieval.items())
        text += f" {found.asked} shattered words of few documents were searched, each alone; nDCG@10: {told}."
        if found.retrieval.get("lexical", 0.0) > found.retrieval.get("dense", 0.0):
            text += " Words find them better than vectors do: hybrid search comes before training."
    rows = tuple((one.word, f"{one.count:,}", f"{one.documents:,}", " ".join(one.pieces)) for one in found.worst)
    return Section("Shattered words", text, table=Table(("word", "times", "documents", "pieces"), rows))


def _facts(lineage: Lineage) -> tuple[tuple[str, str], ...]:
    return (
        ("encoder", lineage.encoder_id),
        ("base", lineage.base),
        ("collection, snapshot", f"{lineage.collection}, {lineage.snapshot_id}"),
        ("pairs", ", ".join(f"{count:,} {origin}" for origin, count in lineage.pairs.items())),
        ("left out, so that nothing measured was trained on", _counts(lineage.left_out)),
        ("negatives", ", ".join(f"{name}: {value}" for name, value in lineage.negatives.items())),
        ("loss", ", ".join(f"{name}: {value}" for name, value in lineage.loss.items() if value not in (None, [], ()))),
        ("training", ", ".join(f"{name}: {value}" for name, value in lineage.training.items() if value is not None)),
        ("libraries", ", ".join(f"{name} {value}" for name, value in lineage.libraries.items())),
    )


def _counts(found: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in found.items() if count) or "none"
