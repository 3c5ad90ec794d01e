"""Accounts, logins, and the rotation of refresh tokens."""

from collections.abc import Callable
from functools import partial
from uuid import UUID

from sqlalchemy import Connection, and_, bindparam, func, insert, or_, select, update
from uuid_utils.compat import uuid7

from app import errors, events
from app.auth.models import refresh_tokens, token_families, users
from app.auth.passwords import PasswordHasher
from app.auth.principal import ALL_SCOPES, Principal
from app.auth.schemas import TokenPair, User
from app.auth.tokens import AccessTokens, new_refresh_token, refresh_token_hash
from app.database import Database, Prepared, delete_batch, insert_on_conflict, now
from app.events import catalogue
from app.events.catalogue import Event
from app.settings import Settings
from app.telemetry import context, faults

_ACTIVE = Prepared(select(users.c.id).where(users.c.id == bindparam("id"), users.c.active))
_USER = Prepared(
    select(users.c.id, users.c.email, users.c.created_at).where(users.c.id == bindparam("id"), users.c.active)
)


class AuthService:
    """Registers and authenticates users, and issues, rotates and revokes their tokens."""

    def __init__(self, db: Database, hasher: PasswordHasher, tokens: AccessTokens, settings: Settings) -> None:
        self._db = db
        self._hasher = hasher
        self._tokens = tokens
        self._settings = settings

    async def register(self, email: str, password: str) -> User:
        """Create an account for a client. Raises RegistrationClosed, EmailTaken."""
        if self._settings.registration == "closed":
            raise errors.RegistrationClosed
        return await self.create_user(email, password)

    async def create_user(self, email: str, password: str) -> User:
        """Create an account. Raises EmailTaken."""
        password_hash = await self._hasher.hash(password)
        return await self._db.write(lambda conn: _create_user(conn, email, password_hash))

    async def login(self, email: str, password: str) -> TokenPair:
        """Begin a token family. Raises InvalidCredentials, after the same time whether or not the user exists."""
        row = await self._db.read(lambda conn: conn.execute(select(users).where(users.c.email == email)).one_or_none())
        matches = await self._hasher.verify(password, row.password_hash if row else None)
        if row is None or not matches or not row.active:
            raise errors.InvalidCredentials
        return await self._db.write(lambda conn: self._begin_family(conn, row.id))

    async def refresh(self, refresh_token: str) -> TokenPair:
        """Exchange a refresh token for a new pair. Reuse revokes its family. Raises InvalidRefreshToken."""
        pair = await self._db.write(lambda conn: self._rotate(conn, refresh_token_hash(refresh_token)))
        faults.hit("refresh.after_commit")
        if pair is None:
            raise errors.InvalidRefreshToken
        return pair

    async def logout(self, refresh_token: str) -> None:
        """Revoke the token's family. An unknown token is ignored: it may have expired."""
        await self._db.write(lambda conn: _revoke(conn, refresh_token_hash(refresh_token), catalogue.UserLoggedOut))

    async def authenticate(self, access_token: str) -> Principal:
        """The principal of an access token, who may do all that its user may. Raises InvalidToken."""
        user_id = self._tokens.verify(access_token)
        if await self._db.read(partial(_ACTIVE.one, values={"id": user_id})) is None:
            raise errors.InvalidToken
        return Principal(user_id, context.user(user_id), ALL_SCOPES, via="jwt")

    async def user(self, user_id: UUID) -> User:
        """The active user whom an access token was issued to. Raises InvalidToken."""
        row = await self._db.read(partial(_USER.one, values={"id": user_id}))
        if row is None:
            raise errors.InvalidToken
        return User.model_validate(row)

    async def disable(self, email: str) -> None:
        """Disable an account and revoke its logins; its access tokens stop working at once. Raises NotFound."""
        await self._db.write(lambda conn: _disable(conn, email))

    async def list_users(self) -> list[tuple[User, bool]]:
        """Every user, oldest first, and whether each is active."""
        query = select(users).order_by(users.c.id)
        rows = await self._db.read(lambda conn: conn.execute(query).all())
        return [(User.model_validate(row), row.active) for row in rows]

    def _begin_family(self, conn: Connection, user_id: UUID) -> TokenPair:
        family_id = uuid7()
        expiry = now(self._settings.refresh_family_ttl)
        conn.execute(insert(token_families).values(id=family_id, user_id=user_id, expires_at=expiry))
        _record(conn, catalogue.UserLoggedIn(), user_id)
        return self._issue(conn, user_id, family_id, None)

    def _rotate(self, conn: Connection, token_hash: bytes) -> TokenPair | None:
        """Rotate by one conditional UPDATE. None if the token is not valid; reuse also revokes its family."""
        child = refresh_tokens.alias("child")
        child_rotated = select(child.c.id).where(
            child.c.parent_id == refresh_tokens.c.id, child.c.rotated_at.is_not(None)
        )
        # The direct predecessor may be used again for a moment: two tabs refresh at once, or a response was lost.
        in_grace = and_(
            refresh_tokens.c.rotated_at > now(-self._settings.refresh_grace_seconds), ~child_rotated.exists()
        )
        family_alive = (
            select(token_families.c.id)
            .join(users, users.c.id == token_families.c.user_id)
            .where(
                token_families.c.id == refresh_tokens.c.family_id,
                token_families.c.revoked_at.is_(None),
                token_families.c.expires_at > now(),
                users.c.active,
            )
        )
        rotated = conn.execute(
            update(refresh_tokens)
            .where(
                refresh_tokens.c.token_hash == token_hash,
                refresh_tokens.c.expires_at > now(),
                or_(refresh_tokens.c.rotated_at.is_(None), in_grace),
                family_alive.exists(),
            )
            .values(rotated_at=func.coalesce(refresh_tokens.c.rotated_at, now()))
            .returning(refresh_tokens.c.id, refresh_tokens.c.family_id)
        ).one_or_none()
        if rotated is None:
            _revoke(conn, token_hash, catalogue.UserRefreshTokenReused, if_rotated=True)
            return None
        user_id = conn.scalar(select(token_families.c.user_id).where(token_families.c.id == rotated.family_id))
        assert user_id is not None
        return self._issue(conn, user_id, rotated.family_id, rotated.id)

    def _issue(self, conn: Connection, user_id: UUID, family_id: UUID, parent_id: UUID | None) -> TokenPair:
        refresh_token, token_hash = new_refresh_token()
        conn.execute(
            insert(refresh_tokens).values(
                id=uuid7(),
                family_id=family_id,
                parent_id=parent_id,
                token_hash=token_hash,
                expires_at=now(self._settings.refresh_token_ttl),
            )
        )
        return TokenPair(
            access_token=self._tokens.issue(user_id),
            refresh_token=refresh_token,
            expires_in=max(1, round(self._tokens.ttl)),
        )


