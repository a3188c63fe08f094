import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from isospace.encoding.served.concurrency import Concurrency
from isospace.encoding.served.gate import Gate


def run(work: Callable[[Gate], Awaitable[None]], limit: int = 2) -> None:
    async def main() -> None:
        await work(Gate(Concurrency(limit)))

    asyncio.run(main())


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_so_many_are_let_in_and_repeated_ones_go_first() -> None:
    async def work(gate: Gate) -> None:
        order: list[str] = []

        async def one(name: str, again: bool = False) -> None:
            await gate.enter(again=again)
            order.append(name)

        tasks = [asyncio.create_task(one(name)) for name in "abcd"]
        await settled()
        assert (order, gate.in_flight, gate.waiting) == (["a", "b"], 2, True)
        tasks.append(asyncio.create_task(one("repeated", again=True)))
        await settled()
        for _ in range(3):
            gate.leave()
            await settled()
        assert order == ["a", "b", "repeated", "c", "d"]
        assert (gate.in_flight, gate.waiting) == (2, False)

    run(work)


def test_no_new_ones_while_as_many_pause() -> None:
    async def work(gate: Gate) -> None:
        with gate.pausing():
            first = asyncio.create_task(gate.enter())
            await settled()
            assert first.done()
            with gate.pausing():
                second, repeated = asyncio.create_task(gate.enter()), asyncio.create_task(gate.enter(again=True))
                await settled()
                assert repeated.done()
                assert not second.done()
                gate.leave()
                await settled()
                assert not second.done()
            await settled()
            assert second.done()

    run(work)


def test_a_canceled_turn_goes_to_another() -> None:
    async def work(gate: Gate) -> None:
        await gate.enter()
        canceled, other = asyncio.create_task(gate.enter()), asyncio.create_task(gate.enter())
        await settled()
        gate.leave()
        canceled.cancel()
        with suppress(asyncio.CancelledError):
            await canceled
        await settled()
        assert other.done()
        assert gate.in_flight == 1

    run(work, limit=1)
