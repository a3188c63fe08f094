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

# Below these a detector guesses.
_FEWEST_LETTERS, _LEAST_PROBABILITY = 20, 0.9

_READ_CHARACTERS = 2_000


def detect_languages(texts: Sequence[str]) -> list[str | None]:
    """Detect the language of each text (langid.py, Lui and Baldwin 2012).

    Parameters
    ----------
    texts
        n texts; of long ones the beginning is read.

    Returns
    -------
    list
        n codes of ISO 639-1; None where a text is too short or the detector unsure, and everywhere if py3langid is not
        installed.
    """
    identify = _identifier()
    return [None if identify is None else _detected(identify, text[:_READ_CHARACTERS]) for text in texts]


def language_shares(view: View, rows: Sequence[int]) -> dict[str, float]:
    """Return the share of each language among chunks of which it could be told; largest first."""
    found = Counter(code for code in detect_languages(view.texts(rows)) if code)
    total = sum(found.values())
    return {code: count / total for code, count in found.most_common()}


def uncovered(shares: Mapping[str, float], named: Sequence[str] | None, least: float) -> dict[str, float]:
    """Return the languages with at least a share, that a card which names languages does not name."""
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
