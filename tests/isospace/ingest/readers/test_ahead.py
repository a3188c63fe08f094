"""Steps run before their turn, within bounds, and give their items in order."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from isospace.ingest.readers.ahead import Step, in_order


def ahead(run: Callable[[], list[int]], size: int = 0) -> Step[int]:
    return Step(run, is_ahead=True, size=size)


def free(_: int) -> int:
    return 0


def test_items_come_in_order_whatever_takes_longest() -> None:
    chance = random.Random(0)

    def slow(number: int, seconds: float) -> list[int]:
        time.sleep(seconds)
        return [2 * number, 2 * number + 1]

    def step(number: int) -> Step[int]:
        seconds = chance.random() * 0.01
        return Step(lambda: slow(number, seconds), is_ahead=chance.random() < 0.7)

    steps = [step(number) for number in range(100)]
    assert list(in_order(steps, threads=4, size_of=free)) == list(range(200))
    assert list(in_order([], threads=4, size_of=free)) == []


def test_a_slow_step_holds_back_no_other() -> None:
    last = threading.Event()
    steps = [ahead(lambda: [last.wait(30)]), *[ahead(lambda: [2])] * 50, ahead(lambda: [last.set() or 3])]
    assert list(in_order(steps, threads=2, size_of=free)) == [True, *[2] * 50, 3]


@pytest.mark.parametrize(("most_steps", "most_size", "expected"), [(5, 1_000, 5), (1_000, 40, 4)])
def test_steps_in_flight_are_bounded(most_steps: int, most_size: int, expected: int) -> None:
    begun = 0

    def steps() -> Iterator[Step[int]]:
        nonlocal begun
        for number in range(20):
            begun += 1
            yield ahead(lambda number=number: [number], size=10)

    for number, item in enumerate(
        in_order(steps(), threads=2, size_of=free, most_steps=most_steps, most_size=most_size)
    ):
        assert item == number
        assert begun == min(number + expected, 20)


def test_items_that_wait_are_bounded_and_the_one_whose_turn_it_is_never_waits() -> None:
    done: list[int] = []
    release, filled = threading.Event(), threading.Event()

    def first() -> list[int]:
        assert release.wait(30)
        return [0]

    def later(number: int) -> list[int]:
        assert filled.wait(30)
        done.append(number)
        return [number]

    def steps() -> Iterator[Step[int]]:
        yield ahead(first)
        for number in range(1, 100):
            yield ahead(lambda number=number: later(number))
        filled.set()
        threading.Timer(0.5, release.set).start()

    items = in_order(steps(), threads=3, size_of=lambda _: 100, most_size=250)
    assert next(items) == 0
    # Three items exceed the room; two threads then wait with one each, and that of the first step with another.
    assert len(done) <= 5
    # Each exceeds the room by itself, and still all are given.
    assert list(items) == list(range(1, 100))


def test_an_error_is_raised_in_its_turn_and_what_waits_is_given_up() -> None:
    begun: list[int] = []

    def fail() -> list[int]:
        raise ValueError("bad")

    def late(number: int) -> list[int]:
        begun.append(number)
        time.sleep(0.05)
        return [number]

    items = in_order(
        [ahead(lambda: [0]), ahead(fail), *[ahead(lambda number=number: late(number)) for number in range(100)]],
        threads=2,
        size_of=free,
    )
    assert next(items) == 0
    with pytest.raises(ValueError, match="bad"):
        next(items)
    count = len(begun)
    assert count < 100
    time.sleep(0.2)
    assert len(begun) == count


def test_closing_ends_threads_that_wait_for_room() -> None:
    filled = threading.Event()

    def steps() -> Iterator[Step[int]]:
        yield ahead(lambda: [0])
        for _ in range(20):
            yield ahead(lambda: [int(filled.wait(30))])
        filled.set()

    items = in_order(steps(), threads=3, size_of=lambda _: 100, most_size=300)
    assert next(items) == 0
    time.sleep(0.2)
    ender = threading.Thread(target=items.close, daemon=True)
    ender.start()
    ender.join(20)
    assert not ender.is_alive()
    assert not [one for one in threading.enumerate() if one.name.startswith("isospace-read")]


def test_other_steps_run_where_they_are_consumed_and_when_their_turn_comes() -> None:
    seen: list[tuple[int, str]] = []

    def note(number: int) -> Iterator[int]:
        seen.append((number, threading.current_thread().name))
        yield number

    items = in_order([Step(lambda number=number: note(number)) for number in range(3)], threads=2, size_of=free)
    assert next(items) == 0
    assert seen == [(0, threading.current_thread().name)]
    assert list(items) == [1, 2]
    assert not [one for one in threading.enumerate() if one.name.startswith("isospace-read")]
