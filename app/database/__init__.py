"""The database port: units of work as plain functions, and the database's own clock."""

from app.database.base import (
    Database,
    Retry,
    UTCDateTime,
    after_commit,
    binary_text,
    case_insensitive,
    insert_on_conflict,
    insert_or_replace,
    metadata,
    now,
    reset_sequence,
    seconds_between,
    without_index,
)
from app.database.statements import Prepared

insert_unless = insert_on_conflict  # the former name

__all__ = [
    "Database",
    "Prepared",
    "Retry",
    "UTCDateTime",
    "after_commit",
    "binary_text",
    "case_insensitive",
    "insert_on_conflict",
    "insert_or_replace",
    "insert_unless",
    "metadata",
    "now",
    "reset_sequence",
    "seconds_between",
    "without_index",
]
