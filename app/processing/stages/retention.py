"""How long the results of stages are kept: by age, by bytes, and no longer than a document of their content."""

from functools import partial

from sqlalchemy import Connection, exists

from app.database import Database, delete_batch, delete_expired, now
from app.documents.models import documents
from app.processing.stages import kept
from app.processing.stages.models import stage_results

_BATCH = 200  # rows, each of which may have 64 KiB


async def sweep(db: Database, ttl: float, max_bytes: int) -> None:
    """Delete what was of no use for `ttl` seconds, and then what was of use least recently, until `max_bytes` are left.

    What belongs to no document is deleted, too: two transactions that each deleted one of the last two of a content
    cannot know of each other.
    """
    await delete_expired(db, stage_results.c.last_used_at, kept=ttl)
    while await db.write(_delete_of_no_document):
        pass
    excess = await db.read(kept.total_size) - max_bytes
    while excess > 0 and (freed := await db.write(partial(_delete_oldest, excess=excess))):
        excess -= freed


def _delete_of_no_document(conn: Connection) -> bool:
    same = (documents.c.owner_id == stage_results.c.owner_id, documents.c.sha256 == stage_results.c.input_sha256)
    unused = ~exists().where(*same).correlate(stage_results)
    used_at = stage_results.c.last_used_at
    return bool(delete_batch(conn, stage_results, used_at <= now(), unused, oldest=used_at))


def _delete_oldest(conn: Connection, excess: int) -> int:
    """Delete the least recently used: up to a batch, and hardly more than `excess` bytes. Returns the bytes."""
    query = stage_results.select().with_only_columns(stage_results.c.size, stage_results.c.last_used_at)
    freed, latest = 0, None
    for row in conn.execute(query.order_by(stage_results.c.last_used_at).limit(_BATCH)):
        latest = row.last_used_at
        freed += row.size
        if freed >= excess:
            break
    if latest is None:
        return 0
    gone = delete_batch(
        conn,
        stage_results,
        stage_results.c.last_used_at <= latest,
        oldest=stage_results.c.last_used_at,
        returning=(stage_results.c.size,),
        limit=_BATCH,
    )
    return sum(row.size for row in gone)
