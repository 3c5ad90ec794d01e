"""Turns: a queue that moves is waited in, one that stands still is given up."""

import asyncio

import pytest

from app.database.turns import Turns


async def hold(turns: Turns, seconds: float) -> None:
    async with turns.one():
        await asyncio.sleep(seconds)


async def test_no_more_at_once_than_there_are() -> None:
    turns = Turns(2, 5)
    most = now = 0

    async def work() -> None:
        nonlocal most, now
        async with turns.one():
            now += 1
            most = max(most, now)
            await asyncio.sleep(0)
            now -= 1

    await asyncio.gather(*(work() for _ in range(50)))
    assert most == 2


async def test_a_queue_that_moves_is_waited_in_beyond_the_patience() -> None:
    turns = Turns(1, 0.3)
    await asyncio.gather(*(hold(turns, 0.1) for _ in range(10)))


async def test_a_queue_that_stands_still_is_given_up() -> None:
    turns = Turns(1, 0.1)
    holder = asyncio.create_task(hold(turns, 1))
    await asyncio.sleep(0)
    waiters = await asyncio.gather(*(hold(turns, 0) for _ in range(3)), return_exceptions=True)
    assert [type(each) for each in waiters] == [TimeoutError] * 3
    await holder
    await hold(turns, 0)


async def test_turns_are_given_in_the_order_of_asking() -> None:
    turns = Turns(1, 5)
    served: list[int] = []

    async def work(number: int) -> None:
        async with turns.one():
            served.append(number)
            await asyncio.sleep(0)

    await asyncio.gather(*(work(number) for number in range(20)))
    assert served == list(range(20))


async def test_who_is_cancelled_takes_no_turn_with_him() -> None:
    turns = Turns(1, 5)
    for pause in range(4):  # before, at and after the moment that the turn is given
        holder, waiter = (asyncio.create_task(hold(turns, 0)) for _ in range(2))
        for _ in range(pause):
            await asyncio.sleep(0)
        waiter.cancel()
        await holder
        with pytest.raises(asyncio.CancelledError):
            await waiter
        async with asyncio.timeout(1):
            await hold(turns, 0)
