"""Compare the space or model that a request requires with the one that is served."""

from __future__ import annotations

from isospace.encoding.embedder import load_space
from isospace.errors import IsospaceError
from isospace.search.index import Index
from isospace.search.view import View
from isospace.service.errors import Problem

_SHORTEST = 8


def require_space(required: str | None, view: View, index: Index) -> None:
    """Refuse a request that requires another space.

    Raises
    ------
    Problem
        409, with the differences between the two spaces.
    """
    served = view.space.space_id
    if required is None or _names(required, served):
        return
    raise Problem(
        409,
        f"the request requires the space {required[:64]!r}, but {served} is served (snapshot "
        f"{view.manifest.sequence}). {_difference(required, view, index)} Their vectors cannot be compared: use "
        "vectors of the served space, or promote a snapshot of the other one.",
        code="space_mismatch",
    )


def require_model(name: str, view: View) -> None:
    """Refuse a model name that is neither the collection nor the space, by a 404 that names both."""
    served = view.space.space_id
    if name != view.manifest.collection and not _names(name, served):
        raise Problem(
            404,
            f"model {name[:80]!r} is not served; expected the collection {view.manifest.collection!r} or the space "
            f"{served}.",
            param="model",
            code="model_not_found",
        )


def _names(prefix: str, space_id: str) -> bool:
    return len(prefix) >= _SHORTEST and space_id.startswith(prefix)


def _difference(required: str, view: View, index: Index) -> str:
    whole = len(view.space.space_id)
    if not _SHORTEST <= len(required) <= whole or not all(c in "0123456789abcdef" for c in required):
        return "The required one is not a space ID (64 hexadecimal digits, or the first 8 or more of them)."
    if len(required) < whole:
        return "Send all 64 digits of the required one to see how the two differ."
    try:
        other = load_space(index.store, required).record.model_dump(mode="json")
    except IsospaceError:
        return "The store does not hold the required one."
    mine = view.space.space.record.model_dump(mode="json")
    return f"They differ in {', '.join(key for key in mine if mine[key] != other.get(key))}."
