"""Split texts into the words of the lexical index, by rules that are versioned: an index names those it was built with.

Versions 2 and 3 compare texts by their compatibility caseless form (Unicode, section 3.13, definition D147), which is
used for nothing else: texts are embedded and shown as they are. A word is a run of letters, marks, and digits. Scripts
without spaces between words are split into pairs of characters, as in Lucene's CJKBigramFilter; an index also holds
the single characters, for queries of one. Version 3 also takes identifiers apart (`isospace.search.identifiers`).
"""

from __future__ import annotations

import functools
import importlib.util
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from isospace.errors import QueryError, missing_package
from isospace.search.identifiers import JOINERS, Part, has_parts, identifier_parts, is_plain, query_weight
from isospace.search.spec import LexicalSpec
from isospace.transform.affine import Role

# Hangul has spaces, but particles are written together with their nouns.
_SPACELESS = (
    "Han", "Hiragana", "Katakana", "Bopomofo", "Hangul", "Thai", "Lao", "Khmer", "Myanmar", "Javanese", "Balinese",
    "Tai_Le", "New_Tai_Lue", "Tai_Tham", "Tai_Viet", "Ahom",
)  # fmt: skip
_LETTERS = "[[" + "".join(rf"\p{{Script_Extensions={script}}}" for script in _SPACELESS) + r"]&&[\p{L}\p{Nl}]]"
_RUN = rf"(?P<run>(?:{_LETTERS}\p{{M}}*)+)"
_WORD = rf"[[\p{{L}}\p{{N}}_]--{_LETTERS}](?:[[\p{{L}}\p{{N}}_]--{_LETTERS}]|[\p{{Mn}}\p{{Mc}}])*"
_PATTERN_1 = r"(?u)\b\w+\b"
_ASCII_WORD = re.compile(r"\w+", re.ASCII)


def _identifier(word: str) -> str:
    """Return the expression for identifiers, given that for words: `.NET`, `node.js`, `AT&T`, `C++`."""
    return rf"(?:(?<!\.)\.(?=[^\W\d_]))?{word}(?:[{JOINERS}]{word})*(?:(?:\+\+|\#)(?![A-Za-z0-9_]))?"


# Where texts have no other characters, re finds what regex finds, in a third of the time.
_SIMPLE = re.compile(r"[\x00-\u02bb\u0370-\u0482\u048a-\u052f\u1e00-\u1fff\u2000-\u206f\u20a0-\u20cf\u2100-\u22ff]*")
_SIMPLE_IDENTIFIER = re.compile(_identifier(r"\w+"))
# NFKC would make 11/2 of 1½.
_FRACTIONS = {code: f" {chr(code)}" for code in (*range(0xBC, 0xBF), *range(0x2150, 0x2160), 0x2189)}


class Word(NamedTuple):
    """A word as the index holds it, and where it stands in the text."""

    text: str
    start: int
    end: int


class TextWords(NamedTuple):
    """The words of a text, and its length: how many they are without those that consist of others."""

    words: list[str]
    length: int


def words_of(texts: Iterable[str], spec: LexicalSpec, role: Role) -> list[list[str]]:
    """Return the words of each text, without stopwords, stemmed.

    Queries differ from documents in one point: a run of several characters without spaces is looked up by its pairs
    alone.
    """
    if _takes_apart(spec):
        known = _Tokens(spec)
        return [[word for token in _tokens(text, role) for word in known[token].words] for text in texts]
    stopwords, stems = _stopwords(spec), _Stems(spec)
    split = _splitter(spec, role)
    normal = _normal_form(spec)
    return [[stems[word.text] for word in split(normal(text)) if word.text not in stopwords] for text in texts]


def document_words(texts: Iterable[str], spec: LexicalSpec) -> list[TextWords]:
    """Return the words and the length of each text that is indexed."""
    if not _takes_apart(spec):
        return [TextWords(words, len(words)) for words in words_of(texts, spec, "document")]
    known, found = _Tokens(spec), []
    for text in texts:
        tokens = [known[token] for token in _tokens(text, "document")]
        words = [word for token in tokens for word in token.words]
        found.append(TextWords(words, sum([token.length for token in tokens])))
    return found


def query_weights(text: str, spec: LexicalSpec) -> dict[str, float]:
    """Return the words of a query, and how often each counts."""
    if not _takes_apart(spec):
        return dict(Counter(words_of([text], spec, "query")[0]))
    known, weights = _Tokens(spec), dict[str, float]()
    for token in _tokens(text, "query"):
        for word, weight in zip(known[token].words, known[token].weights, strict=True):
            weights[word] = weights.get(word, 0.0) + weight
    return weights


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
    return _caseless(_compatible(text))


