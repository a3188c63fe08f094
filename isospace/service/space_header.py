"""Compare what a request demands with what is served."""

from __future__ import annotations

from isospace.encoding.embedder import load_space
from isospace.errors import IsospaceError
from isospace.search.index import Index
from isospace.search.view import View
from isospace.service.errors import Problem

_SHORTEST = 8


def require_space(demanded: str | None, view: View, index: Index) -> None:
    """Refuse to answer a request that was made for another space.

    Raises
    ------
    Problem
        409 with what differs between the two.
    """
    served = view.space.space_id
    if demanded is None or _names(demanded, served):
        return
    raise Problem(
        409,
        f"space_id {demanded[:64]!r} is demanded, {served} is served (snapshot {view.manifest.sequence}). "
        f"{_difference(demanded, view, index)} Vectors of the two cannot be compared: use those of the space that is "
        "served, or promote a snapshot of the other one.",
        code="space_mismatch",
    )


def require_model(name: str, view: View) -> None:
    """Refuse a model that is neither the collection nor the space; Problem 404 names both."""
    served = view.space.space_id
    if name != view.manifest.collection and not _names(name, served):
        raise Problem(
            404,
            f"model {name[:80]!r} is not served; expected the collection {view.manifest.collection!r} or the space "
            f"{served}.",
            param="model",
            code="model_not_found",
        )


def _names(given: str, space_id: str) -> bool:
    return len(given) >= _SHORTEST and space_id.startswith(given)


def _difference(demanded: str, view: View, index: Index) -> str:
    whole = len(view.space.space_id)
    if not _SHORTEST <= len(demanded) <= whole or not all(c in "0123456789abcdef" for c in demanded):
        return "The one demanded is no space_id (64 hexadecimal digits, or the first 8 or more)."
    if len(demanded) < whole:
        return "The one demanded is another; give all 64 digits to see in what they differ."
    try:
        other = load_space(index.store, demanded).record.model_dump(mode="json")
    except IsospaceError:
        return "The store does not hold the one demanded."
    mine = view.space.space.record.model_dump(mode="json")
    return f"They differ in {', '.join(key for key in mine if mine[key] != other.get(key))}."
