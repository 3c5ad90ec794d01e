"""How many jobs a process may begin, and whose: one owner must not take up all of its capacity.

An owner has a share, a quarter of the capacity. Beyond it they get more only while a quarter stays free afterwards, so
that the first jobs of anybody else need not wait for theirs to end.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID


class _Pool:
    """`size` permits, and how many each owner holds."""

    def __init__(self, size: int) -> None:
        self.free = size
        self._share = max(1, size // 4)
        self._held: Counter[UUID] = Counter()

    def admits(self, owner_id: UUID) -> bool:
        return self.free > 0 and (self._held[owner_id] < self._share or self.free > self._share)

    def take(self, owner_id: UUID) -> None:
        self.free -= 1
        self._held[owner_id] += 1

    @property
    def refused(self) -> set[UUID]:
        """The owners who get no more, although something is free: seven at the most, each with a share of their own."""
        return {owner_id for owner_id in self._held if not self.admits(owner_id)} if self.free > 0 else set()


class Capacity:
    """What a process has for jobs, in all and of each queue, less what is `running`: an owner and a queue each."""

    MAX_REFUSED = 14
    """How many owners `refused` returns at the most: seven of all, and seven of the queue."""

    def __init__(self, size: int, limits: Mapping[str, int], running: Iterable[tuple[UUID, str]] = ()) -> None:
        self._size = size
        self._limits = limits
        self._all = _Pool(size)
        self._queues = {queue: _Pool(limit) for queue, limit in limits.items()}
        self._running: list[tuple[UUID, str]] = []
        for owner_id, queue in running:
            self._begin(owner_id, queue)

    def copy(self) -> "Capacity":
        return Capacity(self._size, self._limits, self._running)

    @property
    def queues(self) -> Sequence[str]:
        """The queues that the process can serve."""
        return tuple(self._queues)

    def free(self, queue: str) -> int:
        """How many jobs of this queue may be begun, if nobody's share is in the way."""
        return max(0, min(self._all.free, self._queues[queue].free))

    @property
    def any_free(self) -> bool:
        """Whether a job of some queue may be begun."""
        return any(map(self.free, self._queues))

    @property
    def exhausted(self) -> bool:
        """Whether a job may be due that has to wait until another ends."""
        return any(not self.free(queue) or self.refused(queue) for queue in self._queues)

    def take(self, owner_id: UUID, queue: str) -> bool:
        """Count a job as begun. False: it may not be."""
        admitted = self._all.admits(owner_id) and self._queues[queue].admits(owner_id)
        if admitted:
            self._begin(owner_id, queue)
        return admitted

    def refused(self, queue: str) -> set[UUID]:
        """The owners whose jobs of this queue may not be begun, although others' may."""
        return self._all.refused | self._queues[queue].refused if self.free(queue) else set()

    def _begin(self, owner_id: UUID, queue: str) -> None:
        self._running.append((owner_id, queue))
        for pool in (self._all, self._queues.get(queue)):
            if pool:
                pool.take(owner_id)
