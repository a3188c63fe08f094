"""Split texts into the words of the lexical index, by rules that are versioned: an index names those it was built with.

Version 2 compares texts by their compatibility caseless form (Unicode, section 3.13, definition D147), which is used
for nothing else: texts are embedded and shown as they are. A word is a run of letters, marks, and digits. Scripts
without spaces between words are split into pairs of characters, as in Lucene's CJKBigramFilter; an index also holds
the single characters, for queries of one.
"""

from __future__ import annotations

import functools
import importlib.util
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from isospace.errors import QueryError, missing_package
from isospace.search.spec import LexicalSpec
from isospace.transform.affine import Role

# Hangul has spaces, but particles are written together with their nouns.
_SPACELESS = (
    "Han", "Hiragana", "Katakana", "Bopomofo", "Hangul", "Thai", "Lao", "Khmer", "Myanmar", "Javanese", "Balinese",
    "Tai_Le", "New_Tai_Lue", "Tai_Tham", "Tai_Viet", "Ahom",
)  # fmt: skip
_PATTERN_1 = r"(?u)\b\w+\b"
_ASCII_WORD = re.compile(r"\w+", re.ASCII)
# NFKC would make 11/2 of 1½.
_FRACTIONS = {code: f" {chr(code)}" for code in (*range(0xBC, 0xBF), *range(0x2150, 0x2160), 0x2189)}


class Word(NamedTuple):
    """A word as the index holds it, and where it stands in the text."""

    text: str
    start: int
    end: int


def words_of(texts: Iterable[str], spec: LexicalSpec, role: Role) -> list[list[str]]:
    """Return the words of each text, without stopwords, stemmed.

    Queries differ from documents in one point: a run of several characters without spaces is looked up by its pairs
    alone.
    """
    stopwords, stems = _stopwords(spec), _Stems(spec)
    split = _splitter(spec, role)
    normal = _normal_form(spec)
    return [[stems[word.text] for word in split(normal(text)) if word.text not in stopwords] for text in texts]


def missing_for_words(spec: LexicalSpec) -> str | None:
    """Return a package that finding words needs and that is not installed; None if all are."""
    needed = {"regex": spec.tokenizer > 1, "Stemmer": spec.stemmer is not None, "bm25s": spec.stopwords is not None}
    return next((name for name, is_used in needed.items() if is_used and importlib.util.find_spec(name) is None), None)


def find_words(text: str, spec: LexicalSpec) -> list[Word]:
    """Return the words of a document, stopwords included, stemmed, with their places in the text as it is."""
    stems, places = _Stems(spec), _Places(text, _normal_form(spec))
    return [
        Word(stems[word.text], places.starts[word.start], places.ends[word.end - 1])
        for word in _splitter(spec, "document")(places.normal)
    ]


def folded(text: str) -> str:
    """Return a text in the form in which words are compared.

    Equal are composed and decomposed letters, upper and lower case, ligatures, full-width and half-width forms, and
    words with and without invisible characters, such as soft hyphens.
    """
    if text.isascii():
        return text.lower()
    apart = _expression(r"\p{Default_Ignorable_Code_Point}|ـ").sub("", text).translate(_FRACTIONS)
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", apart).casefold())
    # Case folding keeps the dot of İ as a mark. NFKC makes ignorable fillers of Hangul that were none before.
    plain = _expression(r"\p{Default_Ignorable_Code_Point}|(?<=i)\u0307").sub("", plain)
    return unicodedata.normalize("NFKC", plain)


class _Stems(dict[str, str]):
    """The stem of each word that was looked up."""

    def __init__(self, spec: LexicalSpec) -> None:
        self._stemmer = None if spec.stemmer is None else _snowball(spec.stemmer)
        self._folds_dotless = spec.tokenizer > 1

    def __missing__(self, word: str) -> str:
        stem = word if self._stemmer is None else str(self._stemmer.stemWord(word))
        # After stemming: Turkish endings differ in this letter. Its upper case is I, as is that of i.
        self[word] = stem = stem.replace("ı", "i") if self._folds_dotless else stem
        return stem


