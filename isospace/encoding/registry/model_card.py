"""Languages that a model card names."""

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
