from hypothesis import given
from hypothesis import strategies as st

from isospace.encoding.served.plan import FEWEST, estimate_tokens, plan_batches

COUNTS = st.lists(st.integers(0, 50), max_size=300)


@given(COUNTS, st.integers(1, 100), st.none() | st.integers(1, 200), st.integers(1, 64))
def test_every_text_is_sent_once_and_within_the_limits(
    tokens: list[int], most_texts: int, most_tokens: int | None, concurrency: int
) -> None:
    batches = plan_batches(tokens, most_texts=most_texts, most_tokens=most_tokens, concurrency=concurrency)
    assert [row for batch in batches for row in batch] == list(range(len(tokens)))
    for batch in batches:
        assert 1 <= len(batch) <= most_texts
        if most_tokens is not None and len(batch) > 1:
            assert sum(tokens[row] for row in batch) <= most_tokens


def test_a_call_is_divided_for_concurrency_down_to_a_smallest_request() -> None:
    sizes = [len(b) for b in plan_batches([1] * 1280, most_texts=2048, most_tokens=None, concurrency=8)]
    assert sizes == [160] * 8
    sizes = [len(b) for b in plan_batches([1] * 100, most_texts=2048, most_tokens=None, concurrency=64)]
    assert sizes == [FEWEST, FEWEST, FEWEST, 4]


def test_the_estimate_is_cautious() -> None:
    assert estimate_tokens("four words of text") >= 9
    assert estimate_tokens("слово") >= 5
    assert estimate_tokens("") == 2
    assert estimate_tokens("\ud800") >= 2