class _Places:
    """A text in normal form, with the place that each of its characters had."""

    def __init__(self, text: str, normal: Callable[[str], str]) -> None:
        parts, self.starts, self.ends = [], [], []
        # To pair the letters of flags, \X would look back to the first of a row for each of them. They are no words.
        clusters = r"\p{Regional_Indicator}|\X"
        units = text if text.isascii() else [match.group() for match in _expression(clusters).finditer(text)]
        place = 0
        for unit in units:
            parts.append(normal(unit))
            self.starts += [place] * len(parts[-1])
            place += len(unit)
            self.ends += [place] * len(parts[-1])
        self.normal = "".join(parts)


def _normal_form(spec: LexicalSpec) -> Callable[[str], str]:
    return str.lower if spec.tokenizer == 1 else folded


def _splitter(spec: LexicalSpec, role: Role) -> Callable[[str], Iterator[Word]]:
    if spec.tokenizer == 1 or spec.pattern is not None:
        return functools.partial(_split_by_pattern, re.compile(spec.pattern or _PATTERN_1))
    return functools.partial(_split, role)


def _split_by_pattern(pattern: re.Pattern[str], text: str) -> Iterator[Word]:
    # As re.findall, by which indexes of version 1 were built: a group in the pattern is the word.
    group = min(pattern.groups, 1)
    return (Word(match.group(group), *match.span(group)) for match in pattern.finditer(text) if match.group(group))


def _split(role: Role, text: str) -> Iterator[Word]:
    if text.isascii():
        yield from (Word(match.group(), *match.span()) for match in _ASCII_WORD.finditer(text))
        return
    for match in _words().finditer(text):
        if match.lastgroup == "run":
            yield from _pairs(match, role)
        else:
            yield Word(match.group(), *match.span())


def _pairs(match: Any, role: Role) -> Iterator[Word]:
    """Yield the pairs of neighboring characters, each with its marks; for documents, also the characters."""
    text, first = match.group(), match.start()
    characters = [one.span() for one in _expression(r"\P{M}\p{M}*").finditer(text)]
    if role == "document" or len(characters) == 1:
        yield from (Word(text[start:end], first + start, first + end) for start, end in characters)
    for (start, _), (_, end) in pairwise(characters):
        yield Word(text[start:end], first + start, first + end)


@functools.cache
def _words() -> Any:
    spaceless = "".join(rf"\p{{Script_Extensions={script}}}" for script in _SPACELESS)
    return _expression(
        rf"(?V1)(?P<run>(?:[[{spaceless}]&&[\p{{L}}\p{{Nl}}]]\p{{M}}*)+)"
        rf"|(?P<word>[[\p{{L}}\p{{N}}_]--[[{spaceless}]&&[\p{{L}}\p{{Nl}}]]]"
        rf"(?:[[\p{{L}}\p{{N}}_]--[[{spaceless}]&&[\p{{L}}\p{{Nl}}]]]|[\p{{Mn}}\p{{Mc}}])*)"
    )


@functools.cache
def _expression(pattern: str) -> Any:
    try:
        import regex
    except ModuleNotFoundError as error:
        raise QueryError(missing_package("regex", "lexical search")) from error
    return regex.compile(pattern)


@functools.cache
def _stopwords(spec: LexicalSpec) -> frozenset[str]:
    if spec.stopwords is None:
        return frozenset()
    from bm25s.tokenization import _infer_stopwords

    words: Sequence[str] = _infer_stopwords(spec.stopwords)
    return frozenset(map(_normal_form(spec), words)) if spec.tokenizer > 1 else frozenset(words)


@functools.cache
def _snowball(language: str) -> Any:
    import Stemmer

    return Stemmer.Stemmer(language)
