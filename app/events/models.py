"""The table of events, and an event as the timeline of its document shows it."""

from dataclasses import MISSING, fields
from datetime import datetime
from functools import reduce
from operator import or_
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, TypeAdapter, WithJsonSchema
from pydantic_core import CoreSchema
from sqlalchemy import JSON, BigInteger, Column, Index, Integer, LargeBinary, String, Table, Uuid, text
from typing_extensions import TypeAliasType

from app.database import UTCDateTime, metadata
from app.events.catalogue import CATALOGUE
from app.events.catalogue.base import TimelineEvent
from app.events.catalogue.documents import DocumentPurged, DocumentUploadExpired
from app.web.pagination import Page

_ACCOUNTS = text("document_id IS NULL")

events = Table(
    "events",
    metadata,
    # Orders the events of one document even within a millisecond: an event is written after the change of the
    # document's row, so under that row's lock.
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("id", Uuid, nullable=False),
    Column("event", String(50), nullable=False),
    Column("at", UTCDateTime, nullable=False),
    Column("actor", String(100), nullable=False),
    Column("request_id", String(64)),
    Column("user_id", Uuid),
    Column("document_id", Uuid),
    Column("job_id", Uuid),
    Column("data", JSON, nullable=False),
    Column("ip", String(43)),  # the client's network
    Column("credential_id", Uuid),
    Column("mac", LargeBinary(32)),  # NULL: a process of the release before has written the row
    Index(None, "document_id", "seq"),
    Index(
        None,
        "user_id",
        "seq",
        sqlite_where=text("document_id IS NOT NULL"),
        postgresql_where=text("document_id IS NOT NULL"),
    ),
    # What concerns an account and none of its documents, which is little: few events pay for it.
    Index("ix_events_account", "user_id", "seq", postgresql_where=_ACCOUNTS, sqlite_where=_ACCOUNTS),
    sqlite_autoincrement=True,
)

_SHOWN = {name: event for name, event in CATALOGUE.items() if issubclass(event, TimelineEvent)}


def _named(names: list[str]) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "enum": names})


_STREAMED = [*_SHOWN, DocumentPurged.name, DocumentUploadExpired.name]
EventName = TypeAliasType("EventName", Annotated[str, _named(list(_SHOWN))])
StreamedEventName = TypeAliasType("StreamedEventName", Annotated[str, _named(_STREAMED)])


def _required(event: type[TimelineEvent]) -> int:
    return sum(field.default is MISSING for field in fields(event))


class _AnyData:
    """Describes `data` by the catalogue, without validating it: rows of another version are shown as they are.

    Generated clients try one after the other: those that require the most come first, or they would never be met.
    """

    @staticmethod
    def __get_pydantic_json_schema__(_: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        strictest_first = sorted(_SHOWN.values(), key=_required, reverse=True)
        return handler(TypeAdapter(reduce(or_, strictest_first)).core_schema)


class TimelineItem(BaseModel):
    """One event of a document."""

    model_config = ConfigDict(
        from_attributes=True,
        json_schema_extra={
            "example": {
                "id": "01939f3e-5c00-7000-8000-000000000003",
                "event": "document.status_changed",
                "at": "2026-11-21T12:00:00.000Z",
                "actor": "user:01939f3e-5c00-7000-8000-000000000009",
                "request_id": "01939f3e-5c00-7000-8000-000000000004",
                "job_id": "01939f3e-5c00-7000-8000-000000000002",
                "data": {"old": "UPLOADED", "new": "PROCESSING"},
            }
        },
    )

    id: UUID
    event: EventName
    at: datetime
    actor: str
    request_id: str | None
    job_id: UUID | None
    data: Annotated[dict[str, Any], _AnyData] = Field(
        description="By the event, whose name each alternative has as its title."
    )


class DocumentEvent(TimelineItem):
    """One event of any of the caller's documents."""

    model_config = ConfigDict(json_schema_extra={"example": {"document_id": "01939f3e-5c00-7000-8000-000000000001"}})

    document_id: UUID
    event: StreamedEventName


class TimelinePage(Page[TimelineItem]):
    """A page of a document's timeline."""
