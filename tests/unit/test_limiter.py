"""The limiter: nobody gets everything, and a queue that moves may be long while one that is stuck fails."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from unittest.mock import patch

import pytest

from app import limiter as module
from app.errors import TooBusy
from app.limiter import Limiter

ADA, BOB, EVE, IAN = "ada", "bob", "eve", "ian"


async def hold(limiter: Limiter, seconds: float, owner: str = ADA) -> None:
    async with limiter.acquire(owner):
        await asyncio.sleep(seconds)


@asynccontextmanager
async def holding(limiter: Limiter, owner: str, wanted: int = 100) -> AsyncIterator[int]:
    """Holds as many permits as the owner can get, up to `wanted`, without waiting for any."""
    async with AsyncExitStack() as stack:
        for number in range(wanted):
            try:
                async with asyncio.timeout(0.01):
                    await stack.enter_async_context(limiter.acquire(owner))
            except TimeoutError:
                yield number
                return
        yield wanted


async def test_no_more_hold_a_permit_than_there_are() -> None:
    limiter = Limiter(4, 5)
    held: Counter[str] = Counter()
    most = 0

    async def work(owner: str) -> None:
        nonlocal most
        async with limiter.acquire(owner):
            held[owner] += 1
            most = max(most, held.total())
            await asyncio.sleep(0)
            held[owner] -= 1

    await asyncio.gather(*(work(owner) for owner in (ADA, BOB, EVE, IAN) * 50))
    assert most == 4
    assert not held.total()


@pytest.mark.parametrize(("count", "alone"), [(1, 1), (2, 1), (3, 2), (4, 3), (9, 6), (16, 12), (64, 48)])
async def test_one_owner_leaves_a_quarter_to_others(count: int, alone: int) -> None:
    limiter = Limiter(count, 5)
    async with holding(limiter, ADA) as held:
        assert held == alone
        if count > 1:
            async with asyncio.timeout(0.1):
                await hold(limiter, 0, BOB)


async def test_each_of_several_leaves_something_to_the_next() -> None:
    limiter = Limiter(16, 5)
    async with holding(limiter, ADA) as ada, holding(limiter, BOB) as bob, holding(limiter, EVE) as eve:
        assert (ada, bob, eve) == (12, 3, 1)


async def test_greedy_owners_end_up_with_about_as_much_as_each_other() -> None:
    limiter = Limiter(16, 5)
    held: Counter[str] = Counter()
    first_came, all_came = asyncio.Event(), asyncio.Event()

    async def work(owner: str, until: asyncio.Event) -> None:
        async with limiter.acquire(owner):
            held[owner] += 1
            await until.wait()
            held[owner] -= 1

    async with asyncio.TaskGroup() as tasks:
        for until in (first_came, all_came):
            for owner in [ADA] * 12 + [BOB] * 12:
                tasks.create_task(work(owner, until))
        await asyncio.sleep(0.01)
        assert held == {ADA: 12, BOB: 3}
        first_came.set()
        await asyncio.sleep(0.01)
        assert held.total() == 14
        assert abs(held[ADA] - held[BOB]) <= 2
        all_came.set()


async def test_owners_are_served_in_turn_and_each_in_order() -> None:
    limiter = Limiter(1, 5)
    served: list[str] = []

    async def work(owner: str, number: int) -> None:
        async with limiter.acquire(owner):
            served.append(f"{owner} {number}")
            await asyncio.sleep(0)

    waiting = [work(ADA, number) for number in range(5)] + [work(BOB, 0), work(EVE, 0), work(BOB, 1)]
    await asyncio.gather(*waiting)
    assert served == ["ada 0", "ada 1", "bob 0", "eve 0", "ada 2", "bob 1", "ada 3", "ada 4"]


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


async def test_what_others_are_granted_does_not_keep_an_owner_waiting() -> None:
    limiter = Limiter(4, 0.2)
    async with holding(limiter, ADA), asyncio.TaskGroup() as tasks:
        busy = [tasks.create_task(hold(limiter, 0.05, BOB)) for _ in range(10)]
        with pytest.raises(TooBusy):
            await hold(limiter, 0)
        assert not busy[-1].done()


async def test_an_owner_with_very_many_waiters_gets_no_more() -> None:
    limiter = Limiter(1, 5)
    with patch.object(module, "WAITERS", 3):
        waiters = [asyncio.create_task(hold(limiter, 0.01)) for _ in range(1 + 3)]
        await asyncio.sleep(0)
        with pytest.raises(TooBusy):
            await hold(limiter, 0)
        await hold(limiter, 0, BOB)
        await asyncio.gather(*waiters)


@pytest.mark.parametrize("owner", [ADA, BOB])
async def test_a_cancelled_waiter_leaves_its_permit_to_others(owner: str) -> None:
    limiter = Limiter(1, 5)
    for pause in range(4):  # before, at and after the moment at which the permit is granted
        holder, waiter = asyncio.create_task(hold(limiter, 0)), asyncio.create_task(hold(limiter, 0, owner))
        for _ in range(pause):
            await asyncio.sleep(0)
        waiter.cancel()
        await holder
        with pytest.raises(asyncio.CancelledError):
            await waiter
        async with asyncio.timeout(1):
            await hold(limiter, 0, EVE)


async def test_what_nobody_holds_or_waits_for_takes_no_memory() -> None:
    limiter = Limiter(2, 5)
    await asyncio.gather(*(hold(limiter, 0, f"owner {number}") for number in range(100)))
    assert not [each for each in vars(limiter).values() if isinstance(each, dict) and each]
