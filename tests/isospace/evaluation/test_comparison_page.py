"""A comparison says which side is better, and no side where the interval holds 0."""

from __future__ import annotations

from dataclasses import replace

from isospace.evaluation.comparison import Comparison, Difference, QueryChange
from isospace.evaluation.comparison_page import NO_DIFFERENCE, Sides, comparison_page, tone_of, verdict
from isospace.evaluation.query_sets import EvaluationSet
from isospace.evaluation.reports.page import render
from isospace.evaluation.reports.quotes import QuoteRecord
from isospace.evaluation.runs import SetRun

SIDES = Sides("snapshot 3", "snapshot 4")


def difference(low: float, high: float) -> Difference:
    middle = (low + high) / 2
    return Difference(0.5, 0.5 + middle, middle, (low, high), 0.01, 20)


def comparison(**measures: Difference) -> Comparison:
    changes = (
        QueryChange("q1", "a <question>", 1.0, 0.5, 0.4, 0.5, ("left",), ("came",), ("answer",)),
        QueryChange("q2", "no judgement", None, None, 0.9, 0.9, (), ()),
    )
    values = {name: ({"q1": 0.5}, {"q1": 0.6}) for name in measures}
    return Comparison(dict(measures), {"lang": {"de": difference(-0.1, -0.05)}}, 0.75, 0.8, changes, values)


def test_the_side_on_whose_side_the_whole_interval_lies_is_better() -> None:
    assert SIDES.better(difference(0.01, 0.02)) == "snapshot 4"
    assert SIDES.better(difference(-0.02, -0.01)) == "snapshot 3"
    assert SIDES.better(difference(-0.01, 0.02)) == SIDES.better(difference(0.0, 0.02)) == NO_DIFFERENCE


def test_the_verdict_names_each_side_with_its_metrics() -> None:
    mixed = comparison(ndcg=difference(0.01, 0.02), recall=difference(-0.2, -0.1), mrr=difference(-1, 1))
    assert verdict(mixed, SIDES) == (
        "Snapshot 4 is better in ndcg; snapshot 3 is better in recall; no clear difference in mrr."
    )
    assert tone_of(mixed, SIDES) == "bad"
    assert tone_of(comparison(mrr=difference(-1, 1)), SIDES) == "plain"
    assert verdict(comparison(mrr=difference(-1, 1)), SIDES) == "No clear difference in mrr."
    assert "75%" in verdict(comparison(), SIDES)
    assert "nobody can say which is better" in verdict(comparison(), SIDES)


def test_the_page_has_heads_that_name_the_sides_and_records_what_it_quotes() -> None:
    runs = tuple(SetRun(n, f"id{n}", "space", "set", {}, 0) for n in (3, 4))
    queries = EvaluationSet("default", "judged", {"q1": "a <question>"}, {"q1": {"answer": 1}})
    compared = comparison(ndcg=difference(0.01, 0.02))
    page = comparison_page(compared, queries, (runs[0], runs[1]), collection="c", groups=(("grouped",),))
    html = render(page)
    assert '<th scope="col">snapshot 3</th><th scope="col">snapshot 4</th>' in html
    assert html.count('<th scope="col">better</th>') == 3
    assert "a &lt;question&gt;" in html
    record = QuoteRecord("c", frozenset(quote for section in page.sections for quote in section.quotes))
    for named in ("left", "came", "answer", "grouped"):
        assert record.has_forgotten({named}), named
    unjudged = replace(compared, measures={}, values={}, slices={})
    assert "<th" in render(comparison_page(unjudged, queries, (runs[0], runs[1]), collection="c"))
