"""Identifiers: UUIDv7 (RFC 9562 §5.7), so keys and pages sort by age."""

from uuid import UUID

from uuid_utils.compat import uuid7


def new_id() -> UUID:
    return uuid7()
