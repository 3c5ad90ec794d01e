"""What clients do with accounts: register, log in and out, refresh, change the password, see and end sessions."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

import structlog
from sqlalchemy import ColumnElement, Connection, Row

from app import errors, events
from app.auth import sessions, users
from app.auth.attempts import Attempt, Attempts, check, failed, succeeded
from app.auth.credentials import required
from app.auth.models import users as table
from app.auth.password_policy import normalized, refuse_weak
from app.auth.passwords import PasswordHasher
from app.auth.principal import SCOPES_OF, Principal
from app.auth.schemas import Account, SessionPage, TokenPair, User
from app.auth.sessions import Issued, SignedIn
from app.auth.tokens import AccessTokens
from app.database import Database, now
from app.events.catalogue.accounts import (
    UserLoggedIn,
    UserLoggedOut,
    UserLoginFailed,
    UserPasswordChanged,
    UserRefreshTokenReused,
    UserSessionEnded,
)
from app.quotas import Quotas
from app.settings import Settings
from app.telemetry import context, faults, metrics
from app.web import pagination

_Begun = TypeVar("_Begun", Issued, SignedIn)
_Begin = Callable[[Connection, UUID, Settings], _Begun]


class AuthService:
    """Registers and authenticates users, and begins, refreshes and ends their sessions."""

    def __init__(
        self,
        db: Database,
        hasher: PasswordHasher,
        tokens: AccessTokens,
        attempts: Attempts,
        *,
        quotas: Quotas,
        settings: Settings,
    ) -> None:
        self._db = db
        self._hasher = hasher
        self._tokens = tokens
        self._attempts = attempts
        self._quotas = quotas
        self._settings = settings

    async def register(self, email: str, password: str) -> User:
        """Create an account for a client. Raises RegistrationClosed, WeakPassword, EmailTaken."""
        if not self._settings.registration_open:
            raise errors.RegistrationClosed
        self._quotas.reserve.require()
        return await self.create_user(email, password)

    async def create_user(self, email: str, password: str) -> User:
        """Create an account. Raises WeakPassword, EmailTaken."""
        password_hash = await self.hashed(password, email)
        return User.model_validate(await self._db.write(lambda conn: users.add(conn, email, password_hash)))

    async def hashed(self, password: str, email: str, pointer: str = "/password") -> str:
        """The hash of a new password for the account with this address. Raises WeakPassword, about the `pointer`."""
        password = normalized(password)
        refuse_weak(password, email, pointer)
        return await self._hasher.hash(password)

    async def login(self, email: str, password: str) -> TokenPair:
        """Begin a session.

        Raises InvalidCredentials, after the same time whether or not the user exists, LoginThrottled, TooBusy.
        """
        return self._pair(await self._begun(email, password, sessions.begin))

    async def sign_in(self, email: str, password: str) -> str:
        """Begin a session of a browser, and return what its cookie holds. Raises as `login` does."""
        return (await self._begun(email, password, sessions.begin_in_browser)).cookie

    async def _begun(self, email: str, password: str, begin: _Begin[_Begun]) -> _Begun:
        attempt = self._attempts.to(email)
        row, matches = await self._verified(attempt, password, lambda conn: users.by_email(conn, email))

        def work(conn: Connection) -> _Begun | None:
            session = self._begin(conn, row.id, row.password_hash, begin) if row and matches else None
            _settle(conn, attempt, row.id if row else None, right=session is not None)
            return session

        with _throttled_counted():
            session = await self._db.write(work)
        metrics.logins.labels("succeeded" if session else "failed").inc()
        if session is None:
            raise errors.InvalidCredentials
        structlog.contextvars.bind_contextvars(user_id=str(session.user_id))
        return session

    async def refresh(self, refresh_token: str) -> TokenPair:
        """Exchange a refresh token for a new pair. Reuse ends its session. Raises InvalidRefreshToken."""
        session = await self._db.write(lambda conn: self._rotate(conn, refresh_token))
        faults.hit("refresh.after_commit")
        if session is None:
            raise errors.InvalidRefreshToken
        return self._pair(session)

    async def logout(self, refresh_token: str) -> None:
        """End the token's session. An unknown token is ignored: it may have expired."""

        def work(conn: Connection) -> None:
            _end_of_token(conn, sessions.of_token(conn, refresh_token), UserLoggedOut)

        await self._db.write(work)

    async def authenticate(self, access_token: str) -> Principal:
        """The principal of an access token, who may do all that the role of its user allows. Raises InvalidToken."""
        claims = self._tokens.verify(access_token)
        valid = partial(sessions.authenticated, user_id=claims.user_id, session_id=claims.session_id)
        role = await self._db.read(valid)
        if role is None:
            raise errors.InvalidToken
        actor = context.user(claims.user_id)
        return Principal(claims.user_id, actor, SCOPES_OF[role], via="jwt", credential_id=claims.session_id)

    async def authenticate_browser(self, cookie: str) -> Principal:
        """The principal of a browser's cookie, who may do all that the role of its user allows. Raises InvalidToken."""
        session = await self._db.read(partial(sessions.of_cookie, cookie=cookie, settings=self._settings))
        if session is None:
            raise errors.InvalidToken
        if not session.recent:
            await self._db.write(lambda conn: sessions.use_in_browser(conn, session.session_id, self._settings))
        actor = context.user(session.user_id)
        return Principal(
            session.user_id, actor, SCOPES_OF[session.role], via="cookie", credential_id=session.session_id
        )

    def access_token(self, principal: Principal) -> str:
        """An access token of the principal's own session, with which it ends."""
        assert principal.via == "cookie", "others have theirs"
        assert principal.credential_id, "it names its session"
        return self._tokens.issue(principal.owner_id, principal.credential_id)

    async def sign_out(self, principal: Principal) -> None:
        """End the principal's own session."""
        await self._db.write(partial(_end_of_token, session_id=principal.credential_id, event=UserLoggedOut))

    async def account(self, user_id: UUID) -> Account:
        """The active user whom an access token was issued to, and what they use. Raises InvalidToken."""

        def read(conn: Connection) -> Account:
            row = users.active(conn, user_id)
            if row is None:
                raise errors.InvalidToken
            usage, quota = self._quotas.of(conn, user_id)
            return Account(**row | {"role": users.role_in(row)}, usage=usage, quota=quota)

        return await self._db.read(read)

    async def change_password(self, principal: Principal, current: str, new: str) -> None:
        """Change the password, and end all sessions but the principal's own.

        Raises WrongPassword, WeakPassword, InvalidToken, LoginThrottled, TooBusy.
        """
        row = await self._db.read(partial(users.active, user_id=principal.owner_id))
        if row is None:
            raise errors.InvalidToken
        attempt = self._attempts.to(row["email"])
        _, matches = await self._verified(attempt, current, lambda conn: users.by_email(conn, row["email"]))
        with _throttled_counted():
            await self._db.write(partial(_settle, attempt=attempt, user_id=row["id"], right=matches))
        if not matches:
            raise errors.WrongPassword
        new_hash = await self.hashed(new, row["email"], "/new_password")

        def work(conn: Connection) -> None:
            if not users.change(conn, row["id"], *_is_still(row["password_hash"]), password_hash=new_hash):
                raise errors.WrongPassword
            own = principal.credential_id
            sessions.end(conn, sessions.of_user(row["id"], but=own))
            event = UserPasswordChanged(family_id=str(own) if own else None)
            users.record(conn, event, row["id"])

        await self._db.write(required(principal, work))

    async def sessions(self, principal: Principal, limit: int, cursor: str | None) -> SessionPage:
        """A page of the principal's sessions, the latest login first. Raises InvalidCursor."""
        after = pagination.decode(cursor, "sessions", datetime).id if cursor else None
        find = partial(sessions.page, user_id=principal.owner_id, current=principal.credential_id, after=after)
        items, last = pagination.page(await self._db.read(partial(find, limit=limit + 1)), limit)
        end = pagination.encode("sessions", last.created_at, last.id) if last else None
        return SessionPage(items=items, next_cursor=end)

    async def end_session(self, principal: Principal, session_id: UUID) -> None:
        """End a session of the principal's user, be it the principal's own. Raises NotFound."""

        def work(conn: Connection) -> None:
            if not end_sessions(conn, principal.owner_id, only=session_id):
                raise errors.NotFound

        await self._db.write(work)

    async def end_other_sessions(self, principal: Principal) -> None:
        """End all sessions of the principal's user but the principal's own."""
        await self._db.write(partial(end_sessions, user_id=principal.owner_id, but=principal.credential_id))

    async def _verified(
        self, attempt: Attempt, password: str, find: Callable[[Connection], Row[Any] | None]
    ) -> tuple[Row[Any] | None, bool]:
        """The user that is found, and whether the password is theirs. Raises LoginThrottled before it is verified."""

        def read(conn: Connection) -> Row[Any] | None:
            check(conn, attempt)
            return find(conn)

        with _throttled_counted():
            row = await self._db.read(read)
        return row, await self._matches(password, row.password_hash if row else None)

    async def _matches(self, password: str, hashed: str | None) -> bool:
        """Whether the password matches. The hashes of earlier releases are of the password as it was sent."""
        for spelling in dict.fromkeys((normalized(password), password)):
            if await self._hasher.verify(spelling, hashed):
                return True
        return False

    def _begin(self, conn: Connection, user_id: UUID, password_hash: str, begin: _Begin[_Begun]) -> _Begun | None:
        """Begin a session, unless the account was disabled or given another password while this one was verified."""
        if not users.change(conn, user_id, *_is_still(password_hash), last_login_at=now()):
            return None
        session = begin(conn, user_id, self._settings)
        users.record(conn, UserLoggedIn(family_id=str(session.session_id)), user_id)
        return session

    def _rotate(self, conn: Connection, refresh_token: str) -> Issued | None:
        session = sessions.rotate(conn, refresh_token, self._settings)
        if session is None:
            reused = sessions.of_token(conn, refresh_token, rotated=True)
            _end_of_token(conn, reused, UserRefreshTokenReused)
        return session

    def _pair(self, session: Issued) -> TokenPair:
        return TokenPair(
            access_token=self._tokens.issue(session.user_id, session.session_id),
            refresh_token=session.refresh_token,
            expires_in=max(1, round(self._tokens.ttl)),
        )


