"""The database port: units of work as plain functions, and the database's own clock."""

from app.database.base import (
    Database,
    Retry,
    UTCDateTime,
    after_commit,
    as_json,
    binary_text,
    case_insensitive,
    insert_on_conflict,
    insert_or_replace,
    json_text,
    made_at,
    metadata,
    now,
    time_of,
    unix_time,
    usual,
    without_index,
)
from app.database.batches import BATCH, delete_batch, delete_expired, in_batch
from app.database.statements import Prepared

__all__ = [
    "BATCH",
    "Database",
    "Prepared",
    "Retry",
    "UTCDateTime",
    "after_commit",
    "as_json",
    "binary_text",
    "case_insensitive",
    "delete_batch",
    "delete_expired",
    "in_batch",
    "insert_on_conflict",
    "insert_or_replace",
    "json_text",
    "made_at",
    "metadata",
    "now",
    "time_of",
    "unix_time",
    "usual",
    "without_index",
]
