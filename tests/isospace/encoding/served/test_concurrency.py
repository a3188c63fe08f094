import heapq
import random
from collections.abc import Callable

import pytest

from isospace.encoding.served.concurrency import Concurrency

Serve = Callable[[float, int, random.Random, list[float]], float]


def slots(number: int, seconds: float) -> Serve:
    """A server that works on so many requests at a time, and lets the others wait."""

    def served(now: float, in_flight: int, rng: random.Random, free: list[float]) -> float:
        while len(free) < number:
            heapq.heappush(free, 0.0)
        end = max(now, heapq.heappop(free)) + seconds * rng.uniform(0.8, 1.2)
        heapq.heappush(free, end)
        return end

    return served


def overloaded(best: int, seconds: float) -> Serve:
    """A server that becomes slower as a whole with more than `best` requests."""

    def served(now: float, in_flight: int, rng: random.Random, free: list[float]) -> float:
        share = in_flight if in_flight <= best else best * (best / in_flight) ** 0.7
        return now + seconds * in_flight / share * rng.uniform(0.8, 1.2)

    return served


def seconds_for(requests: int, serve: Serve, search: Concurrency | int, *, limited: float = 0.0) -> float:
    """Return the simulated time for so many requests, of which a share is refused at first."""
    rng, now, done, waiting, number = random.Random(7), 0.0, 0, requests, 0
    in_flight: list[tuple[float, int, bool]] = []
    free: list[float] = []
    while done < requests:
        limit = search if isinstance(search, int) else search.limit
        while waiting and len(in_flight) < limit:
            waiting, number = waiting - 1, number + 1
            refused = rng.random() < limited
            end = now + 0.01 if refused else serve(now, len(in_flight) + 1, rng, free)
            heapq.heappush(in_flight, (end, number, refused))
        now, _, refused = heapq.heappop(in_flight)
        done, waiting = done + (not refused), waiting + refused
        if isinstance(search, Concurrency):
            if refused:
                search.limited(now, waiting=waiting > 0)
            else:
                search.answered(1.0, now, waiting=waiting > 0)
    return now


SERVERS = {f"{number} at a time": slots(number, 0.2) for number in (2, 16, 40, 500)}


@pytest.mark.parametrize("limited", [0.0, 0.3])
@pytest.mark.parametrize("serve", SERVERS.values(), ids=SERVERS)
def test_within_five_percent_of_the_best_fixed_number(serve: Serve, limited: float) -> None:
    best = min(seconds_for(4000, serve, fixed, limited=limited) for fixed in (1, 4, 16, 48, 64))
    assert seconds_for(4000, serve, Concurrency(64), limited=limited) <= 1.05 * best


@pytest.mark.parametrize("best", [3, 12, 30])
def test_a_server_that_suffers_gets_about_as_many_as_are_best(best: int) -> None:
    search = Concurrency(64)
    seconds_for(6000, overloaded(best, 0.1), search)
    assert 0.6 * best <= search.limit <= 1.7 * best


def test_without_demand_nothing_is_learned() -> None:
    search = Concurrency(64)
    start = search.limit
    for number in range(500):
        search.answered(1.0, number * 0.1, waiting=False)
    assert search.limit == start


def test_timeouts_reduce_the_number_once_in_a_while() -> None:
    search = Concurrency(64, limit=40)
    search.answered(1.0, 9.0, waiting=False)
    for _ in range(5):
        search.overloaded(10.0, 60.0)
    assert search.limit == 28
    search.overloaded(71.0, 60.0)
    assert search.limit == 19


def test_a_server_that_never_answered_gets_a_quarter_after_each_round_of_timeouts() -> None:
    search = Concurrency(64)
    limits = []
    for now in (60.0, 60.5, 120.0, 180.0, 240.0):
        search.overloaded(now, 60.0)
        limits.append(search.limit)
    assert limits == [4, 4, 1, 1, 1]


def test_the_limit_is_kept() -> None:
    assert Concurrency(4).limit == 4
    search = Concurrency(1)
    for number in range(300):
        search.answered(1.0, number * 0.1, waiting=True)
    assert search.limit == 1
