"""Cut documents into chunks along their structure, measured in the encoder's own tokens.

A document is tokenized once, with offsets. Chunks are packed greedily up to the budget, each ending at
the strongest boundary in the second half of what fits: heading, paragraph, line, sentence, word. Every
character that is not white space lies in a chunk, and `text[start:end]` is the chunk.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from isospace.errors import ConfigError
from isospace.ingest.document import Document
from isospace.ingest.spec import ChunkingSpec
from isospace.storage.hashing import sha256

Offsets = Sequence[tuple[int, int]]
# From the strongest to the weakest. A heading starts a chunk; the others end one.
_BOUNDARIES = (
    re.compile(r"\n(?=#{1,6}[ \t])|\n(?=[^\n]+\n[=\-~]{3,}[ \t]*(?:\n|$))"),
    re.compile(r"\n[ \t]*\n\s*"),
    re.compile(r"\n"),
    re.compile(r"(?<=[.!?])[\"')\]]*\s+|(?<=[。！？])"),
    re.compile(r"\s+"),
)
_SENTENCE_LEVEL = 3
# A title may take this share of a chunk's tokens; what is longer is cut at a token.
_TITLE_SHARE = 4


@dataclass(frozen=True, slots=True)
class TokenCounter:
    """The two things chunking asks of a tokenizer.

    Attributes
    ----------
    offsets
        Character offsets of the tokens of texts, without special tokens.
    counts
        Token counts of texts as the encoder sees them as documents: with prompt and special tokens.
    limit
        Most tokens the encoder takes.
    windowed
        Whether it takes longer texts in windows, and nothing is cut.
    """

    offsets: Callable[[Sequence[str]], Sequence[Offsets]]
    counts: Callable[[Sequence[str]], list[int]]
    limit: int
    windowed: bool = False


@dataclass(frozen=True, slots=True)
class Chunk:
    """A span of a document that fits the encoder.

    Attributes
    ----------
    doc_id, start, end
        `document.text[start:end]` is `text`.
    prefix
        What is put before the text when it is encoded (the title, if the recipe says so).
    text
        The span.
    n_tokens
        Tokens of prompt, prefix, text and special tokens, before any truncation.
    """

    doc_id: str
    start: int
    end: int
    prefix: str
    text: str
    n_tokens: int

    @property
    def chunk_id(self) -> str:
        """The occurrence: document and span."""
        return f"{self.doc_id}:{self.start}-{self.end}"

    @property
    def encoded_text(self) -> str:
        """What the encoder is given, without the prompt."""
        return self.prefix + self.text

    @property
    def chunk_hash(self) -> str:
        """SHA-256 of `encoded_text`."""
        return sha256(self.encoded_text.encode())


def chunk_documents(documents: Sequence[Document], spec: ChunkingSpec, counter: TokenCounter) -> list[Chunk]:
    """Cut documents into chunks.

    Parameters
    ----------
    documents
        Any number; they are tokenized together.
    spec
        `recipe.chunking`.
    counter
        The encoder's tokenizer.

    Returns
    -------
    list of Chunk
        In the order of the documents and of their texts. Only with `kind: none` can `n_tokens` exceed
        the encoder's limit.

    Raises
    ------
    ConfigError
        If the chunk size leaves no room for text.
    """
    if spec.kind == "none":
        return _whole(documents, spec, counter)
    limit = min(spec.max_tokens or counter.limit, counter.limit)
    fixed = counter.counts([""])[0]
    budget = limit - fixed
    if budget < 4 or spec.overlap_tokens * 2 > budget:
        raise ConfigError(
            f"recipe.chunking.max_tokens = {limit}: {fixed} tokens are prompt and special tokens and "
            f"{spec.overlap_tokens} overlap, which leaves too little. Raise max_tokens (the encoder takes "
            f"{counter.limit}) or lower overlap_tokens."
        )
    chunks: list[Chunk] = []
    titles = _prefixes([d.title if spec.include_title else "" for d in documents], budget // _TITLE_SHARE, counter)
    for document, (prefix, title_tokens), offsets in zip(
        documents, titles, counter.offsets([d.text for d in documents]), strict=True
    ):
        overlap = min(spec.overlap_tokens, (budget - title_tokens) // 4)
        spans = pack_spans(document.text, offsets, budget - title_tokens, overlap)
        chunks += _fitted(document, prefix, spans, limit, counter)
    return chunks


def pack_spans(text: str, offsets: Offsets, budget: int, overlap: int) -> list[tuple[int, int]]:
    """Pack tokens into spans of at most `budget` tokens, ending at the strongest boundary there is.

    Parameters
    ----------
    text
        The document's text.
    offsets
        Of its tokens, ascending.
    budget
        Tokens a span may have.
    overlap
        Tokens, about, that a span repeats of the one before it.

    Returns
    -------
    list of (start, end)
        Character spans without surrounding white space. Together they hold every non-space character.
    """
    starts = [start for start, _ in offsets]
    ends = [end for _, end in offsets]
    if not starts:
        # A tokenizer can find nothing in a text of control characters; the text is still a chunk.
        return [_trim(text, 0, len(text))] if text.strip() else []
    cuts = [_token_positions(boundary, text, starts) for boundary in _BOUNDARIES]
    spans: list[tuple[int, int]] = []
    first, covered = 0, 0
    while True:
        last = len(starts)
        if last - first > budget:
            last = _best_cut(cuts, first, first + budget) or first + budget
        # What lies between tokens (or before the first) belongs to the chunk that follows it.
        begin = min(covered, starts[first]) if first == 0 or starts[first] >= covered else starts[first]
        end = len(text) if last == len(starts) else max(ends[last - 1], starts[last])
        if (span := _trim(text, begin, end))[0] < span[1]:
            spans.append(span)
        if last == len(starts):
            return spans
        covered = end
        first = _overlap_start(cuts, first, last, overlap)


def _token_positions(boundary: re.Pattern[str], text: str, starts: list[int]) -> list[int]:
    """Return the indices of the tokens that begin after a boundary."""
    return sorted({bisect_left(starts, match.end()) for match in boundary.finditer(text)})


def _best_cut(cuts: list[list[int]], first: int, limit: int) -> int | None:
    """Latest token index of the strongest boundary in the second half of (first, limit]."""
    half = first + max((limit - first) // 2, 1)
    for positions in cuts:
        found = bisect_right(positions, limit) - 1
        if found >= 0 and positions[found] >= half:
            return positions[found]
    words = cuts[-1]
    found = bisect_right(words, limit) - 1
    return words[found] if found >= 0 and words[found] > first else None


def _overlap_start(cuts: list[list[int]], first: int, last: int, overlap: int) -> int:
    """First sentence, else first word, of the last `overlap` tokens before `last`."""
    lowest = max(last - overlap, first + 1)
    for positions in (cuts[_SENTENCE_LEVEL], cuts[-1]):
        found = bisect_left(positions, lowest)
        if found < len(positions) and positions[found] < last:
            return positions[found]
    return last


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), end - (len(piece) - len(piece.rstrip()))


def _fitted(
    document: Document, prefix: str, spans: list[tuple[int, int]], limit: int, counter: TokenCounter
) -> list[Chunk]:
    """Make chunks, halving any that has more tokens alone than it had inside the document."""
    chunks: list[Chunk] = []
    counts = counter.counts([prefix + document.text[start:end] for start, end in spans])
    for (start, end), count in zip(spans, counts, strict=True):
        if count <= limit:
            chunks.append(Chunk(document.doc_id, start, end, prefix, document.text[start:end], count))
            continue
        if end - start < 2:
            raise ConfigError(
                f"recipe.chunking.max_tokens = {limit}: one character of {document.doc_id} needs {count} tokens. "
                "Raise it."
            )
        middle = document.text.rfind(" ", start + 1, (start + end) // 2 + 1) + 1 or (start + end) // 2
        halves = [_trim(document.text, start, middle), _trim(document.text, middle, end)]
        chunks += _fitted(document, prefix, [half for half in halves if half[0] < half[1]], limit, counter)
    return chunks


def _prefixes(titles: list[str], most: int, counter: TokenCounter) -> list[tuple[str, int]]:
    """Return what is put before each text, and its tokens."""
    offsets = counter.offsets(titles)
    prefixes = []
    for title, tokens in zip(titles, offsets, strict=True):
        kept = title if len(tokens) <= most else title[: tokens[most][0]].rstrip()
        prefixes.append((kept + " " if kept else "", min(len(tokens), most)))
    return prefixes


def _whole(documents: Sequence[Document], spec: ChunkingSpec, counter: TokenCounter) -> list[Chunk]:
    prefixes = [d.title + " " if spec.include_title and d.title else "" for d in documents]
    spans = [_trim(d.text, 0, len(d.text)) for d in documents]
    texts = [prefix + d.text[s:e] for prefix, d, (s, e) in zip(prefixes, documents, spans, strict=True)]
    return [
        Chunk(d.doc_id, start, end, prefix, d.text[start:end], count)
        for d, prefix, (start, end), count in zip(documents, prefixes, spans, counter.counts(texts), strict=True)
    ]
