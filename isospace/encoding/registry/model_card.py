"""Which languages a corpus and its queries are in, and whether the model was made for them."""

from __future__ import annotations

import functools
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from isospace.errors import NotFoundError
from isospace.storage import paths as layout
from isospace.storage.store import Store

if TYPE_CHECKING:
    from isospace.search.view import View

_LETTER = re.compile(r"[^\W\d_]")
# Below these a detector guesses.
_FEWEST_LETTERS, _LEAST_PROBABILITY = 20, 0.9
_READ_CHARACTERS = 2_000
_FRONT_MATTER = re.compile(r"\A---\s*\n(?P<yaml>.*?)\n---\s*(?:\n|\Z)", re.DOTALL)
_CODE = re.compile(r"[a-z]{2}(?:[-_][A-Za-z]+)?")
_EVERY = frozenset({"multilingual", "mul"})


def detect_languages(texts: Sequence[str]) -> list[str | None]:
    """Detect the language of each text (langid.py, Lui and Baldwin 2012).

    Parameters
    ----------
    texts
        n texts; of long ones the beginning is read.

    Returns
    -------
    list
        n codes of ISO 639-1; None where a text is too short or the detector unsure, and everywhere if py3langid is not installed.
    """
    identify = _identifier()
    return [None if identify is None else _detected(identify, text[:_READ_CHARACTERS]) for text in texts]


def language_shares(view: View, rows: Sequence[int]) -> dict[str, float]:
    """Return the share of each language among chunks of which it could be told; largest first."""
    found = Counter(code for code in detect_languages(view.texts(rows)) if code)
    total = sum(found.values())
    return {code: count / total for code, count in found.most_common()}


def card_languages(folder: Path) -> tuple[str, ...] | None:
    """Return the languages that a model's card names, as its front matter has them; None where it names none.

    Parameters
    ----------
    folder
        Of the model. `multilingual` in the card stands for every language, and is returned as no statement.
    """
    try:
        found = _FRONT_MATTER.match((folder / "README.md").read_text(encoding="utf-8"))
        named = yaml.safe_load(found["yaml"]).get("language") if found else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError):
        return None
    codes = [str(one).strip() for one in (named if isinstance(named, list) else [named] if named else [])]
    if _EVERY & {code.lower() for code in codes}:
        return None
    kept = sorted({code[:2] for code in codes if _CODE.fullmatch(code)})
    return tuple(kept) or None


def keep_languages(store: Store, encoder_id: str, folder: Path) -> None:
    """Keep beside an encoder what its card says: the card itself is no part of the model."""
    named = card_languages(folder)
    if named is not None:
        store.create_if_absent(layout.encoder_languages(encoder_id), json.dumps(named).encode())


def kept_languages(store: Store, encoder_id: str) -> tuple[str, ...] | None:
    """Return what `keep_languages` has kept, or None."""
    try:
        found: Any = json.loads(store.read(layout.encoder_languages(encoder_id)))
    except (NotFoundError, ValueError):
        return None
    return tuple(map(str, found)) if isinstance(found, list) else None


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
