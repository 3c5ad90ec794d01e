"""The audit trail as it is asked for, and as it is answered."""

from datetime import datetime
from ipaddress import ip_network
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.documents.schemas import Moment
from app.web.client import network_of
from app.web.fields import LINE
from app.web.pagination import Page


def _network(sent: str) -> str:
    """The network that is recorded of an address, or of a network."""
    try:
        address = str(ip_network(sent, strict=False).network_address)
    except ValueError:
        raise ValueError("not an IP address or network") from None
    return network_of(address) or address


class Filters(BaseModel):
    """Query parameters of the audit trail: events that match every one of them."""

    actor: Annotated[str, Field(max_length=100, pattern=LINE)] | None = Field(
        None, description="Who acted.", examples=["user:01939f3e-5c00-7000-8000-000000000009"]
    )
    event: Annotated[str, Field(max_length=50, pattern=LINE)] | None = Field(
        None, description="The event's name.", examples=["user.login_failed"]
    )
    user_id: UUID | None = Field(None, description="Whose account, or whose document, it is about.")
    document_id: UUID | None = None
    ip: Annotated[str, Field(max_length=50), AfterValidator(_network)] | None = Field(
        None, description="An address of the client; its network is what is compared.", examples=["203.0.113.9"]
    )
    since: Moment | None = Field(None, description="It happened then, or later.")
    until: Moment | None = Field(None, description="It happened before then.")

    @property
    def shown(self) -> dict[str, str]:
        """As the event of a reading names them."""
        return {name: str(value) for name, value in self.model_dump(mode="json", exclude_none=True).items()}


class AuditItem(BaseModel):
    """An event of the audit trail."""

    model_config = ConfigDict(
        from_attributes=True,
        json_schema_extra={
            "example": {
                "id": "01939f3e-5c00-7000-8000-000000000003",
                "event": "user.logged_in",
                "at": "2026-11-21T12:00:00.000Z",
                "actor": "user:01939f3e-5c00-7000-8000-000000000009",
                "request_id": "01939f3e-5c00-7000-8000-000000000004",
                "user_id": "01939f3e-5c00-7000-8000-000000000009",
                "document_id": None,
                "job_id": None,
                "ip": "203.0.113.0/24",
                "credential_id": None,
                "data": {"family_id": "01939f3e-5c00-7000-8000-000000000005"},
            }
        },
    )

    id: UUID
    event: str
    at: datetime
    actor: str
    request_id: str | None
    user_id: UUID | None = Field(description="Whose account, or whose document, it is about.")
    document_id: UUID | None
    job_id: UUID | None
    ip: str | None = Field(description="The client's network: 24 bits of an IPv4 address, 48 of an IPv6 address.")
    credential_id: UUID | None = Field(description="The session or the key that the request was made with.")
    data: dict[str, Any] = Field(description="By the event.")


class AuditPage(Page[AuditItem]):
    """A page of the audit trail. It may have few items, or none, and a next page all the same."""
