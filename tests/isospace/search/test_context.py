from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isospace.search.context import context_of

TEXT = "One. Two. Three. Four."


def table(*spans: tuple[int, int, int]) -> pa.Table:
    """Make chunks: document, start, end."""
    rows = [
        {"document": document, "start": start, "end": end, "text": TEXT[start:end]} for document, start, end in spans
    ]
    return pa.Table.from_pylist(rows)


def test_the_chunks_around_one_are_one_text() -> None:
    chunks = table((0, 0, 4), (0, 4, 9), (0, 9, 16), (0, 16, 22), (1, 0, 9))
    assert context_of(chunks, 1, 1) == {"context": "One. Two. Three.", "context_start": 0, "context_end": 16}
    assert context_of(chunks, 0, 1)["context"] == "One. Two."
    assert context_of(chunks, 3, 9)["context"] == TEXT
    # Another document begins there.
    assert context_of(chunks, 4, 3) == {"context": "One. Two.", "context_start": 0, "context_end": 9}


def test_what_is_unknown_between_two_is_left_out() -> None:
    assert context_of(table((0, 0, 4), (0, 5, 9)), 0, 1)["context"] == "One. Two."
    assert context_of(table((0, 0, 4), (0, 11, 16)), 0, 1)["context"] == "One.\n\nhree."
    assert context_of(table((0, 0, 4), (0, 17, 22)), 0, 1)["context"] == "One. … Four."


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 22), st.integers(0, 22)), min_size=1, max_size=8), st.integers(0, 9))
def test_of_a_text_without_gaps_the_context_is_the_text(pairs: list[tuple[int, int]], neighbors: int) -> None:
    """With overlaps, even of chunks that lie in others."""
    spans, end = [], 0
    for back, length in pairs:
        start = max(0, end - back)
        spans.append((7, start, min(len(TEXT), start + length)))
        end = max(end, spans[-1][2])
    chunks = table(*spans)
    for row in range(len(spans)):
        near = spans[max(0, row - neighbors) : row + neighbors + 1]
        found = context_of(chunks, row, neighbors)
        if all(later[1] <= max(one[2] for one in near[: n + 1]) for n, later in enumerate(near[1:])):
            first = near[0][1]
            assert found["context"] == TEXT[first : found["context_end"]]
            assert found["context_start"] == first


@pytest.mark.parametrize("neighbors", [1, 2])
def test_the_hit_is_in_its_context(neighbors: int) -> None:
    chunks = table((0, 0, 9), (0, 5, 16), (0, 10, 22))
    for row in range(3):
        found, chunk = context_of(chunks, row, neighbors), chunks.slice(row, 1).to_pylist()[0]
        offset = chunk["start"] - found["context_start"]
        assert found["context"][offset : offset + len(chunk["text"])] == chunk["text"]
