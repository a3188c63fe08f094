import math

import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from isospace.errors import ConfigError
from isospace.evaluation.metrics import MEASURES, measure, measure_name, per_query
from isospace.evaluation.rank_agreement import agree, rank_biased_overlap, top_overlap

DOCUMENTS = [f"d{n}" for n in range(30)]
TREC = {"nDCG@10": "ndcg_cut_10", "R@10": "recall_10", "R@100": "recall_100", "AP": "map", "P@5": "P_5"}
# Few different scores: ties are the rule.
runs = st.dictionaries(
    st.sampled_from([f"q{n}" for n in range(6)]),
    st.dictionaries(st.sampled_from(DOCUMENTS), st.integers(0, 5).map(float), min_size=1, max_size=25),
    min_size=1,
)
judgements = st.dictionaries(
    st.sampled_from([f"q{n}" for n in range(6)]),
    st.dictionaries(st.sampled_from(DOCUMENTS), st.integers(0, 3), min_size=1, max_size=6),
    min_size=1,
)


@settings(max_examples=60, deadline=None)
@given(runs, judgements)
def test_measures_are_those_of_trec_eval_to_the_last_digit(run, judged):
    expected = pytrec_eval.RelevanceEvaluator(judged, set(TREC.values())).evaluate(run)
    found = per_query(run, judged, list(TREC))
    assert found.keys() == TREC.keys()
    for name, trec in TREC.items():
        assert found[name].keys() == judged.keys()
        for query in judged:
            assert found[name][query] == pytest.approx(expected.get(query, {}).get(trec, 0.0), abs=1e-12)


def test_a_judged_query_that_found_nothing_counts_as_zero():
    found = measure({"a": {"d1": 1.0}}, {"a": {"d1": 1}, "b": {"d2": 1}}, ["nDCG@10", "RR@10"])
    assert found == {"nDCG@10": 0.5, "RR@10": 0.5}


@pytest.mark.parametrize(
    ("written", "name"),
    [("ndcg@10", "nDCG@10"), ("Recall@100", "R@100"), ("mrr@10", "RR@10"), ("map", "AP"), ("precision@5", "P@5")],
)
def test_measures_are_named_as_people_write_them(written, name):
    assert measure_name(written) == name


@pytest.mark.parametrize("written", ["ndgc@10", "recall", "ndcg@0", "", "ndcg@10@10"])
def test_unknown_measures_are_refused(written):
    with pytest.raises(ConfigError, match="expected ndcg"):
        measure_name(written)


def test_the_default_measures_are_known_to_the_library():
    assert measure({"a": {"d1": 1.0}}, {"a": {"d1": 1}}) == dict.fromkeys(MEASURES, 1.0)


def by_definition(one, other, p, depth=4000):
    """Two rankings without end: what is not known goes on agreeing as it did (Webber et al., section 4.4)."""
    k = len(one)
    shared = [len(set(one[:d]) & set(other[:d])) / d for d in range(1, k + 1)]
    return (1 - p) * sum(p ** (d - 1) * (shared[d - 1] if d <= k else shared[-1]) for d in range(1, depth))


@settings(max_examples=80, deadline=None)
@given(st.permutations(DOCUMENTS[:12]), st.permutations(DOCUMENTS[4:16]), st.integers(1, 12))
def test_rank_biased_overlap_of_equally_long_rankings_is_that_of_its_definition(one, other, depth):
    one, other = one[:depth], other[:depth]
    expected = by_definition(one, other, 0.9)
    assert rank_biased_overlap(one, other) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=80, deadline=None)
@given(st.permutations(DOCUMENTS[:12]), st.permutations(DOCUMENTS[:14]), st.integers(0, 12), st.integers(0, 14))
def test_rank_biased_overlap_is_symmetric_and_a_share(one, other, m, n):
    found = rank_biased_overlap(one[:m], other[:n])
    assert found == pytest.approx(rank_biased_overlap(other[:n], one[:m]))
    assert -1e-12 <= found <= 1 + 1e-12
    assert rank_biased_overlap(one[:m], one[:m]) == pytest.approx(1.0)


def test_rank_biased_overlap_of_unequal_lengths_by_hand():
    # S = a b, L = a c b: shared 1, 1, 2; s = 2, l = 3; equation 32 with p = .9.
    p = 0.9
    known = 1 * p + 1 / 2 * p**2 + 2 / 3 * p**3
    beyond = 1 * (3 - 2) / (2 * 3) * p**3
    expected = (1 - p) / p * (known + beyond) + ((2 - 1) / 3 + 1 / 2) * p**3
    assert rank_biased_overlap(["a", "b"], ["a", "c", "b"]) == pytest.approx(expected)
    assert not math.isclose(expected, 1.0)


def test_overlap_and_who_left_and_came():
    found = agree({"q": ["a", "b", "c"]}, {"q": ["b", "d", "a"], "other": ["x"]}, k=2)
    assert found["q"].overlap == 0.5
    assert (found["q"].left, found["q"].came) == (("a",), ("d",))
    assert found.keys() == {"q"}
    assert top_overlap([], [], 10) == 1.0
    assert top_overlap(["a"], ["a"], 10) == 1.0
