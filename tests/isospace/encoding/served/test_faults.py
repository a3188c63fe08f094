import email.utils
from typing import Any

import pytest

from isospace.encoding.served.faults import duration_seconds, judge, read_error, wait_seconds


def error(message: str = "no", **fields: Any) -> dict[str, Any]:
    return {"error": {"message": message, **fields}}


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (429, None, "limited"),
        (429, error(code="rate_limit_exceeded"), "limited"),
        (429, error(code="insufficient_quota"), "refused"),
        (503, error(type="overloaded"), "limited"),
        (529, error(type="overloaded"), "limited"),
        (402, None, "refused"),
        (401, error(code="invalid_api_key"), "refused"),
        (400, {"error": {"code": 400, "details": [{"reason": "API_KEY_INVALID"}]}}, "refused"),
        (404, error(code="model_not_found"), "refused"),
        (404, {"detail": "Not Found"}, "refused"),
        (400, error(code="model_not_found"), "refused"),
        (307, None, "refused"),
        # Whether the texts are at fault, or the request, is found out with a harmless text.
        (400, error(type="invalid_request_error", param="input"), "rejected"),
        (400, error(code="content_filter", param="prompt"), "rejected"),
        (403, error("blocked by the firewall"), "rejected"),
        (413, {"error": "batch too large", "error_type": "Validation"}, "rejected"),
        (422, {"detail": [{"loc": ["body", "input"], "msg": "too long"}]}, "rejected"),
        (500, None, "failed"),
        (502, None, "failed"),
        (503, None, "failed"),
        (408, None, "failed"),
        (409, None, "failed"),
        (424, {"error": "inference failed", "error_type": "Backend"}, "failed"),
        # Inside an answer with status 200.
        (200, error("Rate limit reached"), "limited"),
        (200, error(code=429), "limited"),
        (200, error(type="requests", code="rate_limit_exceeded"), "limited"),
        (200, error(status="RESOURCE_EXHAUSTED"), "limited"),
        (200, error(code=401), "refused"),
        (200, error(code="model_not_found"), "refused"),
        (200, error(code="context_length_exceeded"), "rejected"),
        (200, error("limit of tokens exceeded", type="invalid_request_error"), "rejected"),
        (200, error("the model crashed"), "failed"),
        (200, error(code=500), "failed"),
    ],
)
def test_what_an_error_means(status: int, body: Any, kind: str) -> None:
    assert judge(status, {}, read_error(body)).kind == kind


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (error("why"), "why"),
        ([error("why")], "why"),
        ({"error": "why", "error_type": "Tokenizer"}, "why"),
        ({"id": "1", "message": "why"}, "why"),
        ({"detail": "why"}, "why"),
        ({"detail": [{"loc": ["body", "input"], "msg": "why"}]}, "body.input: why"),
        ({"errors": [{"message": "why"}]}, "why"),
        ({"error": {"code": "odd"}}, "odd"),
    ],
)
def test_the_providers_words_are_found(body: Any, message: str) -> None:
    found = read_error(body)
    assert found is not None
    assert found.message == message


@pytest.mark.parametrize("body", [None, [], [[0.1, 0.2]], {}, {"data": []}, {"error": None}, "text", 3])
def test_answers_without_an_error(body: Any) -> None:
    assert read_error(body) is None


def test_how_long_to_wait() -> None:
    date = email.utils.formatdate(1_000_030, usegmt=True)
    assert wait_seconds({"retry-after": "7"}) == 7
    assert wait_seconds({"retry-after": "1.5"}) == 1.5
    assert wait_seconds({"retry-after": date}, now=1_000_000) == 30
    assert wait_seconds({"retry-after": date}, now=2_000_000) == 0
    assert wait_seconds({"retry-after-ms": "250", "retry-after": "7"}) == 0.25
    assert [wait_seconds({"retry-after": value}) for value in ("", "soon", "-1", "nan", "inf")] == [None] * 5
    assert wait_seconds({}) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("6m0s", 360), ("20ms", 0.02), ("1s", 1), ("1h2m3.5s", 3723.5), ("1d", 86400), ("8.64s", 8.64), ("12", 12)]
    + [(text, None) for text in ("", "x", "1x", "s", "5m3", None)],
)
def test_durations(text: str | None, seconds: float | None) -> None:
    assert duration_seconds(text) == seconds
