from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isospace.encoding.encoder import SentenceEncoder
from isospace.errors import ConfigError
from isospace.ingest.chunking import TokenCounter, chunk_documents, pack_spans
from isospace.ingest.document import Document
from isospace.ingest.spec import ChunkingSpec

TEXT = st.text(alphabet=st.sampled_from("ab .\n#é漢😀!?-="), max_size=400)


def offsets_of(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]


def uncovered(text: str, spans: list[tuple[int, int]]) -> str:
    covered = [False] * len(text)
    for start, end in spans:
        covered[start:end] = [True] * (end - start)
    return "".join(c for c, inside in zip(text, covered, strict=True) if not inside and not c.isspace())


@given(TEXT, st.integers(2, 30), st.integers(0, 10))
@settings(deadline=None)
def test_no_text_is_lost_and_no_span_exceeds_the_budget(text: str, budget: int, overlap: int) -> None:
    offsets = offsets_of(text)
    spans = pack_spans(text, offsets, budget, min(overlap, budget // 2))
    assert uncovered(text, spans) == ""
    for start, end in spans:
        assert text[start:end].strip() == text[start:end] != ""
        assert sum(start <= s < end for s, _ in offsets) <= budget
    assert [start for start, _ in spans] == sorted(start for start, _ in spans)


@given(
    st.lists(TEXT, min_size=1, max_size=4), st.text(alphabet="tile ", max_size=60), st.integers(14, 48), st.booleans()
)
@settings(deadline=None, max_examples=60)
def test_chunks_of_the_real_tokenizer_fit_and_cover(
    tiny_encoder: SentenceEncoder, texts: list[str], title: str, limit: int, include: bool
) -> None:
    documents = [Document(f"d{n}", "u", title.strip(), text) for n, text in enumerate(texts)]
    spec = ChunkingSpec(max_tokens=limit, overlap_tokens=4, include_title=include)
    chunks = chunk_documents(documents, spec, tiny_encoder.counter())
    for document in documents:
        own = [chunk for chunk in chunks if chunk.doc_id == document.doc_id]
        assert uncovered(document.text, [(c.start, c.end) for c in own]) == ""
        assert all(document.text[c.start : c.end] == c.text for c in own)
    tokens = tiny_encoder.tokenize([c.encoded_text for c in chunks], "document")
    assert [len(ids) for ids in tokens] == [c.n_tokens for c in chunks]
    assert all(c.n_tokens <= limit for c in chunks)


def test_chunks_end_at_the_strongest_boundary() -> None:
    text = "One two three. Four five.\n\nSix seven eight nine. Ten eleven twelve."
    spans = pack_spans(text, offsets_of(text), 8, 0)
    assert [text[s:e] for s, e in spans] == ["One two three. Four five.", "Six seven eight nine.", "Ten eleven twelve."]


def test_a_heading_starts_a_chunk() -> None:
    text = "intro words here\nand more of them\n# Heading\nbody of it all and so on"
    spans = pack_spans(text, offsets_of(text), 11, 0)
    assert text[spans[1][0] :].startswith("# Heading")


def test_overlap_repeats_whole_sentences() -> None:
    text = "Aa bb cc dd. Ee ff gg. Hh ii jj kk ll. Mm nn oo."
    spans = pack_spans(text, offsets_of(text), 11, 5)
    assert text[spans[1][0] :].startswith("Ee ff gg.")


def test_kind_none_is_one_chunk_and_counts_what_the_encoder_would_cut(tiny_encoder: SentenceEncoder) -> None:
    document = Document("d", "u", "title", "word " * 100)
    (chunk,) = chunk_documents([document], ChunkingSpec(kind="none"), tiny_encoder.counter())
    assert chunk.text == document.text.strip()
    assert chunk.n_tokens > tiny_encoder.record.max_tokens


def test_a_chunk_size_without_room_is_refused() -> None:
    counter = TokenCounter(lambda texts: [[] for _ in texts], lambda texts: [6 for _ in texts], 48)
    with pytest.raises(ConfigError, match=r"max_tokens = 8"):
        chunk_documents([], ChunkingSpec(max_tokens=8, overlap_tokens=0), counter)


def test_text_of_control_characters_is_still_a_chunk(tiny_encoder: SentenceEncoder) -> None:
    chunks = chunk_documents(
        [Document("d", "u", "", "\x01\x02")], ChunkingSpec(overlap_tokens=4), tiny_encoder.counter()
    )
    assert [c.text for c in chunks] == ["\x01\x02"]
