"""What operators do with accounts: create, find, enable, disable, sign out, erase; roles, quotas, passwords, keys."""

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from functools import partial
from uuid import UUID

from sqlalchemy import Connection, func

from app import errors, quotas
from app.accounts import listing
from app.accounts.erasure import Erased, Erasure
from app.accounts.listing import ListedAccount
from app.accounts.schemas import AccountChanges, AccountDetails, AccountPage
from app.auth import sessions, users
from app.auth.credentials import required
from app.auth.keys import repository as api_keys
from app.auth.models import users as table
from app.auth.principal import Principal, Role
from app.auth.schemas import User
from app.auth.service import AuthService, end_sessions
from app.database import Database
from app.events.catalogue.accounts import (
    UserDisabled,
    UserEnabled,
    UserPasswordChanged,
    UserQuotaChanged,
    UserRoleChanged,
)
from app.jobs import settlement
from app.jobs.kinds import Kinds
from app.quotas import Quota, Quotas, Usage
from app.telemetry import context
from app.web import pagination

_PAGE = 50  # accounts that are read at once

Account = str | UUID


class Accounts:
    """Manages accounts by their id, or by their address in its canonical spelling.

    Each method but `create` and those that list raises NotFound.
    """

    def __init__(self, db: Database, auth: AuthService, kinds: Kinds, erasure: Erasure, quotas: Quotas) -> None:
        self._db = db
        self._auth = auth
        self._kinds = kinds
        self.erasure = erasure
        self._quotas = quotas

    async def create(self, email: str, password: str) -> User:
        """Create an account. Raises WeakPassword, EmailTaken."""
        return await self._auth.create_user(email, password)

    async def find(self, part: str = "") -> AsyncIterator[ListedAccount]:
        """Yield the accounts that have this in their address, oldest first."""
        after: UUID | None = None
        while page := await self._db.read(partial(listing.page, part=part, after=after, limit=_PAGE)):
            for account in page:
                yield account
            after = page[-1].id

    async def page(self, part: str, limit: int, cursor: str | None) -> AccountPage:
        """A page of them. Raises InvalidCursor, SearchTooBroad, TooBusy."""
        after = pagination.decode(cursor, "accounts", datetime).id if cursor else None
        rows = await self._db.search(partial(listing.page, part=part, after=after, limit=limit + 1))
        items, last = pagination.page(rows, limit)
        end = pagination.encode("accounts", last.created_at, last.id) if last else None
        return AccountPage(items=items, next_cursor=end)

    async def get(self, account_id: UUID) -> AccountDetails:
        """One of them."""

        def work(conn: Connection) -> AccountDetails:
            listed = listing.one(conn, account_id)
            if listed is None:
                raise errors.NotFound
            used, allowed = self._quotas.of(conn, account_id)
            return AccountDetails(**dict(listed), usage=used, quota=allowed)

        return await self._db.read(work)

    async def own_quota(self, account_id: UUID) -> dict[str, int | None]:
        """What an operator has set for one of them, by name. None: nothing, so it is as the settings say."""
        return await self._db.read(partial(quotas.own, user_id=account_id))

    async def change(self, principal: Principal, account_id: UUID, changes: AccountChanges) -> AccountDetails:
        """Enable or disable it, and give it another role: whatever is given. Raises OwnAccount, LoginRequired."""
        if principal.via == "key" and (changes.active or changes.role is not None):
            raise errors.LoginRequired

        def work(conn: Connection) -> None:
            user_id = _id_of(conn, account_id)
            if changes.active is not None:
                (_enable if changes.active else _disable)(conn, user_id)
            if changes.role is not None:
                _set_role(conn, user_id, changes.role)

        await self._db.write(required(principal, work), alone_with=account_id)
        if changes.active is False:
            await self._cancel_jobs(account_id)
        return await self.get(account_id)

    async def id_of(self, account: Account) -> UUID:
        """The id of one of them."""
        return await self._db.read(partial(_id_of, account=account))

    async def enable(self, account: Account) -> None:
        """Let the user log in again."""
        await self._db.write(lambda conn: _enable(conn, _id_of(conn, account)))

    async def disable(self, account: Account) -> int:
        """Disable an account: its tokens and upload URLs end at once, and its keys are refused; then its live jobs end.
        Returns how many these were.

        May be repeated: after a failure, the rest of the jobs is cancelled. Raises OwnAccount.
        """
        user_id = await self.id_of(account)
        await self._db.write(partial(_disable, user_id=user_id), alone_with=user_id)
        return await self._cancel_jobs(user_id)

    async def set_role(self, account: Account, role: Role) -> None:
        """Give an account this role, which counts from its next request on. Raises OwnAccount."""
        await self._db.write(lambda conn: _set_role(conn, _id_of(conn, account), role))

    async def set_password(self, email: str, password: str) -> None:
        """Change the password, and end all sessions. Raises WeakPassword."""
        password_hash, user_id = await self._auth.hashed(password, email), await self.id_of(email)

        def work(conn: Connection) -> None:
            users.change(conn, user_id, password_hash=password_hash)
            sessions.end(conn, sessions.of_user(user_id))
            users.record(conn, UserPasswordChanged(), user_id)

        await self._db.write(work, alone_with=user_id)

    async def change_quota(
        self, account: Account, limits: Mapping[str, int | None], principal: Principal | None = None
    ) -> tuple[Usage, Quota]:
        """Set quotas by their names; none: only look. Returns what the account uses, and its quota."""

        def work(conn: Connection) -> tuple[Usage, Quota]:
            user_id = _id_of(conn, account)
            if limits:
                quotas.change(conn, user_id, limits)
                users.record(conn, UserQuotaChanged(limits=dict(limits)), user_id)
            return self._quotas.of(conn, user_id)

        return await self._db.write(required(principal, work))

    async def sign_out(self, account: Account) -> int:
        """End all sessions. Returns how many there were."""
        user_id = await self.id_of(account)
        return await self._db.write(partial(end_sessions, user_id=user_id), alone_with=user_id)

    async def revoke_keys(self, email: str) -> int:
        """Revoke all API keys. Returns how many there were."""
        user_id = await self.id_of(email)
        return await self._db.write(partial(api_keys.revoke, owner_id=user_id), alone_with=user_id)

    async def erase(self, email: str) -> Erased:
        """Delete an account and all that it owns; of its events, ids are left. Returns what was deleted, and what is
        left.

        May be repeated: after a failure, the rest is deleted. The account itself comes last, and then its address is
        free. Raises OnHold, Skipped if the files may be another database's, and Conflict if a document came meanwhile.
        """
        user_id = await self.id_of(email)
        await self.erasure.require_allowed(user_id)
        await self.disable(email)
        return await self.erasure.run(user_id)

    async def _cancel_jobs(self, user_id: UUID) -> int:
        """Cancel the live jobs of an account. Returns how many these were."""
        cancelled = 0
        while some := await self._db.write(partial(settlement.cancel_some, kinds=self._kinds, owner_id=user_id)):
            cancelled += some
        return cancelled


