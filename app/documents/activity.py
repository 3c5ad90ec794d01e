"""What an account has sent, hour by hour."""

from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection, String, column, func, select, true, values

from app.database import UTCDateTime, time_of
from app.documents.lifecycle import Status
from app.documents.models import documents

HOURS = 24
MOST = 500  # documents of one hour and status, above which they are not counted: 20 ms, if there are so many of all

_HOUR = timedelta(hours=1)
_STATED = [status for status in Status if status is not Status.INITIATED]
_STATES = values(column("status", String(10)), name="states").data([(status,) for status in _STATED]).cte()


class Hour(NamedTuple):
    """How many documents came in from `start` on, by the status that each has now; of each up to MOST + 1."""

    start: datetime
    counts: dict[Status, int]

    @property
    def total(self) -> int:
        """Of all statuses."""
        return sum(self.counts.values())


def by_hour(conn: Connection, owner_id: UUID) -> list[Hour]:
    """Return the last HOURS hours, the latest last, with what the owner has sent in each. What is in the trash counts.

    It reads nothing but an index, and of that no more than MOST + 1 entries for each count.
    """
    last = time_of(conn).replace(minute=0, second=0, microsecond=0)
    starts = [last - number * _HOUR for number in reversed(range(HOURS))]
    spans = values(column("start", UTCDateTime), column("end", UTCDateTime), name="hours")
    hours = spans.data([(start, start + _HOUR) for start in starts]).cte()
    within = (documents.c.created_at >= hours.c.start, documents.c.created_at < hours.c.end)
    own = (documents.c.owner_id == owner_id, documents.c.status == _STATES.c.status)
    found = select(documents.c.id).where(*own, *within).limit(MOST + 1).correlate(hours, _STATES).subquery()
    count = select(func.count()).select_from(found).correlate(hours, _STATES).scalar_subquery()
    counts: dict[datetime, dict[Status, int]] = {start: {} for start in starts}
    each = select(hours.c.start, _STATES.c.status, count).select_from(hours.join(_STATES, true()))
    for start, status, number in conn.execute(each):
        counts[start][Status(status)] = number
    return [Hour(start, counts[start]) for start in starts]
