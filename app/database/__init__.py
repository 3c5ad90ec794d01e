"""The database port: transactions as plain functions, and the database's own clock."""

from app.database.base import (
    Database,
    Patience,
    Retry,
    UTCDateTime,
    after_commit,
    any_case,
    binary_text,
    insert_unless,
    metadata,
    now,
    patience,
)

__all__ = [
    "Database",
    "Patience",
    "Retry",
    "UTCDateTime",
    "after_commit",
    "any_case",
    "binary_text",
    "insert_unless",
    "metadata",
    "now",
    "patience",
]
