"""Answers of each protocol: vectors, billed tokens, and the reported model, checked."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from isospace.encoding.served.model import Protocol
from isospace.transform.vectors import Float32


class WrongAnswer(Exception):
    """An answer that is not what the protocol promises; the message says what was found and expected."""


@dataclass(frozen=True)
class Parsed:
    """A checked answer.

    Parameters
    ----------
    vectors
        (n, d) float32 in the order of the request.
    unusable
        By row, what is wrong with a vector: values that are not finite, or zeros alone.
    truncated
        Rows whose text the provider says it truncated.
    model
        The model that the provider says it used; None if it does not say.
    """

    vectors: Float32
    unusable: dict[int, str] = field(default_factory=dict)
    truncated: tuple[int, ...] = ()
    model: str | None = None


def billed_tokens(protocol: Protocol, payload: Any, headers: Mapping[str, str], *, vertex: bool = False) -> int | None:
    """Return the tokens that an answer says were billed, even if the answer is wrong; None if it does not say."""
    match protocol:
        case "openai" | "voyage":
            return _tokens(payload, "usage", "total_tokens")
        case "tei":
            return _number(headers.get("x-compute-tokens"))
        case "cohere":
            return _tokens(payload, "meta", "billed_units", "input_tokens")
        case "google" if vertex:
            found = _at(payload, "predictions")
            counts = [_tokens(one, "embeddings", "statistics", "token_count") for one in found or ()]
            return None if None in counts or not counts else sum(count or 0 for count in counts)
        case "google":
            return _tokens(payload, "usageMetadata", "promptTokenCount")


def parse_answer(protocol: Protocol, payload: Any, texts: Sequence[str], *, vertex: bool = False) -> Parsed:
    """Return the vectors of an answer in the order of the texts as they were sent.

    Raises
    ------
    WrongAnswer
        If vectors are missing or doubled, have different lengths, or cannot be read.
    """
    truncated: tuple[int, ...] = ()
    reported: str | None = None
    match protocol:
        case "openai" | "voyage":
            raw = _by_index(_listed(payload, "data"), len(texts))
            reported = _text(payload.get("model"))
        case "tei":
            raw = _counted(payload, len(texts), "the answer")
        case "cohere":
            raw = _counted(_listed(payload, "embeddings", "float"), len(texts), "embeddings.float")
            _require_same_texts(payload.get("texts"), texts)
        case "google" if vertex:
            found = _counted(_listed(payload, "predictions"), len(texts), "predictions")
            raw = [_at(one, "embeddings", "values") for one in found]
            cut = [_at(one, "embeddings", "statistics", "truncated") for one in found]
            truncated = tuple(row for row, one in enumerate(cut) if one is True)
        case "google":
            raw = [_at(one, "values") for one in _counted(_listed(payload, "embeddings"), len(texts), "embeddings")]
    vectors = _stacked(raw)
    return Parsed(vectors, _unusable(vectors), truncated, reported)


def _at(value: Any, *path: str) -> Any:
    for name in path:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def _listed(payload: Any, *path: str) -> list[Any]:
    found = _at(payload, *path)
    if not isinstance(found, list):
        raise WrongAnswer(f"{'.'.join(path)}: {_kind(found)}; expected a list")
    return found


def _counted(found: Any, expected: int, where: str) -> list[Any]:
    if not isinstance(found, list):
        raise WrongAnswer(f"{where}: {_kind(found)}; expected a list of {expected} vectors")
    if len(found) != expected:
        raise WrongAnswer(f"{where}: {len(found)} vectors; expected {expected}, one per text")
    return found


def _by_index(data: list[Any], expected: int) -> list[Any]:
    _counted(data, expected, "data")
    raw: list[Any] = [None] * expected
    seen: set[int] = set()
    for one in data:
        index = one.get("index") if isinstance(one, dict) else None
        if type(index) is not int or not 0 <= index < expected:
            raise WrongAnswer(f"data: index {_shown(index)}; expected 0 to {expected - 1}, each once")
        if index in seen:
            raise WrongAnswer(f"data: index {index} is there twice; expected 0 to {expected - 1}, each once")
        seen.add(index)
        raw[index] = one.get("embedding")
    return raw


def _stacked(raw: list[Any]) -> Float32:
    rows = [_vector(one) for one in raw]
    lengths = {len(row) for row in rows}
    if len(lengths) > 1:
        raise WrongAnswer(f"vectors of {min(lengths)} and {max(lengths)} dimensions in one answer; expected one length")
    if lengths == {0}:
        raise WrongAnswer("vectors of 0 dimensions; expected at least 1")
    return np.stack(rows)


def _vector(raw: Any) -> Float32:
    if isinstance(raw, str):
        try:
            data = base64.b64decode(raw, validate=True)
        except (binascii.Error, ValueError):
            raise WrongAnswer("an embedding is a text that is not base64; expected base64 or numbers") from None
        if len(data) % 4:
            raise WrongAnswer(f"an embedding of {len(data)} bytes; expected float32, a multiple of 4")
        return np.frombuffer(data, "<f4").astype(np.float32, copy=False)
    if not isinstance(raw, list):
        raise WrongAnswer(f"an embedding is {_kind(raw)}; expected base64 or numbers")
    if any(isinstance(value, bool | str | list | dict) for value in raw):
        raise WrongAnswer("an embedding holds values that are not numbers; expected numbers alone")
    # A null is how JSON writes what is not a number. Values beyond float32 become infinite, and are found as such.
    with np.errstate(over="ignore"):
        return np.array([np.nan if value is None else value for value in raw], np.float64).astype(np.float32)


def _unusable(vectors: Float32) -> dict[int, str]:
    finite = np.isfinite(vectors).all(axis=1)
    zero = ~vectors.any(axis=1)
    reasons = {int(row): "the provider's vector has values that are not finite" for row in np.flatnonzero(~finite)}
    return reasons | {int(row): "the provider's vector is all zeros" for row in np.flatnonzero(zero & finite)}


def _require_same_texts(echoed: Any, texts: Sequence[str]) -> None:
    """Refuse an answer for other texts or in another order, where the provider repeats them; it may normalize them."""
    if not isinstance(echoed, list) or not all(isinstance(text, str) for text in echoed):
        return
    if len(echoed) == len(texts) and list(map(_plain, echoed)) != list(map(_plain, texts)):
        known = sorted(map(_plain, echoed)) == sorted(map(_plain, texts))
        # Texts that the provider rewrote cannot be compared; another order can.
        if known:
            raise WrongAnswer("texts: in another order than they were sent; expected the same order")


def _plain(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalnum())


def _tokens(payload: Any, *path: str) -> int | None:
    found = _at(payload, *path)
    return int(found) if isinstance(found, int | float) and not isinstance(found, bool) and 0 <= found < 1e15 else None


def _number(value: Any) -> int | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return int(number) if 0 <= number < 1e15 else None


def _text(value: Any) -> str | None:
    return value[:200] if isinstance(value, str) and value else None


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "missing"}
    return names.get(type(value), "a number")


def _shown(value: Any) -> str:
    return "missing" if value is None else repr(value)[:40]
