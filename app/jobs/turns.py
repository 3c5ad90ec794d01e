"""The order in which due jobs are claimed: fairly among owners, by start-time fair queueing.

A job gets its turn when it is due. That is the head of its queue, the lowest turn in it; or, if its owner has jobs
queued, one more than the last turn of those. So between two jobs of one owner lies one of each other owner at the most.
With nothing queued it is the time, in seconds since 1970. So turns rise, and what is below the head of some time ago
is known to be claimed.

A job that waits for later has no turn; a poll assigns one when it is due. The same holds for the jobs of processes that
know no turns.
"""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Float, and_, bindparam, func, literal, select, union_all

from app.database import Prepared, now, unix_time
from app.jobs.models import HELD_STATES, IS_UNCLAIMED, jobs

EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
_KNOWN_SECONDS = 5.0  # for which a head may serve as the turn of new jobs
# A turn was computed from a head no older than above, by a transaction that has ended 10 seconds later, because
# statements and idleness have timeouts. One that takes longer, such as a commit that waits for a standby, is found by
# the next full poll.
_MARGIN = _KNOWN_SECONDS + 10.0
BATCH = 100  # jobs that get a turn in one transaction


class Turns:
    """What the polls of this process tell about the heads of its queues."""

    def __init__(self) -> None:
        self._heads: Mapping[str, float | None] = {}
        self._polled_at = -_KNOWN_SECONDS
        self._lowest: Sequence[tuple[float, float]] = ()  # never changed in place: other threads read it

    def head(self, queue: str) -> float | None:
        """The lowest turn in a queue. None: nothing is queued, or it is not known."""
        known = time.monotonic() - self._polled_at < _KNOWN_SECONDS
        return self._heads.get(queue) if known else None

    @property
    def since(self) -> float:
        """The turn that no due job is below, as far as this process knows."""
        found = self._lowest
        known = found and time.monotonic() - found[0][0] >= _MARGIN
        return min(lowest for _, lowest in found) if known else 0.0

    def polled(self, heads: Mapping[str, float | None], at: datetime) -> None:
        """Note what a poll found of some queues, at the database's time `at`."""
        self._heads, self._polled_at = {**self._heads, **heads}, time.monotonic()
        lowest = min([at.timestamp(), *(head for head in heads.values() if head is not None)])
        found = [*self._lowest, (self._polled_at, lowest)]
        while len(found) > 1 and self._polled_at - found[1][0] >= _MARGIN:
            del found[0]
        self._lowest = tuple(found)

    def forget(self) -> None:
        """Know nothing: the database's clock was put back."""
        self._lowest = ()


HEAD: ColumnElement[Any] = func.coalesce(bindparam("head", type_=Float), unix_time(now()))
_own = jobs.alias("own")
_AFTER_OWN = (
    select(_own.c.turn + 1)
    .where(
        _own.c.owner_id == bindparam("of_owner", type_=jobs.c.owner_id.type),
        _own.c.queue == bindparam("of_queue", type_=jobs.c.queue.type),
        # Neither held nor finished, that is queued: said so, PostgreSQL searches the index of live jobs by owner,
        # whatever its statistics are, and not that of all which are queued.
        _own.c.finished_at.is_(None),
        _own.c.state.not_in(HELD_STATES),
        _own.c.turn > HEAD - 1,
    )
    .order_by(_own.c.turn.desc())
    .limit(1)
    .scalar_subquery()
)
NEXT_TURN: ColumnElement[Any] = func.coalesce(_AFTER_OWN, HEAD)
"""The turn of a job that becomes due. Parameters: `of_owner`, `of_queue`, and `head`, which `Turns.head` tells."""


def is_waiting(queue: str) -> Sequence[ColumnElement[bool]]:
    """The conditions for jobs of a queue that are due, since `due_since` at the earliest, and have no turn."""
    since = bindparam("due_since", type_=jobs.c.run_at.type)
    name = literal(queue, jobs.c.queue.type)
    return IS_UNCLAIMED, jobs.c.queue == name, jobs.c.turn.is_(None), jobs.c.run_at <= now(), jobs.c.run_at >= since


@cache
def waiting(queues: tuple[str, ...]) -> Prepared:
    """The jobs that are to get a turn, locked: a batch of each queue at the most.

    `interrupted`: a shutdown or a lost lease has put them back.
    """
    interrupted = and_(jobs.c.fence > 0, jobs.c.run_at <= jobs.c.queued_at).label("interrupted")
    columns = (jobs.c.id, jobs.c.owner_id, jobs.c.queue, jobs.c.run_at, interrupted)
    some = [
        select(*columns)
        .where(*is_waiting(queue))
        .order_by(jobs.c.run_at)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
        .subquery()
        for queue in queues
    ]
    found = union_all(*(select(each) for each in some)).subquery()
    return Prepared(select(found).order_by(found.c.run_at))
