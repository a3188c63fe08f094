import random

import pytest

from isospace.encoding.served.pace import Bucket, Pace, header_wait


def headers(what: str = "requests", limit: object = 100, remaining: object = 0, reset: str = "6m0s") -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{what}": str(limit),
        f"x-ratelimit-remaining-{what}": str(remaining),
        f"x-ratelimit-reset-{what}": reset,
    }


def test_a_bucket_keeps_its_rate() -> None:
    bucket, now = Bucket(per_minute=120), 0.0
    times = []
    for _ in range(200):
        now += bucket.delay(1, now)
        times.append(now)
    assert max(sum(start <= t < start + 10 for t in times) for start in range(80)) <= 22
    assert times[-1] == pytest.approx(198 / 2, abs=1.0)


def test_tokens_are_limited_by_their_number() -> None:
    bucket = Bucket(per_minute=600)
    assert bucket.delay(100, 1000.0) == 0
    assert bucket.delay(10, 1000.0) == pytest.approx(9)
    assert bucket.delay(10, 1000.0) == pytest.approx(10)


@pytest.mark.parametrize(
    ("found", "needed", "seconds"),
    [
        (headers(), 1, 3.6),
        (headers(remaining=1), 1, 0),
        (headers(limit=100, remaining=50, reset="10s"), 60, 2.0),
        (headers(limit=100, remaining=50, reset="10s"), 500, 10.0),
        (headers(limit="x"), 1, 0),
        (headers(reset="soon"), 1, 0),
        ({}, 1, 0),
    ],
)
def test_what_rate_limit_headers_ask_for(found: dict[str, str], needed: int, seconds: float) -> None:
    assert header_wait(found, "requests", needed) == pytest.approx(seconds)


def test_a_used_up_limit_blocks_every_request() -> None:
    pace = Pace()
    pace.answered(headers("tokens", limit=1000, remaining=0, reset="10s"), 500, now=100.0)
    assert pace.blocked(100.0) == pytest.approx(5)
    assert pace.delay(1, 102.0) == pytest.approx(3)
    assert pace.blocked(105.0) == 0


def test_waits_grow_while_nothing_is_answered_and_only_then() -> None:
    pace = Pace(random=random.Random(1))
    waits = [pace.pause(None, attempt, now=100.0) for attempt in range(10)]
    for attempt, wait in enumerate(waits):
        full = min(20.0, 0.25 * 2**attempt)
        assert full / 2 <= wait <= full
    assert len(set(waits)) == len(waits)
    pace.answered({}, 1, now=100.0)
    assert pace.pause(None, 9, now=101.0) <= 0.5
    assert pace.pause(None, 9, now=110.0) >= 10


def test_what_the_provider_asks_for_is_waited_and_little_more() -> None:
    pace = Pace(random=random.Random(1))
    waits = [pace.pause(3.0, 5, now=0.0) for _ in range(50)]
    assert 3.0 <= min(waits) < max(waits) <= 3.35
