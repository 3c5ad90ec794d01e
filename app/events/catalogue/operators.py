"""What operators do, but for what they do to accounts and documents."""

from typing import Any, Literal

from typing_extensions import TypeAliasType

from app.events.catalogue.base import Event, TimelineEvent

Content = TypeAliasType("Content", Literal["content", "result"])


class OperatorContentRead(TimelineEvent):
    """An operator asked for the document's content or a result of it, and stated this reason."""

    name = "operator.content_read"
    _level = "warning"
    what: Content
    reason: str


class OperatorRead(Event):
    """An operator called this operation, which shows what accounts have. `filters` are what it was asked for, without
    free text. The event's account is the one that it is about, if it is about one."""

    name = "operator.read"
    operation: str
    filters: dict[str, Any]


class ProcessorPaused(Event):
    """An operator paused a processor: its jobs wait."""

    name = "processor.paused"
    processor: str
    reason: str | None


class ProcessorResumed(Event):
    """An operator resumed a processor that was paused."""

    name = "processor.resumed"
    processor: str


class AuditRead(Event):
    """Somebody read a page of the audit trail, with these filters."""

    name = "audit.read"
    filters: dict[str, str]


class AuditExported(Event):
    """Somebody began to export the audit trail, with these filters."""

    name = "audit.exported"
    filters: dict[str, str]


class UsageRecounted(Event):
    """An operator had counted anew what the account uses, because something else was counted than it has."""

    name = "usage.recounted"
    before: dict[str, int]
    after: dict[str, int]
