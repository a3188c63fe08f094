"""Configuration of the BM25 index."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, model_validator

from isospace.storage.spec import SpecModel

LARGE = 30_000_000
"""Components, chunks times dimensions, from which torch is worth loading: that takes seconds and some 200 MB."""

STEMMERS = (
    "arabic", "armenian", "basque", "catalan", "czech", "danish", "dutch", "english", "esperanto", "estonian",
    "finnish", "french", "german", "greek", "hindi", "hungarian", "indonesian", "irish", "italian", "lithuanian",
    "nepali", "norwegian", "persian", "polish", "porter", "portuguese", "romanian", "russian", "serbian", "sesotho",
    "spanish", "swedish", "tamil", "turkish", "yiddish",
)  # fmt: skip

STOPWORDS = (
    "danish", "dutch", "english", "french", "german", "italian", "norwegian", "portuguese", "russian", "spanish",
    "swedish", "turkish",
)  # fmt: skip


DEFAULT_RECALL = 0.99


class SearchSpec(SpecModel):
    """How snapshots are searched by default."""

    recall: float = Field(default=DEFAULT_RECALL, gt=0.0, le=1.0)
    """The share of the exact hits that approximate searches find, on average, unless a search states another. Such
    searches need `recipe.transform.cells`; 1 searches exactly."""
    remote: bool = False
    """Whether runs publish files that are searched in the store, without a local copy (`local="none"`). They take about
    as much space as codes and texts."""


class LexicalSpec(SpecModel):
    """The BM25 index of a snapshot, for lexical and hybrid search."""

    kind: Literal["bm25", "none"] = "bm25"
    """`none` builds no index."""
    k1: float = Field(default=1.2, ge=0.0, le=10.0)
    """Term frequency saturation: the lower, the sooner repetitions of a word stop adding to the score."""
    b: float = Field(default=0.75, ge=0.0, le=1.0)
    """Length normalization: 0 ignores the length of a text, 1 normalizes by it fully."""
    tokenizer: Literal[1, 2, 3] = 3
    """Version of the rules that split texts into words: 3 also finds the parts of identifiers, such as `user` in
    `getUserName`; 2 ignores case, compatibility forms, and invisible characters, and splits scripts without spaces into
    pairs of characters; 1 only lowercases. A collection with version 2 keeps it until the recipe names another."""
    pattern: str | None = None
    """Regular expression that matches a word, after case and forms are unified; by default, letters, marks, digits, and
    underscores."""
    stemmer: str | None = None
    """Snowball stemmer, such as `english`; no stemming if empty."""
    stopwords: str | None = None
    """Language of the stopwords that are left out, such as `english`; none if empty."""

    @model_validator(mode="after")
    def _known(self) -> LexicalSpec:
        try:
            re.compile(self.pattern or "")
        except re.error as error:
            raise ValueError(f"pattern {self.pattern!r} is not a valid regular expression ({error})") from error
        if self.stemmer is not None and self.stemmer not in STEMMERS:
            raise ValueError(f"stemmer {self.stemmer!r} is unknown; expected one of {', '.join(STEMMERS)}")
        if self.stopwords is not None and self.stopwords not in STOPWORDS:
            raise ValueError(f"stopwords {self.stopwords!r} is unknown; expected one of {', '.join(STOPWORDS)}")
        return self