def _id_of(conn: Connection, account: Account) -> UUID:
    user = users.by_email(conn, account) if isinstance(account, str) else users.by_id(conn, account)
    if user is None:
        raise errors.NotFound("There is no such user.")
    user_id: UUID = user.id
    return user_id


def _enable(conn: Connection, user_id: UUID) -> None:
    if users.change(conn, user_id, ~table.c.active, active=True):
        users.record(conn, UserEnabled(), user_id)


def _disable(conn: Connection, user_id: UUID) -> None:
    """Disable an account, and end its sessions. Raises OwnAccount."""
    _refuse_own(user_id)
    sessions.end(conn, sessions.of_user(user_id))
    if users.change(conn, user_id, table.c.active, active=False):
        users.record(conn, UserDisabled(), user_id)


def _set_role(conn: Connection, user_id: UUID, role: Role) -> None:
    """Give an account this role. Raises OwnAccount."""
    if role is Role.USER:
        _refuse_own(user_id)
    old = Role.USER if role is Role.OPERATOR else Role.OPERATOR
    if users.change(conn, user_id, func.coalesce(table.c.role, Role.USER) == old, role=role):
        users.record(conn, UserRoleChanged(old=old, new=role), user_id)


def _refuse_own(user_id: UUID) -> None:
    """Raise OwnAccount if it is that of the operator who acts."""
    if context.actor.get() == context.operator(user_id):
        raise errors.OwnAccount
