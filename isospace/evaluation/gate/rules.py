"""Rules of a gate, in the form in which people write them.

    ndcg@10 not worse than production by more than 0.01 at p < 0.05
    recall@100 >= 0.9
    recall@10 of exact >= 0.99
    ndcg@10 for lang=de >= 0.5
    overlap@10 >= 0.8
    norms within 1e-6
    mean cosine <= 0.6
    latency p99 <= 1.3 x

`not worse … at p < P` is a test of non-inferiority: a one-sided paired randomization test has to show that the loss is
smaller than the margin. With fewer than 3 / margin queries the rule fails, since they cannot show it. (Walker and
Nowacki, "Understanding equivalence and noninferiority testing", 2011.)
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from isospace.errors import ConfigError
from isospace.evaluation.metrics import measure_name

Subject: TypeAlias = Literal["measure", "agreement", "latency", "norms", "geometry", "approximate"]
_NUMBER = r"(?P<value>\d+(?:\.\d*)?(?:e-?\d+)?)"
_SLICE = r"(?: for (?P<column>[\w.-]+)=(?P<group>.+?))?"
_WORSE = re.compile(
    rf"(?P<subject>\S+){_SLICE} not worse than production by more than {_NUMBER}(?: at p ?< ?(?P<p>0?\.\d+))?"
)
_WITHIN = re.compile(rf"norms within {_NUMBER}")
_OF_EXACT = re.compile(rf"recall@(?P<count>\d+) of exact ?>= ?{_NUMBER}", re.IGNORECASE)
_BOUND = re.compile(rf"(?P<subject>.+?){_SLICE} ?(?P<sign><=|>=) ?{_NUMBER}(?P<times> ?x)?")
GEOMETRY = {
    "mean cosine": "mean_cosine", "isotropy": "score", "evenness": "evenness", "top 64": "top_64", "top 128": "top_128",
}  # fmt: skip
AGREEMENT = {"overlap@10": "overlap", "rbo": "rbo"}
LATENCY = {"latency p50": 50.0, "latency p95": 95.0, "latency p99": 99.0}
EXAMPLES = "`ndcg@10 not worse than production by more than 0.01 at p < 0.05`, `recall@100 >= 0.9`, `norms within 1e-6`"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Attributes
    ----------
    text
        The rule as written.
    subject
        Kind of the figure.
    name
        The figure: a metric as ir-measures names it, a key of `GEOMETRY`, `AGREEMENT`, or `LATENCY`, or for
        `approximate` the number of hits.
    sense
        `at_least`, `at_most`; `ratio`: at most `value` times that of production; `not_worse` than production by more
        than `value`.
    value
        The bound, the ratio, or the margin.
    p
        For `not_worse`: the level of the test; None compares only the means.
    group
        Column and value that select queries; None for all.
    """

    text: str
    subject: Subject
    name: str
    sense: Literal["at_least", "at_most", "ratio", "not_worse"]
    value: float
    p: float | None = None
    group: tuple[str, str] | None = None

    @property
    def is_relative(self) -> bool:
        """Whether the rule compares with production."""
        return self.sense in ("ratio", "not_worse") or self.subject == "agreement"

    @property
    def needs_queries(self) -> bool:
        """Whether the rule needs an evaluation set."""
        return self.subject in ("measure", "agreement", "latency")


def parse_rule(text: str) -> Rule:
    """Parse one rule.

    Raises
    ------
    ConfigError
        If the rule cannot be parsed, or its bound is not finite.
    """
    rule = _parsed(text)
    if not math.isfinite(rule.value):
        # Such as 1e999, which every figure would meet.
        raise ConfigError(f"gate rule {text!r}: the bound is {rule.value}; expected a finite number.")
    return rule


def _parsed(text: str) -> Rule:
    written = " ".join(text.split())
    if match := _WITHIN.fullmatch(written):
        return Rule(written, "norms", "norms", "at_most", float(match["value"]))
    if match := _OF_EXACT.fullmatch(written):
        return Rule(written, "approximate", match["count"], "at_least", float(match["value"]))
    if match := _WORSE.fullmatch(written):
        p = float(match["p"]) if match["p"] else None
        if p is not None and not float(match["value"]):
            raise ConfigError(
                f"gate rule {text!r}: no number of queries can show a margin of 0; expected a margin such as 0.01."
            )
        return Rule(
            written, "measure", measure_name(match["subject"]), "not_worse", float(match["value"]), p, _group(match)
        )
    if match := _BOUND.fullmatch(written):
        return _bound(written, match)
    raise ConfigError(
        f"gate rule {text!r}: cannot be parsed. Expected a rule such as {EXAMPLES}, or `latency p99 <= 1.3 x`."
    )


def _bound(text: str, match: re.Match[str]) -> Rule:
    name, value = match["subject"].strip().lower(), float(match["value"])
    sense: Literal["at_least", "at_most", "ratio"] = "at_least" if match["sign"] == ">=" else "at_most"
    if match["times"]:
        if name not in LATENCY or sense != "at_most":
            raise ConfigError(
                f"gate rule {text!r}: only {', '.join(LATENCY)} can be a ratio to production, such as "
                "`latency p99 <= 1.3 x`."
            )
        return Rule(text, "latency", name, "ratio", value)
    if name in LATENCY:
        raise ConfigError(
            f"gate rule {text!r}: latencies depend on the machine; expected a ratio, such as `{name} <= 1.3 x`."
        )
    if name in GEOMETRY:
        return Rule(text, "geometry", name, sense, value)
    if name in AGREEMENT:
        return Rule(text, "agreement", name, sense, value)
    return Rule(text, "measure", measure_name(name), sense, value, None, _group(match))


def _group(match: re.Match[str]) -> tuple[str, str] | None:
    return (match["column"], match["group"]) if match["column"] else None
