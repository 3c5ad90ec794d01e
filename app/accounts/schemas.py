"""What the calls about accounts take and give."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from app.accounts.listing import ListedAccount
from app.auth.principal import Role
from app.auth.schemas import Strict
from app.quotas import Quota, Usage
from app.web.fields import WHOLE
from app.web.pagination import Page

_Limit = Annotated[int, Field(ge=0, le=2**31 - 1, strict=True), WHOLE]
_Bytes = Annotated[int, Field(ge=0, le=2**53 - 1, strict=True), WHOLE]  # what every JSON parser takes (RFC 8259)


class AccountPage(Page[ListedAccount]):
    """A page of the list of accounts."""


class AccountDetails(ListedAccount):
    """An account, what it uses, and how much it may use."""

    usage: Usage
    quota: Quota


class AccountChanges(Strict):
    """What is to be changed; what is left out stays as it is."""

    model_config = ConfigDict(json_schema_extra={"example": {"active": False}})

    active: bool | None = Field(None, strict=True, description="`false` ends its sessions, upload URLs and jobs.")
    role: Role | None = None


class AccountQuota(BaseModel):
    """What an account uses, and how much it may use."""

    usage: Usage
    quota: Quota


class QuotaChange(Strict):
    """How much an account may use. null, or left out: as the settings say; 0: no limit."""

    model_config = ConfigDict(json_schema_extra={"example": {"bytes": 50_000_000_000}})

    bytes: _Bytes | None = None
    documents: _Limit | None = None
    announced: _Limit | None = None
    jobs: _Limit | None = None
