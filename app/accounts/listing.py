"""The list of accounts as the operator sees it: each with what it uses."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection, func, select

from app.auth.models import users
from app.auth.principal import Role
from app.jobs import repository as jobs
from app.quotas import usage
from app.webhooks.deliveries import QUEUE


class ListedAccount(BaseModel):
    """An account, and what it uses. `bytes` are those of its files, with what was announced and is not here yet."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    email: str
    active: bool
    role: Role
    created_at: datetime
    last_login_at: datetime | None
    documents: int
    bytes: int
    live_jobs: int = Field(description="Jobs that are not finished, as quotas count them, up to 10,000.")


_MOST_JOBS = 10_000  # of each account that are counted

_ROLE = func.coalesce(users.c.role, Role.USER).label("role")
_SHOWN = (users.c.id, users.c.email, users.c.active, _ROLE, users.c.created_at, users.c.last_login_at)
_LIVE_JOBS = jobs.live_of(users.c.id, _MOST_JOBS, beside=QUEUE).scalar_subquery()
_USED = [func.coalesce(usage.c[name], 0).label(name) for name in ("documents", "bytes")]
_LISTED = select(*_SHOWN, *_USED, _LIVE_JOBS.label("live_jobs")).outerjoin(usage, usage.c.user_id == users.c.id)


def one(conn: Connection, user_id: UUID) -> ListedAccount | None:
    """The account with this id."""
    row = conn.execute(_LISTED.where(users.c.id == user_id)).one_or_none()
    return ListedAccount.model_validate(row) if row else None


def page(conn: Connection, part: str, after: UUID | None, limit: int) -> list[ListedAccount]:
    """Up to `limit` accounts with this part in their address, the oldest first, from the one `after` on."""
    query = _LISTED.where(users.c.email.contains(part.lower(), autoescape=True))
    if after is not None:
        query = query.where(users.c.id > after)
    return [ListedAccount.model_validate(row) for row in conn.execute(query.order_by(users.c.id).limit(limit))]
