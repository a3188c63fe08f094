import pytest

from isospace.errors import ConfigError
from isospace.evaluation.gate.rules import Rule, parse_rule
from isospace.evaluation.gate.spec import GateSpec
from isospace.pipeline.config import PipelineConfig


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "ndcg@10 not worse than production by more than 0.01 at p < 0.05",
            ("measure", "nDCG@10", "not_worse", 0.01, 0.05, None),
        ),
        ("recall@100 not worse than production by more than .5", None),
        ("map not worse than production by more than 0.02", ("measure", "AP", "not_worse", 0.02, None, None)),
        ("recall@100 >= 0.9", ("measure", "R@100", "at_least", 0.9, None, None)),
        ("ndcg@10 for lang=de >= 0.5", ("measure", "nDCG@10", "at_least", 0.5, None, ("lang", "de"))),
        (
            "ndcg@10 for words=6 to 10 not worse than production by more than 0.1 at p<0.05",
            ("measure", "nDCG@10", "not_worse", 0.1, 0.05, ("words", "6 to 10")),
        ),
        ("recall@10 of exact >= 0.99", ("approximate", "10", "at_least", 0.99, None, None)),
        ("Recall@100 of exact>=.9", None),
        ("norms within 1e-6", ("norms", "norms", "at_most", 1e-6, None, None)),
        ("mean  cosine <= 0.6", ("geometry", "mean cosine", "at_most", 0.6, None, None)),
        ("overlap@10 >= 0.8", ("agreement", "overlap@10", "at_least", 0.8, None, None)),
        ("latency p99 <= 1.3 x", ("latency", "latency p99", "ratio", 1.3, None, None)),
    ],
)
def test_rules_are_read_as_people_write_them(text, expected):
    if expected is None:
        with pytest.raises(ConfigError, match="cannot be parsed"):
            parse_rule(text)
        return
    found = parse_rule(text)
    assert (found.subject, found.name, found.sense, found.value, found.p, found.group) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "cannot be parsed"),
        ("be good", "cannot be parsed"),
        ("ndgc@10 >= 0.5", "metric 'ndgc@10'"),
        ("latency p99 <= 5", "expected a ratio"),
        ("recall@10 <= 1.3 x", "can be a ratio"),
        ("latency p99 >= 1.3 x", "can be a ratio"),
        ("ndcg@10 >= high", "cannot be parsed"),
        ("recall@10 of exact <= 0.99", "metric"),
    ],
)
def test_a_rule_that_cannot_be_read_is_an_error_of_the_configuration(text, says):
    with pytest.raises(ConfigError, match=says):
        parse_rule(text)
    with pytest.raises(ValueError, match=r"gate rule|metric"):
        GateSpec(rules=(text,))


def test_which_rules_compare():
    relative = [
        text
        for text in ("recall@100 >= 0.9", "latency p50 <= 2 x", "rbo >= 0.5", "norms within 1")
        if parse_rule(text).is_relative
    ]
    assert relative == ["latency p50 <= 2 x", "rbo >= 0.5"]
    assert isinstance(parse_rule("rbo >= 0.5"), Rule)


def test_what_the_gate_judges_is_not_where_it_leads(tmp_path):
    given = {
        "recipe": {"encoder": {"model": "m"}, "gate": {"rules": ["norms within 1e-6"]}},
        "runtime": {"store": str(tmp_path), "collection": "c", "source": "s", "promote_to": "candidate"},
    }
    with pytest.raises(ValueError, match="alias of the snapshot that the gate judges"):
        PipelineConfig.model_validate(given)


@pytest.mark.parametrize("text", ["norms within 1e999", "recall@10 <= 1e400", "latency p99 <= 9e333 x"])
def test_a_bound_that_everything_meets_is_refused(text):
    with pytest.raises(ConfigError, match="the bound is inf; expected a finite number"):
        parse_rule(text)
