"""Read the JSON body of a request into its model, in bounded time and memory whatever the client sends.

A body is checked in a thread, while the event loop answers other clients: how many values it holds before it is parsed,
how many items its lists have before the model, and in the model up to the first error of each list.
"""

from __future__ import annotations

import json
import re
from asyncio import to_thread
from collections.abc import Iterable
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from pydantic.json_schema import models_json_schema

from isospace.search.more_like import MOST_CHUNKS
from isospace.service.errors import Problem
from isospace.service.limits import Limits

_Model = TypeVar("_Model", bound=BaseModel)
_COMPONENTS = "#/components/schemas/"
_MESSAGE_CHARACTERS = 300
_BLANK = frozenset({"string_too_short", "string_pattern_mismatch", "value_error"})
# Fields of a request, and some more: what a body may hold beside the items of its lists.
_FIELDS = 64
# A string of JSON, or one that does not end: then the rest, so that the search is linear in the length.
_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)


async def read_body(request: Request, model: type[_Model], limits: Limits) -> _Model:
    """Return the body of a request.

    Raises
    ------
    Problem
        If the body is not JSON, has too many items, or does not fit the model.
    """
    if not _is_json(request.headers.get("content-type", "")):
        raise _not_an_object()
    return await to_thread(parse_body, await request.body(), model, limits)


def parse_body(content: bytes, model: type[_Model], limits: Limits) -> _Model:
    """Parse and check a body; Problem if it is invalid."""
    fields = _parsed(content, limits)
    if not isinstance(fields, dict):
        raise _not_an_object()
    _require_sizes(fields, limits)
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise _invalid(error) from None


def described_body(model: type[BaseModel]) -> dict[str, Any]:
    """Return the part of an operation's OpenAPI description that names its body."""
    content = {"application/json": {"schema": {"$ref": _COMPONENTS + model.__name__}}}
    return {"requestBody": {"required": True, "content": content}}


def body_schemas(models: Iterable[type[BaseModel]]) -> dict[str, Any]:
    """Return the OpenAPI schemas of bodies by name."""
    wanted = [(model, "validation") for model in models]
    _, described = models_json_schema(wanted, ref_template=_COMPONENTS + "{model}")  # type: ignore[arg-type]
    return dict(described["$defs"])


def _is_json(content_type: str) -> bool:
    kind, _, subtype = content_type.partition(";")[0].strip().lower().partition("/")
    return kind == "application" and (subtype == "json" or subtype.endswith("+json"))


def _not_an_object() -> Problem:
    return Problem(400, "the body is not a JSON object; send one, with the header Content-Type: application/json.")


def _parsed(content: bytes, limits: Limits) -> Any:
    try:
        text = content.decode("utf-8-sig")
        _require_few_values(text, limits)
        return json.loads(text)
    except RecursionError:
        raise Problem(400, "the body nests too deep; expected an object of texts, numbers, and short lists.") from None
    except ValueError as error:
        reason = str(error)[:_MESSAGE_CHARACTERS]
        raise Problem(400, f"the body is not valid JSON: {reason}. Send UTF-8 JSON.") from None


def _require_few_values(text: str, limits: Limits) -> None:
    """Refuse a body whose values would take long to parse; strings, commas, and brackets are counted."""
    outside, strings = _STRING.subn("", text)
    items = max(limits.texts, limits.queries, limits.pairs)
    for noun, count, most in (
        ("lists and objects", outside.count("[") + outside.count("{"), items + _FIELDS),
        # An item may be an object with one field.
        ("names and texts", strings, 2 * items + _FIELDS),
        ("values", outside.count(",") + 1, max(items, limits.tokens) + _FIELDS),
    ):
        if count > most:
            raise Problem(400, f"the body holds {count} {noun}; expected at most {most}. Send fewer in one request.")


def _require_sizes(fields: dict[str, Any], limits: Limits) -> None:
    """Refuse lists that are too long before each of their items is checked."""
    for name, noun, most in (
        ("input", "inputs", limits.texts),
        ("query", "queries", limits.queries),
        ("like", "chunk IDs", MOST_CHUNKS),
        ("documents", "documents", limits.pairs),
    ):
        items = fields.get(name)
        if not isinstance(items, list) or len(items) <= most:
            continue
        if name == "input" and type(items[0]) is int:
            noun, most = "token IDs", limits.tokens
        if len(items) > most:
            raise Problem(400, f"{len(items)} {noun}; expected at most {most} in one request.", param=name)


def _invalid(error: ValidationError) -> Problem:
    details: list[Any] = error.errors(include_url=False)
    first = _nearest(details)
    # Further elements name the members of a union that were tried, which the client does not know.
    name = str(first["loc"][0]) if first["loc"] else None
    message = first["msg"][:_MESSAGE_CHARACTERS]
    if name is None:
        return Problem(400, message, param=first.get("ctx", {}).get("name"))
    # Every member of a union reports an error; for an empty list, only this one helps.
    if any(detail["type"] == "too_short" and detail["input"] == [] for detail in details):
        return Problem(400, f"{name} is empty; expected at least one.", param=name)
    index = _index_of(first)
    place = name if index is None else f"{name}[{index}]"
    if first["type"] in _BLANK and not str(first["input"]).strip():
        message = f"{place} is blank; expected a text with at least one character that is not white space."
        return Problem(400, message, param=name)
    return Problem(400, f"{place}: {message}.", param=name)


def _nearest(details: list[Any]) -> Any:
    """Return the error of the member of a union that the value comes nearest to: it has its type, or fails last."""
    return max(details, key=lambda detail: (not detail["type"].endswith("_type"), _index_of(detail) or 0))


def _index_of(detail: Any) -> int | None:
    """Return the place of the item that an error is about; None if it is not about an item."""
    return next((part for part in detail["loc"] if isinstance(part, int)), None)
