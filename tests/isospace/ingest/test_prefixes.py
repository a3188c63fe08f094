"""Headings above a chunk are encoded with it, within its budget, and never instead of its text."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from isospace.encoding.encoder import SentenceEncoder
from isospace.ingest.chunking import Chunk, chunk_documents
from isospace.ingest.document import Document
from isospace.ingest.spec import ChunkingSpec

LINES = st.lists(
    st.one_of(
        st.text(alphabet="ab .é漢!-", max_size=60),
        st.builds(
            lambda level, text: f"\n{'#' * level} {text}\n", st.integers(1, 6), st.text(alphabet="cd >漢", max_size=50)
        ),
    ),
    max_size=12,
)
BODY = "one two three four five six seven eight nine ten. " * 3


def chunks_of(encoder: SentenceEncoder, text: str, title: str = "", **spec: object) -> list[Chunk]:
    document = Document("d", "u", title, text, {"format": "markdown"})
    given = {"max_tokens": 40, "overlap_tokens": 4, "include_headings": True, **spec}
    return chunk_documents([document], ChunkingSpec.model_validate(given), encoder.counter())


@given(LINES, st.text(alphabet="ti ", max_size=40), st.integers(14, 48))
@settings(deadline=None, max_examples=80)
def test_chunks_with_headings_fit_and_lose_no_text(
    tiny_encoder: SentenceEncoder, lines: list[str], title: str, limit: int
) -> None:
    text = "\n".join(lines)
    chunks = chunks_of(tiny_encoder, text, title.strip(), max_tokens=limit)
    covered = [False] * len(text)
    for chunk in chunks:
        covered[chunk.start : chunk.end] = [True] * (chunk.end - chunk.start)
        assert chunk.text == text[chunk.start : chunk.end]
    assert not "".join(one for one, inside in zip(text, covered, strict=True) if not inside).strip()
    tokens = tiny_encoder.tokenize([c.encoded_text for c in chunks], "document")
    assert [len(ids) for ids in tokens] == [c.n_tokens for c in chunks]
    assert all(c.n_tokens <= limit for c in chunks)


def test_headings_that_a_chunk_contains_are_not_repeated(tiny_encoder: SentenceEncoder) -> None:
    chunks = chunks_of(tiny_encoder, f"# ab\n\n## cd\n\n{BODY}", overlap_tokens=0)
    assert len(chunks) > 1
    assert [chunk.prefix for chunk in chunks] == ["", *["ab > cd "] * (len(chunks) - 1)]
    assert {chunk.section.path for chunk in chunks[1:] if chunk.section} == {("ab", "cd")}


def test_headings_count_when_chunks_are_packed(tiny_encoder: SentenceEncoder) -> None:
    """Otherwise they are too long, and are cut in half."""
    chunks = chunks_of(tiny_encoder, "# ab cd ab cd\n\n" + "a " * 200, overlap_tokens=0)
    assert min(chunk.n_tokens for chunk in chunks[:-1]) >= 38


def test_without_the_option_the_prefix_is_the_title(tiny_encoder: SentenceEncoder) -> None:
    chunks = chunks_of(tiny_encoder, f"# ab\n\n{BODY}", "ti", include_headings=False)
    assert {chunk.prefix for chunk in chunks} == {"ti "}


def test_a_title_that_is_the_first_heading_stands_once(tiny_encoder: SentenceEncoder) -> None:
    text = f"# ab\n\n## cd\n\n{BODY}"
    assert chunks_of(tiny_encoder, text, "ab")[-1].prefix == "ab cd "
    assert chunks_of(tiny_encoder, text, "ab", include_title=False)[-1].prefix == "ab > cd "
    assert chunks_of(tiny_encoder, text, "other")[-1].prefix == "other ab > cd "


def test_long_headings_take_a_fourth_of_the_tokens_the_outermost_are_left_out_first(
    tiny_encoder: SentenceEncoder,
) -> None:
    fixed = len(tiny_encoder.tokenize([""], "document")[0])
    limit = (40 - fixed) // 4
    for text in (f"# {'long ' * 12}\n\n## cd\n\n{BODY}", f"# ab\n\n## {'very ' * 30}\n\n{BODY}"):
        prefix = chunks_of(tiny_encoder, text, overlap_tokens=0)[-1].prefix
        assert 0 < len(tiny_encoder.tokenize([prefix], "document")[0]) - fixed <= limit
        assert prefix == "cd " or prefix.startswith("very very")


def test_a_whole_document_has_no_headings_above_it(tiny_encoder: SentenceEncoder) -> None:
    (chunk,) = chunks_of(tiny_encoder, f"# ab\n\n{BODY}", kind="none")
    assert chunk.prefix == ""
    assert chunk.section is not None
    assert chunk.section.path == ("ab",)


def test_half_of_a_chunk_that_was_too_long_has_its_own_section(tiny_encoder: SentenceEncoder) -> None:
    # In the middle of a word the tokenizer finds fewer tokens than in a chunk of its own.
    for chunk in chunks_of(tiny_encoder, "漢é!" * 60 + f"\n\n# ab\n\n{BODY}"):
        assert chunk.section is not None
        assert (chunk.section.path == ("ab",)) == (chunk.end > 182)
