"""Split documents into chunks along their structure, measured in the encoder's own tokens.

A document is tokenized once, with offsets; the tokens of its chunks are part of these where they are the same
(`isospace.ingest.chunk_tokens`). Chunks are packed greedily up to the token budget. Each ends at the strongest boundary
in the second half of the text that fits: heading, paragraph, line, sentence, word. Every character that is not white
space is in a chunk, and `text[start:end]` is the chunk.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from isospace.errors import ConfigError
from isospace.ingest.chunk_tokens import Piece, count_pieces, count_texts, read_texts
from isospace.ingest.document import Document
from isospace.ingest.find_headings import find_headings
from isospace.ingest.headings import Outline, Section
from isospace.ingest.prefixes import Prefixes, encoded_title, prefixes_of
from isospace.ingest.spec import ChunkingSpec
from isospace.ingest.token_counter import ChunkTokens, TextTokens
from isospace.ingest.token_counter import Offsets as Offsets
from isospace.ingest.token_counter import TokenCounter as TokenCounter
from isospace.storage.hashing import sha256

# From the strongest to the weakest. A chunk starts at a heading or behind two empty lines, which precede the headings
# of HTML, and ends at any other boundary. The weakest is white space, which is found without an expression.
_BOUNDARIES = (
    re.compile(r"\n(?=#{1,6}[ \t])|\n(?=[^\n]+\n[=\-~]{3,}[ \t]*(?:\n|$))|\n[ \t]*\n[ \t]*\n\s*"),
    re.compile(r"\n[ \t]*\n\s*"),
    re.compile(r"\n"),
    re.compile(r"(?<=[.!?])[\"')\]]*\s+|(?<=[。！？])"),
)
_SENTENCE_LEVEL = 3
# What is white space for Python's regular expressions; nothing behind U+3000 is.
_IS_SPACE = np.array([chr(code).isspace() for code in range(0x3002)])
_BLANK = re.compile(r"\s*")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A span of a document that fits the encoder.

    Attributes
    ----------
    start, end
        `document.text[start:end]` is `text`.
    prefix
        Prepended to the text when it is encoded (the title, and the headings above it, if the recipe says so).
    n_tokens
        Tokens of prompt, prefix, text, and special tokens, before any truncation.
    section
        The innermost section of its first character that is not in the chunk before it; None if the document has no
        headings.
    tokens
        Its tokens as the encoder receives them; None if the counter does not know them.
    """

    doc_id: str
    start: int
    end: int
    prefix: str
    text: str
    n_tokens: int
    section: Section | None = None
    tokens: ChunkTokens | None = field(default=None, compare=False, repr=False)

    @property
    def chunk_id(self) -> str:
        """Document ID and span."""
        return f"{self.doc_id}:{self.start}-{self.end}"

    @property
    def encoded_text(self) -> str:
        """Prefix and text: the encoder's input, without the prompt."""
        return self.prefix + self.text

    @property
    def chunk_hash(self) -> str:
        """SHA-256 of `encoded_text`."""
        return sha256(self.encoded_text.encode())


