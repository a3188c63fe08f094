from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isospace.search.context import context_of

TEXT = "One. Two. Three. Four."


def sections(*rows: tuple[int, int, int, int | None, int | None]) -> pa.Table:
    """Make chunks: document, start, end, and the span of the section."""
    document, start, end, first, last = zip(*rows, strict=True)
    return pa.table(
        {
            "document": pa.array(document, pa.int32()),
            "start": pa.array(start, pa.int64()),
            "end": pa.array(end, pa.int64()),
            "text": [TEXT[one:other] for one, other in zip(start, end, strict=True)],
            "section_start": pa.array(first, pa.int64()),
            "section_end": pa.array(last, pa.int64()),
        }
    )


def table(*spans: tuple[int, int, int]) -> pa.Table:
    """Make chunks: document, start, end."""
    return sections(*((*span, None, None) for span in spans))


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


def test_a_section_is_cut_out_of_the_chunks_that_share_it() -> None:
    # One is a section, Two and Three are another, and chunks overlap and reach over its ends.
    chunks = sections((0, 0, 7, 0, 5), (0, 3, 12, 5, 17), (0, 9, 20, 5, 17), (0, 17, 22, 17, 22), (1, 0, 9, None, None))
    assert context_of(chunks, 0, "section") == {"context": "One. Tw", "context_start": 0, "context_end": 7}
    # All of the hit is in it.
    assert context_of(chunks, 1, "section") == {"context": ". Two. Three.", "context_start": 3, "context_end": 16}
    assert context_of(chunks, 2, "section") == {"context": "Two. Three. Fou", "context_start": 5, "context_end": 20}
    assert context_of(chunks, 3, "section")["context"] == "Four."
    # A document without headings is one section.
    assert context_of(chunks, 4, "section") == {"context": "One. Two.", "context_start": 0, "context_end": 9}


def test_a_long_section_is_returned_in_whole_chunks_around_the_hit() -> None:
    chunks = sections(*((0, start, start + 5, 0, 22) for start in (0, 5, 10, 15)))
    assert context_of(chunks, 1, "section", most=15)["context"] == TEXT[0:15]
    assert context_of(chunks, 1, "section", most=14)["context"] == TEXT[5:15]
    assert context_of(chunks, 0, "section", most=14)["context"] == TEXT[0:10].rstrip()
    # The hit itself is there, however long it is.
    assert context_of(chunks, 2, "section", most=1)["context"] == TEXT[10:15]
