"""Languages that a model card lists."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from isospace.errors import NotFoundError
from isospace.storage import paths as layout
from isospace.storage.store import Store

_FRONT_MATTER = re.compile(r"\A---\s*\n(?P<yaml>.*?)\n---\s*(?:\n|\Z)", re.DOTALL)

_CODE = re.compile(r"[a-z]{2}(?:[-_][A-Za-z]+)?")

_EVERY = frozenset({"multilingual", "mul"})


def card_languages(folder: Path) -> tuple[str, ...] | None:
    """Return the languages in the front matter of a model's card as two-letter codes, sorted.

    Returns None if the card lists no language, or says `multilingual`, which stands for every language.
    """
    try:
        front_matter = _FRONT_MATTER.match((folder / "README.md").read_text(encoding="utf-8"))
        listed = yaml.safe_load(front_matter["yaml"]).get("language") if front_matter else None
    except (OSError, ValueError, LookupError, TypeError, RecursionError, yaml.YAMLError, AttributeError):
        return None
    codes = [str(code).strip() for code in (listed if isinstance(listed, list) else [listed] if listed else [])]
    if _EVERY & {code.lower() for code in codes}:
        return None
    return tuple(sorted({code[:2] for code in codes if _CODE.fullmatch(code)})) or None


def store_card_languages(store: Store, encoder_id: str, folder: Path) -> None:
    """Store the languages of a model's card next to the encoder; the card itself is not stored."""
    languages = card_languages(folder)
    if languages is not None:
        store.create_if_absent(layout.encoder_languages(encoder_id), json.dumps(languages).encode())


def stored_card_languages(store: Store, encoder_id: str) -> tuple[str, ...] | None:
    """Return the languages that `store_card_languages` has stored, or None."""
    try:
        languages: Any = json.loads(store.read(layout.encoder_languages(encoder_id)))
    except (NotFoundError, ValueError):
        return None
    return tuple(map(str, languages)) if isinstance(languages, list) else None
