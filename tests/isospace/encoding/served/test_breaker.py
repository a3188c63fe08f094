from isospace.encoding.served.breaker import Breaker


def test_open_after_failures_in_a_row_and_one_trial_at_a_time() -> None:
    now = [100.0]
    breaker = Breaker(failures=3, open_seconds=10, clock=lambda: now[0])
    for _ in range(2):
        breaker.failed("down")
    breaker.succeeded()
    for _ in range(2):
        breaker.failed("down")
    assert breaker.remaining() == 0
    breaker.failed("still down")
    assert (breaker.remaining(), breaker.reason) == (10, "still down")
    now[0] += 4
    assert breaker.remaining() == 6
    now[0] += 6
    # One call is let through, and the others wait for what becomes of it.
    assert breaker.remaining() == 0
    assert breaker.remaining() == 10
    breaker.succeeded()
    assert breaker.remaining() == 0
