"""Configuration of the BM25 index."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, model_validator

from isospace.storage.spec import SpecModel

STEMMERS = (
    "arabic", "armenian", "basque", "catalan", "czech", "danish", "dutch", "english", "esperanto", "estonian", "finnish",
    "french", "german", "greek", "hindi", "hungarian", "indonesian", "irish", "italian", "lithuanian", "nepali", "norwegian",
    "persian", "polish", "porter", "portuguese", "romanian", "russian", "serbian", "sesotho", "spanish", "swedish", "tamil",
    "turkish", "yiddish",
)  # fmt: skip

STOPWORDS = (
    "danish", "dutch", "english", "french", "german", "italian", "norwegian", "portuguese", "russian", "spanish", "swedish",
    "turkish",
)  # fmt: skip


class LexicalSpec(SpecModel):
    """The BM25 index that is built beside the vectors, for lexical and hybrid search."""

    kind: Literal["bm25", "none"] = "bm25"
    """`none` builds no index."""
    k1: float = Field(default=1.2, ge=0.0, le=10.0)
    """How soon a word that is repeated in a text counts no more."""
    b: float = Field(default=0.75, ge=0.0, le=1.0)
    """How much a long text is held against its matches."""
    pattern: str = r"(?u)\b\w+\b"
    """What a word is, as a regular expression over the lowercased text."""
    stemmer: str | None = None
    """Snowball algorithm that words are reduced by, such as `english`; none if empty."""
    stopwords: str | None = None
    """List of words that are left out, by the name of its language, such as `english`; none if empty."""

    @model_validator(mode="after")
    def _known(self) -> LexicalSpec:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"pattern {self.pattern!r} is no regular expression ({error})") from error
        if self.stemmer is not None and self.stemmer not in STEMMERS:
            raise ValueError(f"stemmer {self.stemmer!r} is unknown; expected one of {', '.join(STEMMERS)}")
        if self.stopwords is not None and self.stopwords not in STOPWORDS:
            raise ValueError(f"stopwords {self.stopwords!r} is unknown; expected one of {', '.join(STOPWORDS)}")
        return self
