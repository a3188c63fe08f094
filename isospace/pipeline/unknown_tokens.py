"""Count the tokens of texts that the encoder's vocabulary does not cover.

A WordPiece tokenizer has one token for every word that it cannot spell. A text of such tokens alone has the vector of
any other one, whatever it says, and so has a query in that script.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from isospace.evaluation.languages import detect_languages
from isospace.ingest.chunking import TokenCounter

# Detecting a language takes as long as chunking a text, so that only some texts of each part are looked at.
_DETECTED_TEXTS = 100
_MOSTLY = 0.5
OTHER = "undetermined"


@dataclass(frozen=True, slots=True)
class UnknownTokens:
    """The unknown tokens of some texts.

    Attributes
    ----------
    mostly
        Number of texts with more unknown tokens than others.
    only
        Number of texts with unknown tokens only.
    by_language
        Language (ISO 639-1, or `undetermined`), unknown tokens, and all tokens, in a sample of the texts.
    """

    mostly: int = 0
    only: int = 0
    by_language: tuple[tuple[str, int, int], ...] = ()

    def shares(self) -> dict[str, float]:
        """Return the share of unknown tokens by language, the largest first; without those that have none."""
        shares = {code: unknown / tokens for code, unknown, tokens in self.by_language if unknown}
        return dict(sorted(shares.items(), key=lambda item: (-item[1], item[0])))


def count_unknown(
    texts: Sequence[str], counter: TokenCounter, counts: Sequence[tuple[int, int]] | None = None
) -> UnknownTokens:
    """Count the unknown tokens of texts, without the prompt and special tokens.

    Parameters
    ----------
    texts
        Without the prompt.
    counter
        Counts them.
    counts
        What `counter.unknown` returns for the texts; None if it is not known yet.
    """
    if counter.unknown is None:
        return UnknownTokens()
    counts = counter.unknown(texts) if counts is None else counts
    if not any(unknown for unknown, _ in counts):
        return UnknownTokens()
    rows = sorted({round(place * (len(texts) - 1) / _DETECTED_TEXTS) for place in range(_DETECTED_TEXTS + 1)})
    unknown, tokens = Counter[str](), Counter[str]()
    for row, code in zip(rows, detect_languages([texts[row] for row in rows]), strict=True):
        unknown[code or OTHER] += counts[row][0]
        tokens[code or OTHER] += counts[row][1]
    return UnknownTokens(
        mostly=sum(of > _MOSTLY * total for of, total in counts),
        only=sum(of == total > 0 for of, total in counts),
        by_language=tuple((code, unknown[code], total) for code, total in sorted(tokens.items())),
    )


def add_up(parts: Iterable[UnknownTokens]) -> UnknownTokens:
    """Return the sums over parts."""
    listed = list(parts)
    unknown, tokens = Counter[str](), Counter[str]()
    for code, of, total in (row for part in listed for row in part.by_language):
        unknown[code] += of
        tokens[code] += total
    by_language = tuple((code, unknown[code], total) for code, total in sorted(tokens.items()))
    return UnknownTokens(sum(part.mostly for part in listed), sum(part.only for part in listed), by_language)
