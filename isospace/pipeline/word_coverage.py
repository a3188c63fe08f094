"""Look at a sample of texts for what makes a lexical index useless: no words, or settings for another script."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from isospace.search.spec import LexicalSpec
from isospace.search.words import missing_for_words, words_of

# Of each part, only so many texts are split into words here: the index splits all of them anyway.
_SAMPLED_TEXTS = 100
_MANY, _MOST = 0.25, 0.5

_LATIN = ("Latin",)
_SCRIPTS = {
    "arabic": ("Arabic",), "armenian": ("Armenian",), "greek": ("Greek",), "hindi": ("Devanagari",),
    "nepali": ("Devanagari",), "persian": ("Arabic",), "russian": ("Cyrillic",), "serbian": ("Cyrillic", "Latin"),
    "tamil": ("Tamil",), "yiddish": ("Hebrew",),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class WordCoverage:
    """How a lexical index covers some texts.

    Attributes
    ----------
    sampled
        Number of texts with letters or digits that were looked at.
    wordless
        Number of these in which the rules find no word, stopwords aside.
    other_script
        Number of these with less than half of their letters in a script of the stemmer or the stopwords.
    """

    sampled: int = 0
    wordless: int = 0
    other_script: int = 0

    def warnings(self, spec: LexicalSpec) -> tuple[str, ...]:
        """Return what a person should look at before the index is built."""
        return (*self._wordless_warnings(spec), *self._script_warnings(spec))

    def _wordless_warnings(self, spec: LexicalSpec) -> tuple[str, ...]:
        if not self.wordless or self.wordless < _MANY * self.sampled:
            return ()
        rules = "the rules for words find" if spec.pattern is None else f"recipe.lexical.pattern {spec.pattern!r} finds"
        return (
            f"{rules} no word in {self.wordless:,} of {self.sampled:,} sampled texts, and no search by words finds "
            "these. Leave recipe.lexical.pattern out, or set recipe.lexical.kind=none",
        )

    def _script_warnings(self, spec: LexicalSpec) -> tuple[str, ...]:
        if self.other_script <= _MOST * self.sampled:
            return ()
        keys = " and ".join(
            f"recipe.lexical.{key}={language}"
            for key, language in (("stemmer", spec.stemmer), ("stopwords", spec.stopwords))
            if language is not None
        )
        return (
            f"{keys}: most letters of {self.other_script:,} of {self.sampled:,} sampled texts are of another script, "
            "whose words these settings do not change. Name the language of the texts, or leave them out",
        )


def cover_words(texts: Sequence[str], spec: LexicalSpec) -> WordCoverage:
    """Look at up to 101 texts, evenly spaced; at none without an index, or if a library for its words is missing."""
    if spec.kind == "none" or missing_for_words(spec) is not None:
        return WordCoverage()
    rows = sorted({round(place * (len(texts) - 1) / _SAMPLED_TEXTS) for place in range(_SAMPLED_TEXTS + 1)})
    sample = [texts[row] for row in rows if texts and any(map(str.isalnum, texts[row]))]
    rules = spec.model_copy(update={"stopwords": None})
    return WordCoverage(
        sampled=len(sample),
        wordless=sum(not words for words in words_of(sample, rules, "document")),
        other_script=sum(_is_foreign(text, _scripts(spec)) for text in sample),
    )


def add_up_words(parts: Iterable[WordCoverage]) -> WordCoverage:
    """Return the sums over parts."""
    listed = list(parts)
    return WordCoverage(
        sum(part.sampled for part in listed),
        sum(part.wordless for part in listed),
        sum(part.other_script for part in listed),
    )


def _scripts(spec: LexicalSpec) -> frozenset[str]:
    languages = [language for language in (spec.stemmer, spec.stopwords) if language is not None]
    return frozenset(script for language in languages for script in _SCRIPTS.get(language, _LATIN))


def _is_foreign(text: str, scripts: frozenset[str]) -> bool:
    import regex

    if not scripts:
        return False
    own = "".join(rf"\p{{Script={script}}}" for script in sorted(scripts))
    letters = len(regex.findall(r"\p{L}", text))
    return 2 * len(regex.findall(rf"(?V1)[[{own}]&&\p{{L}}]", text)) < letters