def end_sessions(conn: Connection, user_id: UUID, *, only: UUID | None = None, but: UUID | None = None) -> int:
    """End the sessions of a user, with an event for each. Returns how many there were."""
    which = [sessions.of_user(user_id, but=but)] + ([sessions.by_id(only)] if only else [])
    ended = sessions.end(conn, *which)
    for session in ended:
        users.record(conn, UserSessionEnded(family_id=str(session.id)), user_id)
    return len(ended)


@contextmanager
def _throttled_counted() -> Iterator[None]:
    try:
        yield
    except errors.LoginThrottled:
        metrics.logins.labels("throttled").inc()
        raise


def _settle(conn: Connection, attempt: Attempt, user_id: UUID | None, *, right: bool) -> None:
    """Count or forget failures by what came of an attempt. Raises LoginThrottled if others have failed meanwhile: what
    was verified is then not told, however many try at once."""
    check(conn, attempt)
    if right:
        succeeded(conn, attempt)
        return
    failed(conn, attempt)
    with context.acting(context.actor.get() or context.ANONYMOUS):
        events.append(conn, UserLoginFailed(client=context.client.get()), user_id=user_id)


def _is_still(password_hash: str) -> tuple[ColumnElement[bool], ...]:
    """The conditions that a user is active and has the password that was verified."""
    return table.c.active, table.c.password_hash == password_hash


def _end_of_token(
    conn: Connection,
    session_id: UUID | None,
    event: type[UserLoggedOut | UserRefreshTokenReused],
) -> None:
    for session in sessions.end(conn, sessions.by_id(session_id)) if session_id else ():
        users.record(conn, event(family_id=str(session.id)), session.user_id)
