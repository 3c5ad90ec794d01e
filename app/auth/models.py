"""Tables of accounts, sessions, refresh tokens and API keys."""

from sqlalchemy import JSON, Boolean, Column, ForeignKey, Index, LargeBinary, String, Table, Uuid, text

from app.database import UTCDateTime, metadata

_WITH_COOKIE = text("cookie_hash IS NOT NULL")

users = Table(
    "users",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("email", String(254), nullable=False, unique=True),
    Column("password_hash", String(255), nullable=False),
    Column("active", Boolean, nullable=False),
    Column("created_at", UTCDateTime, nullable=False),
    Column("last_login_at", UTCDateTime),
    # NULL: a user, as processes of the release before make them.
    Column("role", String(8)),
)

# A session is a token family: a login, and all refresh tokens that descend from it. Whoever used it last, by a login or
# a refresh, was at this address with this User-Agent.
token_families = Table(
    "token_families",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("user_id", Uuid, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("expires_at", UTCDateTime, nullable=False, index=True),
    Column("revoked_at", UTCDateTime),
    Column("last_used_at", UTCDateTime),
    Column("address", String(64)),
    Column("user_agent", String(200)),
    # Of a browser's session, which has a cookie instead of tokens. NULL: it has tokens.
    Column("cookie_hash", LargeBinary(32)),
    Index(None, "user_id", "id"),
    Index(
        "uq_token_families_cookie_hash",
        "cookie_hash",
        unique=True,
        sqlite_where=_WITH_COOKIE,
        postgresql_where=_WITH_COOKIE,
    ),
)

refresh_tokens = Table(
    "refresh_tokens",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("family_id", Uuid, ForeignKey("token_families.id", ondelete="CASCADE"), nullable=False, index=True),
    # No foreign key: deleting a long chain by cascade would exceed SQLite's limit on trigger depth.
    Column("parent_id", Uuid),
    Column("token_hash", LargeBinary(32), nullable=False, unique=True),
    Column("expires_at", UTCDateTime, nullable=False, index=True),
    Column("rotated_at", UTCDateTime),
    # Set when the token is rotated. Together with the token itself, it gives the child.
    Column("child_seed", LargeBinary(32)),
    Index(None, "parent_id"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("owner_id", Uuid, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("name", String(100), nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("prefix", String(12), nullable=False),
    Column("created_at", UTCDateTime, nullable=False),
    # NULL: never.
    Column("expires_at", UTCDateTime, index=True),
    Column("revoked_at", UTCDateTime),
    # Its owner was told that it expires soon.
    Column("warned_at", UTCDateTime),
    Column("last_used_at", UTCDateTime),
    Column("last_used_ip", String(64)),
    Index(None, "owner_id", "id"),
)

# The present secret of a key, which has no expiry of its own, and from a rotation on the one before.
api_key_secrets = Table(
    "api_key_secrets",
    metadata,
    Column("hash", LargeBinary(32), primary_key=True),
    Column("key_id", Uuid, ForeignKey("api_keys.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("last4", String(4), nullable=False),
    Column("created_at", UTCDateTime, nullable=False),
    Column("expires_at", UTCDateTime),
)
