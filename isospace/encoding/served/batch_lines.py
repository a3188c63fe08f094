"""Lines of a batch's files: requests, and their answers, which pass the same checks as those to single requests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from isospace.encoding.served.control import Control, with_control
from isospace.encoding.served.endpoint import Endpoint
from isospace.encoding.served.faults import ErrorBody, Outcome, judge, read_error
from isospace.encoding.served.model import ServedModel
from isospace.encoding.served.parsing import WrongAnswer, billed_tokens, parse_answer
from isospace.encoding.served.wire import build_request
from isospace.transform.affine import Role

# Errors of a line that was not processed, and so not billed.
_NOT_PROCESSED = ("batch_expired", "batch_cancelled", "batch_canceled")


def request_line(
    model: ServedModel,
    endpoint: Endpoint,
    role: Role,
    texts: Sequence[str],
    *,
    custom_id: str,
    url: str,
    control: Control | None,
) -> bytes:
    """Return the line that asks for the vectors of texts and of the control text."""
    request = build_request(model, endpoint, role, with_control(tuple(texts), control))
    line = {"custom_id": custom_id, "method": "POST", "url": url, "body": request.body}
    return json.dumps(line, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8") + b"\n"


def read_answer(
    line: Any, *, model: ServedModel, role: Role, texts: int, control: Control | None
) -> tuple[Outcome, int | None]:
    """Return what became of the request of a line, and the tokens that were billed for it, if the answer says so.

    Parameters
    ----------
    line
        A line of the output file or of the error file.
    texts
        Number of texts that the request had, without the control text.
    """
    line = line if isinstance(line, dict) else {}
    response = line.get("response")
    if not isinstance(response, dict):
        error = read_error(line) or ErrorBody("neither an answer nor an error")
        if error.codes & set(_NOT_PROCESSED):
            return Outcome("failed", error.message, reached=False), None
        # Without a status: its code says what it means, as an error inside an answer does.
        return judge(200, {}, error), None
    body, status = response.get("body"), response.get("status_code")
    error_body = read_error(body)
    billed = billed_tokens(model.protocol, body, {})
    if status != 200 or (error_body is not None and not (isinstance(body, dict) and body.get("data"))):
        return judge(status if isinstance(status, int) else 500, {}, error_body), billed
    expected = texts + (control is not None)
    try:
        # The protocol of batches does not repeat the texts, so that their number is enough.
        parsed = parse_answer(model.protocol, body, [""] * expected)
    except WrongAnswer as wrong:
        return Outcome("wrong", str(wrong), status=200), billed
    outcome = Outcome("answered", status=200, parsed=parsed)
    return (outcome if control is None else control.checked(outcome, role)), billed
