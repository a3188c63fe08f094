from __future__ import annotations

import pytest

from isospace.pipeline.encode.refusals import without_quotes

TEXT = "Jane Doe, born in 1970,\n  lives at 12 Example Road."


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("content policy", "content policy"),
        ("blocked: 'born in 1970, lives at 12' is personal", "blocked: '…' is personal"),
        (" ".join(TEXT.split()), "…"),
    ],
)
def test_a_reason_quotes_nothing_of_the_text(reason: str, shown: str) -> None:
    assert without_quotes(reason, TEXT) == shown


def test_a_short_text_is_no_exception() -> None:
    assert without_quotes("cannot embed 'Jane Doe'", "Jane Doe") == "cannot embed '…'"
    assert without_quotes("an a is not allowed", "a") == "an a is not allowed"
