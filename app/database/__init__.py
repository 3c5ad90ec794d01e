"""The database port: transactions as plain functions, and the database's own clock."""

from app.database.base import (
    Database,
    Retry,
    UTCDateTime,
    after_commit,
    any_case,
    binary_text,
    insert_or_replace,
    insert_unless,
    metadata,
    now,
    number_on,
    unindexed,
    usual,
)
from app.database.batches import delete_batch
from app.database.prepared import Prepared

__all__ = [
    "Database",
    "Prepared",
    "Retry",
    "UTCDateTime",
    "after_commit",
    "any_case",
    "binary_text",
    "delete_batch",
    "insert_or_replace",
    "insert_unless",
    "metadata",
    "now",
    "number_on",
    "unindexed",
    "usual",
]
