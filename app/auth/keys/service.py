"""What clients do with API keys: make, see, rotate and revoke them, and prove themselves with one."""

from dataclasses import replace
from datetime import datetime
from functools import partial
from uuid import UUID

from sqlalchemy import Connection

from app import errors, idempotency
from app.auth import users
from app.auth.credentials import required
from app.auth.keys import repository
from app.auth.keys.schemas import ApiKey, ApiKeyPage, ApiKeyRotation, IssuedApiKey, NewApiKey
from app.auth.keys.text import is_key, key_hash, new_key
from app.auth.keys.uses import Uses
from app.auth.principal import Principal
from app.database import Database
from app.events.catalogue.accounts import KeyCreated, KeyRotated
from app.idempotency import KeyedRequest, StoredResponse
from app.quotas.reserve import Reserve
from app.settings import Settings
from app.web import pagination

_PATH = "/api-keys"


class ApiKeys:
    """Makes and ends the keys of accounts, and authenticates requests by them."""

    def __init__(self, db: Database, reserve: Reserve, settings: Settings) -> None:
        self._db = db
        self._reserve = reserve
        self._settings = settings
        self.uses = Uses(db)

    async def authenticate(self, key: str) -> Principal:
        """The principal of a key. Raises InvalidToken, without a look into the database if the checksum is wrong, and
        ApiKeyExpired."""
        if not is_key(key):
            raise errors.InvalidToken
        principal = await self._db.read(partial(repository.authenticated, secret_hash=key_hash(key)))
        if principal.credential_id:
            self.uses.note(principal.credential_id)
        return principal

    async def create(self, principal: Principal, wanted: NewApiKey, key: str | None) -> StoredResponse:
        """Make a key that may do what the principal itself may. `key` is the Idempotency-Key, if there is one.

        Raises InsufficientScope, ValidationFailed, ApiKeyQuotaExceeded, IdempotencyKeyReused, StorageFull.
        """
        self._reserve.require()
        for scope in wanted.scopes:
            principal.require(scope)
        expires_in, most, secret = self._allowed(wanted.expires_in), self._settings.quota_api_keys, new_key()

        def work(conn: Connection) -> StoredResponse:
            if most and repository.count(conn, principal.owner_id) >= most:
                raise errors.ApiKeyQuotaExceeded
            made = repository.add(conn, principal.owner_id, wanted, expires_in, secret)
            expires_at = made.expires_at.isoformat() if made.expires_at else None
            event = KeyCreated(key_id=str(made.id), scopes=made.scopes, expires_at=expires_at)
            users.record(conn, event, principal.owner_id)
            return _without_secret(made, 201)

        keyed = self._keyed(principal, key, _PATH, wanted)
        once = required(principal, partial(idempotency.once, request=keyed, work=work))
        return _with_secret(await self._db.write(once, alone_with=principal.owner_id), secret)

    async def rotate(
        self, principal: Principal, key_id: UUID, wanted: ApiKeyRotation, key: str | None
    ) -> StoredResponse:
        """Give a key another secret. Raises NotFound, RotationInProgress, Conflict, IdempotencyKeyReused."""
        secret, valid_for = new_key(), wanted.previous_valid_for

        def unit(conn: Connection) -> StoredResponse:
            before = repository.get(conn, principal.owner_id, key_id)  # before a replay: it may have been revoked

            def work(conn: Connection) -> StoredResponse:
                if before.previous_valid_until and valid_for:
                    raise errors.RotationInProgress
                if not repository.rotate(conn, key_id, secret, valid_for):
                    raise errors.Conflict("The key has expired. Make another.")
                event = KeyRotated(key_id=str(key_id), previous_valid_for=valid_for)
                users.record(conn, event, principal.owner_id)
                return _without_secret(repository.get(conn, principal.owner_id, key_id), 200)

            return idempotency.once(conn, keyed, work)

        keyed = self._keyed(principal, key, f"{_PATH}/{key_id}/rotate", wanted)
        return _with_secret(await self._db.write(required(principal, unit), alone_with=principal.owner_id), secret)

    async def get(self, principal: Principal, key_id: UUID) -> ApiKey:
        """One of the principal's keys. Raises NotFound."""
        return await self._db.read(partial(repository.get, owner_id=principal.owner_id, key_id=key_id))

    async def page(self, principal: Principal, limit: int, cursor: str | None) -> ApiKeyPage:
        """A page of the principal's keys, the newest first. Raises InvalidCursor."""
        after = pagination.decode(cursor, _PATH, datetime).id if cursor else None
        find = partial(repository.page, owner_id=principal.owner_id, after=after, limit=limit + 1)
        items, last = pagination.page(await self._db.read(find), limit)
        end = pagination.encode(_PATH, last.created_at, last.id) if last else None
        return ApiKeyPage(items=items, next_cursor=end)

    async def revoke(self, principal: Principal, key_id: UUID) -> None:
        """Refuse the key from now on. Raises NotFound."""

        def work(conn: Connection) -> None:
            if not repository.revoke(conn, principal.owner_id, only=key_id):
                raise errors.NotFound

        await self._db.write(work)

    def _allowed(self, expires_in: int | None) -> float | None:
        """In how many seconds a key expires, by what was asked for. Raises ValidationFailed beyond API_KEY_MAX_TTL."""
        longest = self._settings.api_key_max_ttl
        if not longest:
            return expires_in
        if expires_in is not None and expires_in > longest:
            raise errors.ValidationFailed(
                f"A key may be valid for at most {longest:.0f} seconds.", pointer="/expires_in"
            )
        return longest if expires_in is None else expires_in

    def _keyed(
        self, principal: Principal, key: str | None, path: str, body: NewApiKey | ApiKeyRotation
    ) -> KeyedRequest | None:
        sent = body.model_dump(mode="json")
        return idempotency.keyed(principal.owner_id, key, self._settings.idempotency_ttl, "POST", path, sent)


def _without_secret(key: ApiKey, status: int) -> StoredResponse:
    """The answer as it may be stored."""
    body = IssuedApiKey(**dict(key), key=None).model_dump_json()
    return StoredResponse(status, body.encode(), f"{_PATH}/{key.id}")


def _with_secret(answer: StoredResponse, secret: str) -> StoredResponse:
    """The answer to the request that was done, which alone has the secret."""
    if answer.replayed:
        return answer
    issued = IssuedApiKey.model_validate_json(answer.body).model_copy(update={"key": secret})
    return replace(answer, body=issued.model_dump_json().encode())
