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


def batching(number: int, seconds: float) -> Serve:
    """A server that takes a fixed time for a batch and more for each request in it, with the noise of a network."""

    def served(now: float, in_flight: int, rng: random.Random, free: list[float]) -> float:
        return now + seconds * (1 + in_flight / number) * rng.lognormvariate(0, 0.3)

    return served


def seconds_for(
    requests: int, serve: Serve, search: Concurrency | int, *, limited: float = 0.0, seed: int = 7
) -> float:
    """Return the simulated time for so many requests, of which a share is refused at first."""
    rng, now, done, waiting, number = random.Random(seed), 0.0, 0, requests, 0
    in_flight: list[tuple[float, int, bool, float]] = []
    free: list[float] = []
    while done < requests:
        limit = search if isinstance(search, int) else search.limit
        while waiting and len(in_flight) < limit:
            waiting, number = waiting - 1, number + 1
            refused = rng.random() < limited
            end = now + 0.01 if refused else serve(now, len(in_flight) + 1, rng, free)
            heapq.heappush(in_flight, (end, number, refused, now))
        now, _, refused, sent = heapq.heappop(in_flight)
        done, waiting = done + (not refused), waiting + refused
        if isinstance(search, Concurrency):
            if refused:
                search.limited(now, waiting=waiting > 0)
            else:
                search.answered(1.0, now - sent, now, waiting=waiting > 0)
    return now


SERVERS = {f"{number} at a time": slots(number, 0.2) for number in (2, 16, 40, 500)}


@pytest.mark.parametrize("limited", [0.0, 0.3])
@pytest.mark.parametrize("serve", SERVERS.values(), ids=SERVERS)
def test_within_five_percent_of_the_best_fixed_number(serve: Serve, limited: float) -> None:
    best = min(seconds_for(4000, serve, fixed, limited=limited) for fixed in (1, 4, 16, 48, 64))
    assert seconds_for(4000, serve, Concurrency(64), limited=limited) <= 1.05 * best


@pytest.mark.parametrize("seed", range(7, 12))
@pytest.mark.parametrize(("best", "lost"), [(6, 0.06), (12, 0.05), (50, 0.08)])
def test_a_server_that_becomes_slower_as_a_whole_gets_as_many_as_are_best(best: int, lost: float, seed: int) -> None:
    search = Concurrency(64)
    seconds = seconds_for(6000, overloaded(best, 0.2), search, seed=seed)
    assert seconds_for(6000, overloaded(best, 0.2), best, seed=seed) >= (1 - lost) * seconds
    assert 0.75 * best <= search.limit <= 1.25 * best


@pytest.mark.parametrize("seed", range(7, 12))
@pytest.mark.parametrize("best", [3, 20, 30])
def test_a_hard_start_is_got_over(best: int, seed: int) -> None:
    """With 16 at once from the start, a server for 3 is slow for a while; and one for 30 invites to go too far."""
    search = Concurrency(64)
    seconds = seconds_for(6000, overloaded(best, 0.2), search, seed=seed)
    assert seconds_for(6000, overloaded(best, 0.2), best, seed=seed) >= 0.75 * seconds
    assert 0.5 * best <= search.limit <= 2 * best


@pytest.mark.parametrize("seed", range(7, 12))
@pytest.mark.parametrize("number", [16, 64])
def test_slower_answers_are_taken_for_more_of_them(number: int, seed: int) -> None:
    serve = batching(number, 0.2)
    best = seconds_for(6000, serve, 64, seed=seed)
    assert best >= 0.9 * seconds_for(6000, serve, Concurrency(64), seed=seed)


def test_where_answers_take_no_longer_than_the_first_fewer_requests_are_not_tried() -> None:
    """By Little's law, 51 at a time cannot be answered faster than 64 that take the shortest time."""
    rng, search, limits = random.Random(7), Concurrency(64), []
    for number in range(4000):
        search.answered(1.0, 0.2 * rng.uniform(0.95, 1.05), 0.2 * number / search.limit, waiting=True)
        limits.append(search.limit)
    assert limits[-1] == 64
    assert limits == sorted(limits)


def test_a_trial_that_is_clearly_worse_is_ended_early() -> None:
    search, now, numbers = Concurrency(64), 0.0, []
    for _ in range(1000):
        # With 12 to 20 at a time, the server answers 100 in a second, and otherwise 20.
        pause = 0.01 if 12 <= search.limit <= 20 else 0.05
        now += pause
        search.answered(1.0, pause * search.limit, now, waiting=True)
        numbers.append(search.limit)
    bad = [number for number in numbers[400:] if not 12 <= number <= 20]
    assert 0 < len(bad) <= 75


def test_without_demand_nothing_is_learned() -> None:
    search = Concurrency(64)
    start = search.limit
    for number in range(500):
        search.answered(1.0, 0.1, number * 0.1, waiting=False)
    assert search.limit == start


def test_timeouts_reduce_the_number_once_in_a_while() -> None:
    search = Concurrency(64, limit=40)
    search.answered(1.0, 0.1, 9.0, waiting=False)
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
        search.answered(1.0, 0.1, number * 0.1, waiting=True)
    assert search.limit == 1
