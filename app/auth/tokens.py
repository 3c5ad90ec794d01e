"""Access tokens (JWT, RFC 7519, HS256) and refresh tokens (opaque, stored hashed).

python-jose signs and verifies; the one verifier here adds the checks that it lacks (RFC 8725).
"""

import hashlib
import hmac
import json
import re
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from jose import jwk, jwt
from uuid_utils.compat import uuid7

from app.errors import ConfigurationError, InvalidToken
from app.settings.access import MIN_SECRET_BYTES
from app.settings.generated import generated

MAX_TOKEN_BYTES = 4096
_CACHED_TOKENS = 4096
LEEWAY_SECONDS = 10  # by which the clock of the host that issued a token may be ahead
_LATEST = 4102444800  # 2100-01-01: an expiry beyond this is in milliseconds, or means never
_PART = re.compile(r"[A-Za-z0-9_-]+")
_REQUIRED = {f"require_{claim}": True for claim in ("aud", "iat", "exp", "iss", "sub", "jti")}


class Claims(NamedTuple):
    """The verified claims of a token. Times are Unix times. The release before issued tokens without a session."""

    user_id: UUID
    session_id: UUID | None
    issued_at: int
    expires_at: int


class AccessTokens:
    """Issues and verifies access tokens: the first secret signs, and all verify. `ttl` is in seconds."""

    def __init__(self, secrets: Sequence[str], *, issuer: str, audience: str, ttl: float) -> None:
        if any(len(secret.encode()) < MIN_SECRET_BYTES for secret in secrets):
            raise ConfigurationError(f"the signing secret must be at least {MIN_SECRET_BYTES} bytes")
        # As key objects: python-jose takes a secret that happens to be JSON for a key set.
        self._keys = {_key_id(secret): jwk.construct(secret, "HS256") for secret in secrets}
        self._signing = _key_id(secrets[0])
        # Only the time changes the outcome for a token that was verified before. A third of the cost of a request.
        self._verified = lru_cache(_CACHED_TOKENS)(self._verify)
        self._issuer = issuer
        self._audience = audience
        self.ttl = ttl

    def issue(self, user_id: UUID, session_id: UUID) -> str:
        """A signed token for the user in this session, valid from now for `ttl` seconds."""
        now = int(time.time())
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": str(user_id),
            "sid": str(session_id),
            "jti": str(uuid7()),
            "iat": now,
            "exp": now + max(1, round(self.ttl)),
            "typ": "access",
        }
        key = self._keys[self._signing]
        return str(jwt.encode(claims, key, algorithm="HS256", headers={"kid": self._signing}))

    def verify(self, token: str) -> Claims:
        """What the token claims: above all, the user and the session that it was issued for. Raises InvalidToken."""
        try:
            claims = self._verified(token)
        except Exception as error:  # python-jose raises RecursionError, TypeError and OverflowError on hostile tokens
            raise InvalidToken from error
        if not claims.issued_at - LEEWAY_SECONDS <= time.time() < claims.expires_at:
            raise InvalidToken
        return claims

    def _verify(self, token: str) -> Claims:
        if len(token) > MAX_TOKEN_BYTES:
            raise InvalidToken
        parts = token.split(".")
        if len(parts) != 3:
            raise InvalidToken
        header = json.loads(_decoded(parts[0]))
        if header.get("alg") != "HS256" or "crit" in header or "b64" in header:
            raise InvalidToken
        _decoded(parts[1])
        _decoded(parts[2])
        claims = jwt.decode(
            token,
            self._keys[header.get("kid", self._signing)],  # the release before names no key
            algorithms=["HS256"],
            audience=self._audience,
            issuer=self._issuer,
            options={**_REQUIRED, "leeway": LEEWAY_SECONDS},
        )
        if claims["typ"] != "access" or not all(type(claims[each]) is int for each in ("iat", "exp")):
            raise InvalidToken
        if claims["exp"] > _LATEST:
            raise InvalidToken
        session_id = UUID(claims["sid"]) if "sid" in claims else None
        return Claims(UUID(claims["sub"]), session_id, claims["iat"], claims["exp"])


def _key_id(secret: str) -> str:
    """What `kid` says of a secret (RFC 7515 §4.1.4): eight hex digits that do not reveal it."""
    return hashlib.sha256(secret.encode()).hexdigest()[:8]


def _decoded(part: str) -> bytes:
    """Decode base64url. Raises InvalidToken for any spelling but the canonical one (RFC 7515 §2)."""
    if not _PART.fullmatch(part):
        raise InvalidToken
    raw = urlsafe_b64decode(part + "=" * (-len(part) % 4))
    if urlsafe_b64encode(raw).rstrip(b"=").decode() != part:
        raise InvalidToken
    return raw


def new_refresh_token() -> str:
    """The first refresh token of a session."""
    return secrets.token_urlsafe(32)


def new_child_seed() -> bytes:
    """What is stored with a refresh token when it is rotated, for `child_refresh_token`."""
    return secrets.token_bytes(32)


def child_refresh_token(parent: str, seed: bytes) -> str:
    """The refresh token that follows its parent: the same one whenever it is computed.

    It takes both the parent, of which the database has only the hash, and the seed, which only the database has.
    """
    return urlsafe_b64encode(hmac.digest(parent.encode(), seed, "sha256")).rstrip(b"=").decode()


def refresh_token_hash(token: str) -> bytes:
    """SHA-256 of the token, which has enough entropy to need no salt."""
    return hashlib.sha256(token.encode()).digest()


def development_secret(data_dir: Path) -> str:
    """The signing secret of a development server."""
    return generated(data_dir / "jwt-secret", lambda: secrets.token_urlsafe(48))