def chunk_documents(documents: Sequence[Document], spec: ChunkingSpec, counter: TokenCounter) -> list[Chunk]:
    """Split documents into chunks, in the order of the documents and of their texts.

    The documents are tokenized together. Only with `kind: none` can `n_tokens` exceed the encoder's limit.

    Raises
    ------
    ConfigError
        If the chunk size leaves no room for text.
    """
    if spec.kind == "none":
        return _whole_documents(documents, spec, counter)
    limit = min(spec.max_tokens or counter.limit, counter.limit)
    fixed = counter.counts([""])[0]
    budget = limit - fixed
    if budget < 4 or spec.overlap_tokens * 2 > budget:
        raise ConfigError(
            f"recipe.chunking.max_tokens = {limit}: {fixed} tokens for prompt and special tokens and "
            f"{spec.overlap_tokens} for the overlap leave too few for text. Raise max_tokens (the encoder accepts "
            f"{counter.limit}) or lower overlap_tokens."
        )
    outlines = [_outline(document) for document in documents]
    prefixes = prefixes_of(documents, outlines, spec, budget, counter)
    cuts: list[_Cut] = []
    for document, outline, prefix, tokens in zip(
        documents, outlines, prefixes, read_texts([d.text for d in documents], counter), strict=True
    ):
        overlap = min(spec.overlap_tokens, (budget - prefix.most_tokens) // 4)
        spans = _pack(document.text, tokens.offsets, _room(budget, prefix), overlap)
        origin = _Origin(document, outline, prefix, tokens, [start for start, _ in tokens.offsets])
        cuts += [_Cut(origin, start, end, new) for start, end, new in _with_new(document.text, spans)]
    return _make_chunks(cuts, limit, counter)


def pack_spans(text: str, offsets: Offsets, budget: int, overlap: int) -> list[tuple[int, int]]:
    """Pack tokens into spans of at most `budget` tokens that end at the strongest boundary available.

    Parameters
    ----------
    text
        The document's text.
    offsets
        Character offsets of its tokens, ascending.
    budget
        Maximum number of tokens of a span.
    overlap
        About how many tokens a span repeats from the previous one.

    Returns
    -------
    list of (start, end)
        Character spans without surrounding white space. Together they contain every non-space character.
    """
    return _pack(text, offsets, lambda first, new: budget, overlap)


def _pack(text: str, offsets: Offsets, room: Callable[[int, int], int], overlap: int) -> list[tuple[int, int]]:
    """Pack tokens into spans; `room` says how many fit, by the first character, and the first that is no overlap."""
    starts = [start for start, _ in offsets]
    ends = [end for _, end in offsets]
    if not starts:
        # A tokenizer may find no tokens in a text of control characters. The text is still a chunk.
        return [_trim(text, 0, len(text))] if text.strip() else []
    cuts = [*(_token_positions(boundary, text, starts) for boundary in _BOUNDARIES), _word_positions(text, starts)]
    spans: list[tuple[int, int]] = []
    first, covered = 0, 0
    while True:
        last = len(starts)
        # Characters between tokens, or before the first, belong to the chunk that follows them.
        begin = min(covered, starts[first]) if first == 0 or starts[first] >= covered else starts[first]
        budget = room(begin, _not_blank(text, max(begin, covered)))
        if last - first > budget:
            last = _best_cut(cuts, first, first + budget) or first + budget
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


def _word_positions(text: str, starts: list[int]) -> list[int]:
    r"""Return the indices of the tokens that begin after white space, as `_token_positions` does with r"\s+"."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    is_space = np.append(_IS_SPACE[np.minimum(codes, len(_IS_SPACE) - 1)], False)
    ends = np.flatnonzero(is_space[:-1] & ~is_space[1:]) + 1
    found = np.searchsorted(np.array(starts), ends)
    positions: list[int] = found[np.diff(found, prepend=-1) > 0].tolist()
    return positions


def _best_cut(cuts: list[list[int]], first: int, limit: int) -> int | None:
    """Return the last token index of the strongest boundary in the second half of (first, limit]."""
    half = first + max((limit - first) // 2, 1)
    for positions in cuts:
        index = bisect_right(positions, limit) - 1
        if index >= 0 and positions[index] >= half:
            return positions[index]
    words = cuts[-1]
    index = bisect_right(words, limit) - 1
    return words[index] if index >= 0 and words[index] > first else None


def _overlap_start(cuts: list[list[int]], first: int, last: int, overlap: int) -> int:
    """Return where the first sentence (or else word) begins in the last `overlap` tokens before `last`."""
    lowest = max(last - overlap, first + 1)
    for positions in (cuts[_SENTENCE_LEVEL], cuts[-1]):
        index = bisect_left(positions, lowest)
        if index < len(positions) and positions[index] < last:
            return positions[index]
    return last


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), end - (len(piece) - len(piece.rstrip()))


def _not_blank(text: str, position: int) -> int:
    """Return the place of the first character that is not white space."""
    match = _BLANK.match(text, position)
    return match.end() if match else position


def _with_new(text: str, spans: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    """Yield start and end of each span, and where it begins to say what the one before does not."""
    last = 0
    for start, end in spans:
        new = _not_blank(text, max(start, last))
        yield start, end, new if new < end else start
        last = max(last, end)


@dataclass(frozen=True, eq=False, slots=True)
class _Origin:
    """What the chunks of a document are made from; `starts` is where each of its tokens begins."""

    document: Document
    outline: Outline
    prefixes: Prefixes
    tokens: TextTokens
    starts: Sequence[int]


@dataclass(frozen=True, eq=False, slots=True)
class _Cut:
    """A span of a document, and where it begins to say what the one before does not."""

    origin: _Origin
    start: int
    end: int
    new: int

    def piece(self) -> Piece:
        """Return the span with its prefix."""
        origin = self.origin
        prefix = origin.prefixes.at(self.start, self.new)[0]
        return Piece(prefix, origin.document.text, self.start, self.end, origin.tokens, origin.starts)


def _make_chunks(cuts: Sequence[_Cut], limit: int, counter: TokenCounter) -> list[Chunk]:
    """Build the chunks; split any that has more tokens on its own than it had inside the document."""
    pieces = [cut.piece() for cut in cuts]
    chunks: list[Chunk] = []
    for cut, piece, (count, tokens) in zip(cuts, pieces, count_pieces(pieces, counter), strict=True):
        if count > limit:
            chunks += _make_chunks(_halves(cut, limit, count), limit, counter)
            continue
        document, section = cut.origin.document, cut.origin.outline.at(cut.new)
        text = document.text[cut.start : cut.end]
        chunks.append(Chunk(document.doc_id, cut.start, cut.end, piece.prefix, text, count, section, tokens))
    return chunks


def _halves(cut: _Cut, limit: int, count: int) -> list[_Cut]:
    """Split a span in two, between words if there are several."""
    start, end, document = cut.start, cut.end, cut.origin.document
    if end - start < 2:
        raise ConfigError(
            f"recipe.chunking.max_tokens = {limit}: one character of document {document.doc_id} needs {count} "
            "tokens. Raise max_tokens."
        )
    middle = document.text.rfind(" ", start + 1, (start + end) // 2 + 1) + 1 or (start + end) // 2
    halves = [_trim(document.text, start, middle), _trim(document.text, middle, end)]
    return [
        replace(cut, start=first, end=last, new=cut.new if first <= cut.new < last else first)
        for first, last in halves
        if first < last
    ]


def _room(budget: int, prefixes: Prefixes) -> Callable[[int, int], int]:
    return lambda first, new: budget - prefixes.at(first, new)[1]


def _outline(document: Document) -> Outline:
    return Outline(find_headings(document), len(document.text))


def _whole_documents(documents: Sequence[Document], spec: ChunkingSpec, counter: TokenCounter) -> list[Chunk]:
    # Headings above a whole document are none.
    prefixes = [title + " " if (title := encoded_title(d, spec)) else "" for d in documents]
    spans = [_trim(d.text, 0, len(d.text)) for d in documents]
    texts = [prefix + d.text[s:e] for prefix, d, (s, e) in zip(prefixes, documents, spans, strict=True)]
    return [
        Chunk(d.doc_id, start, end, prefix, d.text[start:end], count, _outline(d).at(start), tokens)
        for d, prefix, (start, end), (count, tokens) in zip(
            documents, prefixes, spans, count_texts(texts, counter), strict=True
        )
    ]
