"""How many requests an account may make in a time, or without one a client's address.

The fields tell clients (draft-ietf-httpapi-ratelimit-headers): `RateLimit-Policy: "account";q=12000;w=60` and
`RateLimit: "account";r=11990;t=42`, the requests that remain and the seconds until there are more.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import structlog
from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import FixedWindowRateLimiter
from limits.errors import StorageError

from app.errors import RateLimited
from app.telemetry import metrics

log = structlog.get_logger()

ACCOUNT, ADDRESS = "account", "address"
_CHUNKS = 100  # in which a process takes an account's requests from its own memory: the library costs 10 % of a GET
_MAX_KEYS = 10_000
_REDIS_TIMEOUT = 0.25  # seconds
_PAUSE = 5.0  # seconds in which a server of counts that is away is not asked again


@dataclass(slots=True)
class _Taken:
    """Requests that were taken for a key and not made yet. `remaining` are those that were left when they were.

    `refused`: there were none to take, and there are none until `resets_at` (Unix time).
    """

    left: int
    remaining: int
    resets_at: float
    refused: bool


class Rates:
    """The policies and their counts. A window begins with its first request.

    Each process counts for itself, unless there is a `url` of Redis: then the count is exact over all processes, and
    while Redis is away each counts for itself again.
    """

    def __init__(self, *, account: str, address: str, url: str | None = None) -> None:
        """`account` and `address`: such as `100/second`; `0`: any number."""
        self._policies = {ACCOUNT: _parsed(account), ADDRESS: _parsed(address)}
        self._own = {policy: FixedWindowRateLimiter(MemoryStorage()) for policy in self._policies}
        self._shared = FixedWindowRateLimiter(_redis(url)) if url else None
        self._taken: dict[str, dict[str, _Taken]] = {policy: {} for policy in self._policies}
        self._away_until = 0.0

    def alarm(self) -> str | None:
        """Why requests are not counted over all processes, if they should be."""
        return "LIMITS_URL cannot be reached: each process counts for itself" if self._away_until else None

    async def count(self, policy: str, key: str) -> Mapping[str, str]:
        """Count a request, and return the fields that say what remains. Raises RateLimited."""
        limit = self._policies[policy]
        if limit is None:
            return {}
        taken = await self._taken_from_shared(limit, policy, key) or await self._taken_from_own(limit, policy, key)
        fields = _fields(policy, limit, max(0, taken.remaining + taken.left - 1), taken.resets_at)
        if taken.refused:
            metrics.rate_limited.labels(policy).inc()
            wait = {"Retry-After": str(_seconds_until(taken.resets_at))}
            raise RateLimited(headers=dict(fields) | wait, violated_policies=[policy])
        taken.left -= 1
        return fields

    async def _taken_from_shared(self, limit: RateLimitItem, policy: str, key: str) -> _Taken | None:
        """One request of the count that all processes share; None while it is away, or if there is none."""
        if self._shared is None or time.monotonic() < self._away_until:
            return None
        try:
            taken = await _take(self._shared, limit, policy, key, 1)
        except StorageError as error:
            log.warning("rates.uncounted", reason=type(error.__cause__).__name__)
            self._away_until = time.monotonic() + _PAUSE
            return None
        self._away_until = 0.0
        return taken

    async def _taken_from_own(self, limit: RateLimitItem, policy: str, key: str) -> _Taken:
        taken = self._taken[policy].get(key)
        if taken is None or not (taken.left or taken.refused) or taken.resets_at <= time.time():
            taken = await _take(self._own[policy], limit, policy, key, _chunk(limit.amount))
            self._remember(policy, key, taken)
        return taken

    def _remember(self, policy: str, key: str, taken: _Taken) -> None:
        """Keep what was taken. With too many keys, as under an attack from many addresses, the policy begins anew."""
        known = self._taken[policy]
        if len(known) >= _MAX_KEYS:
            now = time.time()
            known = {each: old for each, old in known.items() if old.resets_at > now}
        if len(known) >= _MAX_KEYS:
            known = {}
            self._own[policy] = FixedWindowRateLimiter(MemoryStorage())
        self._taken[policy] = known
        known[key] = taken


def _parsed(limit: str) -> RateLimitItem | None:
    return None if limit == "0" else parse(limit)


def _chunk(amount: int) -> int:
    """The largest share of a limit that divides it, up to a hundredth."""
    return next(size for size in range(max(1, amount // _CHUNKS), 0, -1) if amount % size == 0)


async def _take(limiter: FixedWindowRateLimiter, limit: RateLimitItem, policy: str, key: str, size: int) -> _Taken:
    granted = await limiter.hit(limit, policy, key, cost=size)
    resets_at, remaining = await limiter.get_window_stats(limit, policy, key)
    return _Taken(size if granted else 0, remaining, resets_at, refused=not granted)


def _fields(policy: str, limit: RateLimitItem, remaining: int, resets_at: float) -> dict[str, str]:
    return {
        "RateLimit-Policy": f'"{policy}";q={limit.amount};w={limit.get_expiry()}',
        "RateLimit": f'"{policy}";r={remaining};t={_seconds_until(resets_at)}',
    }


def _seconds_until(moment: float) -> int:
    return max(1, math.ceil(moment - time.time()))


def _redis(url: str) -> RedisStorage:
    return RedisStorage(
        f"async+{url}",
        wrap_exceptions=True,
        implementation="redispy",
        key_prefix="document-api",
        socket_timeout=_REDIS_TIMEOUT,
        socket_connect_timeout=_REDIS_TIMEOUT,
    )
