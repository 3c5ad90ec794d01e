"""DATABASE_URL: where the rows are. Errors do not repeat the value, which may hold a password."""

from pathlib import Path

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from app.settings import urls

SQLITE = "sqlite+aiosqlite:///"
GRAMMAR = "postgresql+asyncpg://user:password@host:port/name?ssl=…"
TLS = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")  # libpq's values of sslmode


def is_postgresql(url: str) -> bool:
    """Return whether a URL is meant for PostgreSQL, valid or not."""
    return url.startswith("postgres")


def postgresql(url: str) -> str:
    """Return the URL unchanged if it names a database and the driver asyncpg. Raises ValueError."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        parsed = None
    if parsed is None or parsed.drivername != "postgresql+asyncpg" or not parsed.database:
        raise ValueError(f"must be {GRAMMAR}")
    if unknown := parsed.query.keys() - {"ssl", "host"}:
        raise ValueError(f"has an unknown option: {min(unknown)!r:.40}; its form is {GRAMMAR}")
    if parsed.query.get("ssl", "prefer") not in TLS:
        raise ValueError(f"has an ssl other than {', '.join(TLS)}")
    return url


def sqlite_file(url: str) -> Path:
    """Return the file that a URL names. Raises ValueError."""
    return urls.file_path(url, SQLITE)