def _compatible(text: str) -> str:
    """Return the compatibility form of a text, in its own case."""
    if text.isascii():
        return text
    apart = _expression(r"\p{Default_Ignorable_Code_Point}|ـ").sub("", text).translate(_FRACTIONS)
    return unicodedata.normalize("NFKC", apart)


def _caseless(text: str) -> str:
    """Return the caseless form of a text in compatibility form."""
    if text.isascii():
        return text.lower()
    plain = unicodedata.normalize("NFKC", text.casefold())
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


class _TokenWords(NamedTuple):
    """The words of a token, without stopwords, stemmed; how many have no parts; how often each counts in a query."""

    words: tuple[str, ...]
    length: int
    weights: tuple[float, ...]


_NO_WORDS = _TokenWords((), 0, ())


class _Tokens(dict[str, _TokenWords]):
    """The words of each token that was looked up."""

    def __init__(self, spec: LexicalSpec) -> None:
        self._stopwords, self._stems = _stopwords(spec), _Stems(spec)

    def __missing__(self, token: str) -> _TokenWords:
        # Most words are plain.
        self[token] = found = self._plain(token) if is_plain(token) else self._taken_apart(token)
        return found

    def _plain(self, token: str) -> _TokenWords:
        word = _caseless(token)
        return _NO_WORDS if word in self._stopwords else _TokenWords((self._stems[word],), 1, (1.0,))

    def _taken_apart(self, token: str) -> _TokenWords:
        parts = identifier_parts(token)
        kept = [
            (self._stems[word], is_whole, query_weight(token, part))
            for part, is_whole in zip(parts, has_parts(parts), strict=True)
            if (word := _caseless(part.text)) not in self._stopwords
        ]
        if not kept:
            return _NO_WORDS
        words, wholes, weights = zip(*kept, strict=True)
        return _TokenWords(words, len(wholes) - sum(wholes), weights)


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
    if spec.tokenizer == 1:
        return str.lower
    # Changes of case divide identifiers, so that case is folded afterwards.
    return _compatible if _takes_apart(spec) else folded


def _takes_apart(spec: LexicalSpec) -> bool:
    return spec.tokenizer > 2 and spec.pattern is None


def _splitter(spec: LexicalSpec, role: Role) -> Callable[[str], Iterator[Word]]:
    if spec.tokenizer == 1 or spec.pattern is not None:
        return functools.partial(_split_by_pattern, re.compile(spec.pattern or _PATTERN_1))
    if _takes_apart(spec):
        return functools.partial(_split_apart, role)
    return functools.partial(_split, role)


def _split_by_pattern(pattern: re.Pattern[str], text: str) -> Iterator[Word]:
    # As re.findall, by which indexes of version 1 were built: a group in the pattern is the word.
    group = min(pattern.groups, 1)
    return (Word(match.group(group), *match.span(group)) for match in pattern.finditer(text) if match.group(group))


def _split_apart(role: Role, text: str) -> Iterator[Word]:
    for token in _matches(_SIMPLE_IDENTIFIER if _SIMPLE.fullmatch(text) else _identifiers(), role, text):
        for part in _token_parts(token.text):
            yield Word(_caseless(part.text), token.start + part.start, token.start + part.end)


def _tokens(text: str, role: Role) -> list[str]:
    """Return the identifiers of a text, plain words among them, and the pairs of characters, in their own case."""
    text = _compatible(text)
    if _SIMPLE.fullmatch(text):
        return _SIMPLE_IDENTIFIER.findall(text)
    return [token.text for token in _matches(_identifiers(), role, text)]


def _token_parts(token: str) -> list[Part]:
    return [Part(token, 0, len(token))] if is_plain(token) else identifier_parts(token)


def _split(role: Role, text: str) -> Iterator[Word]:
    if text.isascii():
        yield from (Word(match.group(), *match.span()) for match in _ASCII_WORD.finditer(text))
        return
    yield from _matches(_words(), role, text)


def _matches(expression: Any, role: Role, text: str) -> Iterator[Word]:
    for match in expression.finditer(text):
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
    return _expression(rf"(?V1){_RUN}|{_WORD}")


@functools.cache
def _identifiers() -> Any:
    return _expression(rf"(?V1){_RUN}|{_identifier(_WORD)}")


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
    return frozenset(map(folded, words)) if spec.tokenizer > 1 else frozenset(words)


@functools.cache
def _snowball(language: str) -> Any:
    import Stemmer

    return Stemmer.Stemmer(language)
