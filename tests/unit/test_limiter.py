"""The limiter: a queue that moves may be long, one that is stuck fails."""

import asyncio

import pytest

from app.errors import TooBusy
from app.limiter import Limiter


async def hold(limiter: Limiter, seconds: float) -> None:
    async with limiter.acquire():
        await asyncio.sleep(seconds)


async def test_no_more_hold_a_permit_than_there_are() -> None:
    limiter = Limiter(2, 5)
    most = now = 0

    async def work() -> None:
        nonlocal most, now
        async with limiter.acquire():
            now += 1
            most = max(most, now)
            await asyncio.sleep(0)
            now -= 1

    await asyncio.gather(*(work() for _ in range(50)))
    assert most == 2


async def test_a_queue_that_moves_may_take_longer_than_the_timeout() -> None:
    limiter = Limiter(1, 0.3)
    await asyncio.gather(*(hold(limiter, 0.1) for _ in range(10)))


async def test_a_queue_that_is_stuck_fails() -> None:
    limiter = Limiter(1, 0.1)
    holder = asyncio.create_task(hold(limiter, 1))
    await asyncio.sleep(0)
    waiters = await asyncio.gather(*(hold(limiter, 0) for _ in range(3)), return_exceptions=True)
    assert [type(each) for each in waiters] == [TooBusy] * 3
    await holder
    await hold(limiter, 0)


async def test_permits_are_granted_in_the_order_of_asking() -> None:
    limiter = Limiter(1, 5)
    served: list[int] = []

    async def work(number: int) -> None:
        async with limiter.acquire():
            served.append(number)
            await asyncio.sleep(0)

    await asyncio.gather(*(work(number) for number in range(20)))
    assert served == list(range(20))


async def test_a_cancelled_waiter_leaves_its_permit_to_others() -> None:
    limiter = Limiter(1, 5)
    for pause in range(4):  # before, at and after the moment at which the permit is granted
        holder, waiter = (asyncio.create_task(hold(limiter, 0)) for _ in range(2))
        for _ in range(pause):
            await asyncio.sleep(0)
        waiter.cancel()
        await holder
        with pytest.raises(asyncio.CancelledError):
            await waiter
        async with asyncio.timeout(1):
            await hold(limiter, 0)
