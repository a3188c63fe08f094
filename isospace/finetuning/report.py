"""Report of a fine-tuning, with a one-sentence verdict on whether it paid off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from isospace.evaluation.comparison import Difference
from isospace.evaluation.reports import plots
from isospace.evaluation.reports.page import Page, Section, Table, Tone, figure
from isospace.finetuning.benchmark import EncoderComparison
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
        Names of the collection and of the fine-tuning.
    encoder_id, base
        IDs of the result and of its base; equal if no training step was better than the base.
    paid
        Whether retrieval on the collection's evaluation set improved significantly.
    sentence
        The verdict in one sentence, with the loss on the other domain.
    inside, outside
        Comparison on the collection's own evaluation set, and on another domain.
    lineage
        Origin of the encoder.
    plan
        Cost of embedding the collection with the result; None if the result is the base.
    report
        Path of the page in the store.
    """

    collection: str
    name: str
    encoder_id: str
    base: str
    paid: bool
    sentence: str
    inside: EncoderComparison
    outside: EncoderComparison | None
    lineage: Lineage
    plan: PlanReport | None
    report: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the report as a dictionary."""
        names = ("collection", "name", "encoder_id", "base", "paid", "sentence", "report")
        return {
            **{name: getattr(self, name) for name in names},
            "inside": self.inside.as_dict(),
            "outside": self.outside.as_dict() if self.outside else None,
            "lineage": self.lineage.model_dump(mode="json"),
            "plan": asdict(self.plan) if self.plan else None,
        }


def judge(inside: EncoderComparison, outside: EncoderComparison | None, *, is_base: bool) -> tuple[bool, str]:
    """Return whether the fine-tuning paid off, and a sentence with its gain and its loss elsewhere."""
    if is_base:
        return (
            False,
            "It did not pay off: no training step was better than the base model on the held-out documents.",
        )
    gain = inside.measures[MEASURE]
    paid = gain.difference > 0 and gain.p < _P
    if paid:
        verdict = f"It paid off: retrieval on {inside.name} improved, {_difference(gain)}"
    elif gain.difference < 0 and gain.p < _P:
        verdict = f"It did harm: retrieval on {inside.name} got worse, {_difference(gain)}"
    else:
        verdict = f"It did not pay off: the difference on {inside.name} is not significant, {_difference(gain)}"
    if outside is None:
        return paid, f"{verdict}; the loss on other domains was not measured."
    loss = outside.measures[MEASURE]
    if not loss.p < _P:
        return (
            paid,
            f"{verdict}; outside the domain, {outside.name} shows no significant difference, {_difference(loss)}.",
        )
    change = "got worse" if loss.difference < 0 else "improved too"
    return paid, f"{verdict}; outside the domain, {outside.name} {change}, {_difference(loss)}."


def finetune_page(report: FineTuneReport, tokenization: Tokenization, before: Sequence[str] = ()) -> Page:
    """Return the report as an HTML page."""
    tone: Tone = "good" if report.paid else "plain"
    comparisons = _comparisons(report)
    differences = _differences(comparisons)
    lineage = report.lineage
    scored = [entry for entry in lineage.history if "ndcg" in entry]
    sections = [
        Section(
            "Before and after",
            f"{report.inside.queries} queries over {report.inside.texts:,} chunks, exact search with raw vectors"
            + (f"; outside, {report.outside.queries} over {report.outside.texts:,}." if report.outside else ".")
            + " Intervals are 95 % bootstrap intervals of the difference; p is from a paired randomization test.",
            plots.intervals(differences),
            Table(("set", "measure", "before", "after", "difference", "95 %", "p"), _rows(differences)),
        ),
        Section("Query by query", "nDCG@10 in the domain.", plots.changes(*report.inside.values, MEASURE)),
        Section(
            "Held-out documents",
            f"nDCG@10 of {lineage.held_out} pairs that were not trained on, at each evaluation. The result has the "
            f"weights of step {lineage.best_step}. Training took {lineage.seconds:,.0f} s.",
            table=Table(("step", MEASURE), tuple((f"{entry['step']:.0f}", figure(entry["ndcg"])) for entry in scored)),
        ),
        Section(
            "Isotropy",
            "Isotropy of the document vectors. It does not measure retrieval.",
            table=Table(
                ("set", "mean cosine before", "after", "evenness before", "after"),
                tuple(
                    (
                        comparison.name,
                        figure(old.mean_cosine),
                        figure(new.mean_cosine),
                        figure(old.evenness),
                        figure(new.evenness),
                    )
                    for comparison in comparisons
                    for old, new in [comparison.isotropy]
                ),
            ),
        ),
        _words(tokenization),
        Section("What it was made from", table=Table(("what", "value"), _facts(lineage))),
        *(
            [
                Section(
                    "What it would cost",
                    "Cost of embedding the collection with the result.",
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
    differences = _differences(_comparisons(report))
    rows = "\n".join("| " + " | ".join(row) + " |" for row in _rows(differences))
    return (
        f"### {report.collection}: fine-tuning {report.name}\n\n{report.sentence}\n\n"
        "| set | measure | before | after | difference | 95 % | p |\n| --- | --- | ---: | ---: | ---: | --- | ---: |\n"
        f"{rows}\n\nEncoder `{report.encoder_id}`, from `{report.base}`."
    )


def _comparisons(report: FineTuneReport) -> list[EncoderComparison]:
    return [report.inside, *([report.outside] if report.outside else [])]


def _differences(comparisons: Sequence[EncoderComparison]) -> dict[str, Difference]:
    """Return the differences of all comparisons by `NAME, METRIC`."""
    return {f"{one.name}, {metric}": change for one in comparisons for metric, change in one.measures.items()}


def _difference(change: Difference) -> str:
    low, high = change.interval
    details = f"{change.difference:+.4f}, 95 % {low:+.4f} to {high:+.4f}, p = {change.p:.3g}"
    return f"{MEASURE} {change.before:.4f} to {change.after:.4f} ({details})"


def _rows(differences: dict[str, Difference]) -> tuple[tuple[str, ...], ...]:
    return tuple(
        (
            *label.rsplit(", ", 1),
            f"{change.before:.4f}",
            f"{change.after:.4f}",
            f"{change.difference:+.4f}",
            f"{change.interval[0]:+.4f} to {change.interval[1]:+.4f}",
            f"{change.p:.3g}",
        )
        for label, change in differences.items()
    )


def _words(tokenization: Tokenization) -> Section:
    shares = ", ".join(
        f"{share:.1%} into {pieces}"
        for pieces, share in zip(("1", "2", "3", "4 or more"), tokenization.shares, strict=True)
    )
    text = (
        f"The tokenizer splits {tokenization.occurrences:,} words into {tokenization.pieces_a_word:.2f} tokens on "
        f"average: {shares}. The table lists the words with the most extra tokens in total."
    )
    if tokenization.asked:
        scores = ", ".join(f"{name} {value:.3f}" for name, value in tokenization.retrieval.items())
        text += f" nDCG@10 of {tokenization.asked} over-segmented, rare words, each as a query of its own: {scores}."
        if tokenization.retrieval.get("lexical", 0.0) > tokenization.retrieval.get("dense", 0.0):
            text += " Lexical search finds them better than vectors do: try hybrid search before training."
    rows = tuple((one.word, f"{one.count:,}", f"{one.documents:,}", " ".join(one.pieces)) for one in tokenization.worst)
    quotes = tuple(one.holders for one in tokenization.worst)
    table = Table(("word", "count", "documents", "tokens"), rows)
    return Section("Over-segmented words", text, table=table, quotes=quotes)


def _facts(lineage: Lineage) -> tuple[tuple[str, str], ...]:
    return (
        ("encoder", lineage.encoder_id),
        ("base", lineage.base),
        ("collection, snapshot", f"{lineage.collection}, {lineage.snapshot_id}"),
        ("pairs", ", ".join(f"{count:,} {origin}" for origin, count in lineage.pairs.items())),
        ("left out to keep evaluation data out of training", _counts(lineage.left_out)),
        ("negatives", ", ".join(f"{name}: {value}" for name, value in lineage.negatives.items())),
        ("loss", ", ".join(f"{name}: {value}" for name, value in lineage.loss.items() if value not in (None, [], ()))),
        ("training", ", ".join(f"{name}: {value}" for name, value in lineage.training.items() if value is not None)),
        ("libraries", ", ".join(f"{name} {value}" for name, value in lineage.libraries.items())),
    )


def _counts(numbers: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in numbers.items() if count) or "none"
