"""What the provider's status, headers, and error body mean: wait, try again, split, or give up."""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from isospace.encoding.served.parsing import Parsed

Kind = Literal["answered", "limited", "failed", "rejected", "refused", "wrong"]

KEY_REFUSED = "the key is not accepted"
ANOTHER_MODEL = "the provider serves another model now"
AFTER_A_CHANGE = (
    "If the provider has changed the model for good, set recipe.encoder.revision to a word that was not used before: "
    "it is another encoder then, and all texts are embedded again."
)
QUOTA_USED_UP = "the quota or the credit is used up"
_QUOTA = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "account_deactivated"}
_KEY = {"invalid_api_key", "invalid_authentication", "authentication_error", "unauthenticated", "api_key_invalid"}
_MODEL = {
    "model_not_found", "deploymentnotfound", "invalid_model", "unknown_model", "not_found", "not_found_error",
    "unsupported_parameter", "unknown_parameter", "unsupported_value", "unknown_field", "extra_forbidden",
}  # fmt: skip
_LIMITED = {
    "rate_limit_exceeded", "rate_limit_error", "rate_limit", "requests", "tokens", "resource_exhausted",
    "too_many_requests", "overloaded", "429",
}  # fmt: skip
_TEXTS = {
    "invalid_request_error", "invalid_argument", "content_filter", "context_length_exceeded", "string_above_max_length",
    "validation", "tokenizer", "bad_request", "badrequest", "invalid_input",
}  # fmt: skip
_LIMIT_WORDS = re.compile(r"rate.?limit|too many requests|overloaded|slow down|quota", re.I)
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)(ms|us|µs|ns|h|m|s|d))")
_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


@dataclass(frozen=True)
class Outcome:
    """What became of one request.

    Parameters
    ----------
    kind
        `answered`; `limited` (a limit was exceeded) and `failed` (the server or the way to it), which are tried again;
        `rejected` (something about the texts, perhaps); `refused` (nothing would be accepted); `wrong` (an answer that
        is not what the protocol promises).
    reason
        What the provider said, or what happened, without the key.
    wait
        Seconds to wait before the next try, if the provider says so.
    status
        HTTP status; 0 without an answer.
    parsed
        The answer of `answered`.
    reached
        Whether the request may have been processed, and so billed.
    """

    kind: Kind
    reason: str = ""
    wait: float | None = None
    status: int = 0
    parsed: Parsed | None = None
    reached: bool = True


@dataclass(frozen=True)
class ErrorBody:
    """The provider's error: its message, and its codes in lower case."""

    message: str = ""
    codes: frozenset[str] = frozenset()


def read_error(payload: Any) -> ErrorBody | None:
    """Return the error in a body; None if there is none.

    Understands `{"error": {"message", "type", "code", "status", "param"}}` (OpenAI, Google), `{"error", "error_type"}`
    (TEI), `{"message"}` (Cohere), and `{"detail"}` (Voyage, FastAPI).
    """
    if isinstance(payload, list):
        # Google answers some errors as a list of one.
        payload = payload[0] if len(payload) == 1 else None
    if not isinstance(payload, dict):
        return None
    error = payload.get("error") or payload.get("errors")
    if isinstance(error, list):
        error = error[0] if error else None
    if isinstance(error, dict):
        return ErrorBody(_message(error), _codes(error))
    if isinstance(error, str):
        return ErrorBody(error, _codes(payload))
    if isinstance(detail := payload.get("detail"), str | list | dict) and detail:
        return ErrorBody(_detail(detail), _codes(payload))
    if isinstance(payload.get("message"), str):
        return ErrorBody(payload["message"], _codes(payload))
    return None


def judge(status: int, headers: Mapping[str, str], error: ErrorBody | None) -> Outcome:
    """Return what a status other than 200, or an error inside a 200 answer, means. The reason is not yet scrubbed."""
    error = error or ErrorBody()
    if status == 200:
        return _judge_inside(headers, error)
    reason = error.message or f"HTTP status {status}"
    wait = wait_seconds(headers)
    codes = error.codes
    if codes & _QUOTA or status == 402:
        return Outcome("refused", f"{QUOTA_USED_UP} ({reason})", status=status)
    if status in (401, 407) or codes & _KEY:
        return Outcome("refused", f"{KEY_REFUSED} ({reason})", status=status)
    if status == 429 or (status in (503, 529) and codes & _LIMITED) or (status == 503 and wait is not None):
        return Outcome("limited", reason, wait, status)
    if status in (404, 405, 410):
        return Outcome("refused", f"the model or the address is unknown ({reason})", status=status)
    if codes & _MODEL:
        return Outcome("refused", f"the model or a parameter is not accepted ({reason})", status=status)
    if status in (400, 403, 413, 422):
        # A gateway's filter answers 403 for a text that it takes for an attack: the client finds out which it is.
        return Outcome("rejected", reason, status=status)
    if 300 <= status < 400:
        return Outcome(
            "refused", "the address redirects elsewhere; use the address that it redirects to", status=status
        )
    return Outcome("failed", reason, wait, status)


def _judge_inside(headers: Mapping[str, str], error: ErrorBody) -> Outcome:
    """Judge an error inside a 200 answer: by the status that it names, else by its code or words."""
    for code in error.codes:
        if code.isdecimal() and 300 <= int(code) < 600:
            return judge(int(code), headers, error)
    if error.codes & _LIMITED or (not error.codes & _TEXTS and _LIMIT_WORDS.search(error.message)):
        return judge(429, headers, error)
    if error.codes & _TEXTS:
        return judge(400, headers, error)
    # Unknown: taken for a failure of the server, which is tried again and never hides a text.
    return judge(401 if error.codes & _KEY else 404 if error.codes & _MODEL else 500, headers, error)


def wait_seconds(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Return how long the provider asks to wait: `retry-after-ms`, or `Retry-After` in seconds or as a date."""
    if (milliseconds := _float(headers.get("retry-after-ms"))) is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    if value is None:
        return None
    if (seconds := _float(value)) is not None:
        return seconds
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    return max(0.0, moment.timestamp() - (time.time() if now is None else now))


def duration_seconds(text: str | None) -> float | None:
    """Return a duration such as `6m0s`, `20ms`, `1.5s`, or a plain number of seconds; None if it is none."""
    if text is None:
        return None
    text = text.strip()
    if (seconds := _float(text)) is not None:
        return seconds
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def _float(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0 <= value < 1e9 else None


def _codes(error: dict[str, Any]) -> frozenset[str]:
    fields = ("code", "type", "status", "error_type", "reason")
    found = {str(error[name]).lower() for name in fields if isinstance(error.get(name), str | int)}
    for detail in error.get("details") or () if isinstance(error.get("details"), list) else ():
        if isinstance(detail, dict) and isinstance(detail.get("reason"), str):
            found.add(detail["reason"].lower())
    if isinstance(inner := error.get("innererror") or error.get("inner_error"), dict):
        found |= _codes(inner)
    return frozenset(found)


def _message(error: dict[str, Any]) -> str:
    for name in ("message", "msg", "detail"):
        if isinstance(error.get(name), str) and error[name]:
            return str(error[name])
    return ", ".join(sorted(_codes(error))) or "an error without a message"


def _detail(detail: Any) -> str:
    if isinstance(detail, list) and detail:
        first = detail[0]
        where = ".".join(map(str, first.get("loc", ()))) if isinstance(first, dict) else ""
        return f"{where}: {_message(first)}".removeprefix(": ") if isinstance(first, dict) else str(first)
    return _message(detail) if isinstance(detail, dict) else str(detail)