async def forget_expired(db: Database) -> None:
    """Delete families past their absolute expiry, with their tokens, however many they are."""
    while await db.write(_forget_some):
        pass


def _forget_some(conn: Connection) -> bool:
    """Whether there may be more. A family may have thousands of tokens, so these are not left to the cascade."""
    expiry, family_id = token_families.c.expires_at, refresh_tokens.c.family_id
    expired, of_family = expiry <= now(), family_id == token_families.c.id
    tokens = delete_batch(conn, refresh_tokens, expired, of_family, oldest=expiry, returning=(family_id,))
    empty = ~select(family_id).where(of_family).correlate(token_families).exists()
    return bool(delete_batch(conn, token_families, expired, empty, oldest=expiry) or tokens)


def _create_user(conn: Connection, email: str, password_hash: str) -> User:
    row = conn.execute(
        insert_on_conflict(conn, users)
        .values(id=uuid7(), email=email, password_hash=password_hash, active=True, created_at=now())
        .on_conflict_do_nothing(index_elements=["email"])
        .returning(*users.c)
    ).one_or_none()
    if row is None:
        raise errors.EmailTaken
    _record(conn, catalogue.UserRegistered(), row.id)
    return User.model_validate(row)


def _disable(conn: Connection, email: str) -> None:
    user_id = conn.scalar(update(users).where(users.c.email == email).values(active=False).returning(users.c.id))
    if user_id is None:
        raise errors.NotFound("There is no such user.")
    conn.execute(update(token_families).where(token_families.c.user_id == user_id).values(revoked_at=now()))
    _record(conn, catalogue.UserDisabled(), user_id)


def _revoke(
    conn: Connection,
    token_hash: bytes,
    event: Callable[..., Event],
    *,
    if_rotated: bool = False,
) -> None:
    """Revoke the family of a token that is known and, `if_rotated`, was used before."""
    query = select(refresh_tokens.c.family_id, refresh_tokens.c.rotated_at, token_families.c.user_id)
    query = query.join(token_families, token_families.c.id == refresh_tokens.c.family_id)
    token = conn.execute(query.where(refresh_tokens.c.token_hash == token_hash)).one_or_none()
    if token is None or (if_rotated and token.rotated_at is None):
        return
    revoked = conn.execute(
        update(token_families)
        .where(token_families.c.id == token.family_id, token_families.c.revoked_at.is_(None))
        .values(revoked_at=now())
    )
    if revoked.rowcount:
        _record(conn, event(family_id=str(token.family_id)), token.user_id)


def _record(conn: Connection, event: Event, user_id: UUID) -> None:
    """Append an event of an account. Its actor is the context's, such as the operator; without one, the user."""
    with context.acting(context.actor.get() or context.user(user_id)):
        events.append(conn, event, user_id=user_id)
