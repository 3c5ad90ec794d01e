"""Readiness: any number of probes cost one check, and a stop shows at once."""

import asyncio

import pytest
from prometheus_client.core import GaugeMetricFamily, Metric

from app.errors import StorageUnavailable
from app.server import health
from app.server.health import Health


class Checked:
    """Something that is checked, and counts how often."""

    def __init__(self) -> None:
        self.times = 0
        self.away = False
        self.health = Health({"it": self._check}, {}, Slow(0).read)

    async def _check(self) -> None:
        self.times += 1
        away = self.away
        await asyncio.sleep(0.01)
        if away:
            raise StorageUnavailable


def test_a_flood_of_probes_costs_one_check() -> None:
    async def scenario() -> None:
        it = Checked()
        for _ in range(3):
            reports = await asyncio.gather(*(it.health.report() for _ in range(100)))
            assert [each.checks for each in reports] == [{"it": "ok"}] * 100
        assert it.times == 1

    asyncio.run(scenario())


def test_what_was_found_is_soon_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "CHECK_CACHE_SECONDS", 0.05)

    async def scenario() -> None:
        it = Checked()
        assert (await it.health.report()).checks == {"it": "ok"}
        it.away = True
        await asyncio.sleep(0.06)
        assert (await it.health.report()).checks == {"it": "failed"}
        it.away = False
        await asyncio.sleep(0.06)
        assert (await it.health.report()).checks == {"it": "ok"}

    asyncio.run(scenario())


def test_who_stops_waiting_does_not_stop_the_others() -> None:
    async def scenario() -> None:
        it = Checked()
        first, second = (asyncio.create_task(it.health.report()) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).checks == {"it": "ok"}
        assert it.times == 1

    asyncio.run(scenario())


def test_draining_shows_at_once() -> None:
    async def scenario() -> None:
        it = Checked()
        assert (await it.health.report()).checks == {"it": "ok"}
        it.health.draining = True
        assert (await it.health.report()).checks == {"it": "ok", "shutdown": "draining"}
        assert it.times == 1

    asyncio.run(scenario())


class Slow:
    """Gauges that take their time to read; the value is how often they were."""

    def __init__(self, seconds: float) -> None:
        self.times = 0
        self._seconds = seconds

    async def read(self) -> list[Metric]:
        self.times += 1
        await asyncio.sleep(self._seconds)
        return [GaugeMetricFamily("read", "How often.", self.times)]


@pytest.mark.parametrize(("seconds", "times"), [(0.1, 1), (0, 2)])
def test_metrics_are_remembered_for_a_multiple_of_the_time_that_they_took(seconds: float, times: int) -> None:
    async def scenario() -> None:
        it = Health({}, {}, Slow(seconds).read)
        texts = await asyncio.gather(*(it.metrics() for _ in range(100)))
        assert len(set(texts)) == 1
        assert b"\nread 1.0\n" in texts[0]
        await asyncio.sleep(0.5 if seconds else 2)
        assert f"\nread {times}.0\n".encode() in await it.metrics()

    asyncio.run(scenario())
