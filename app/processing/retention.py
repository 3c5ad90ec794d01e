"""How long results are kept: RESULT_TTL seconds, whether or not they are of the file that their document has now."""

from collections import defaultdict
from datetime import datetime
from functools import partial
from uuid import UUID

from sqlalchemy import Connection, Table, exists

from app import events
from app.database import Database, delete_batch, now
from app.documents.models import documents
from app.events.catalogue.documents import DocumentResultsExpired
from app.processing.models import previous_results, results
from app.telemetry import metrics

_BATCH = 100  # results, each of which may have 64 KiB


async def expire_results(db: Database, ttl: float) -> None:
    """Delete results that were published `ttl` seconds ago or earlier, but for those of documents on hold."""
    for table in (results, previous_results):
        since: datetime | None = None
        while gone := await db.write(partial(_expire, table=table, ttl=ttl, since=since)):
            metrics.removed.labels("results").inc(len(gone))
            since = max(gone)


def _expire(conn: Connection, table: Table, ttl: float, since: datetime | None) -> list[datetime]:
    """Delete a batch of those published at `since` or later. Returns when each was published; none: no more are left.

    Triggers discard their files.
    """
    moment = table.c.created_at
    held = exists().where(documents.c.id == table.c.document_id, documents.c.hold.is_not(None))
    due = [moment <= now(-ttl), ~held.correlate(table)] + ([moment >= since] if since else [])
    about = (table.c.document_id, table.c.processor, moment)
    rows = delete_batch(conn, table, *due, oldest=moment, returning=about, limit=_BATCH)
    processors = defaultdict[UUID, set[str]](set)
    for row in rows:
        processors[row.document_id].add(row.processor)
    owner_of = documents.select().with_only_columns(documents.c.id, documents.c.owner_id)
    for document_id, owner_id in conn.execute(owner_of.where(documents.c.id.in_(processors))):
        event = DocumentResultsExpired(processors=sorted(processors[document_id]))
        events.append(conn, event, user_id=owner_id, document_id=document_id)
    return [row.created_at for row in rows]
