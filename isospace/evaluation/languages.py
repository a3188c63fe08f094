"""Detect the languages of a corpus, and compare them with those the model was trained for."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isospace.search.view import View


_LETTER = re.compile(r"[^\W\d_]")

# With fewer letters, or a lower probability, the detector only guesses.
_FEWEST_LETTERS, _LEAST_PROBABILITY = 20, 0.9

_READ_CHARACTERS = 2_000


def detect_languages(texts: Sequence[str]) -> list[str | None]:
    """Detect the language of each text (langid.py, Lui and Baldwin 2012).

    Parameters
    ----------
    texts
        n texts; only the beginning of long ones is read.

    Returns
    -------
    list
        n ISO 639-1 codes; None if a text is too short, the detector is unsure, or py3langid is not installed.
    """
    identify = _identifier()
    return [None if identify is None else _detected(identify, text[:_READ_CHARACTERS]) for text in texts]


def language_shares(view: View, rows: Sequence[int]) -> dict[str, float]:
    """Return the share of each language among the chunks whose language could be detected, largest first."""
    counts = Counter(code for code in detect_languages(view.texts(rows)) if code)
    total = sum(counts.values())
    return {code: count / total for code, count in counts.most_common()}


def uncovered(shares: Mapping[str, float], named: Sequence[str] | None, least: float) -> dict[str, float]:
    """Return the languages with at least the share `least` that a model card does not name; none without a card."""
    if named is None:
        return {}
    return {code: share for code, share in shares.items() if share >= least and code not in named}


def _detected(identify: Any, text: str) -> str | None:
    if len(_LETTER.findall(text)) < _FEWEST_LETTERS:
        return None
    code, probability = identify.classify(text)
    return str(code) if probability >= _LEAST_PROBABILITY else None


@functools.cache
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ModuleNotFoundError:
        return None
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
