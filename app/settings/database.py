"""DATABASE_URL: where rows are. What cannot be a database is refused here, in words that do not repeat the value."""

from pathlib import Path

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from app.settings import urls

SQLITE = "sqlite+aiosqlite:///"
GRAMMAR = "postgresql+asyncpg://user:password@host:port/name?ssl=…"
TLS = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")  # libpq's names of what ssl may be


def is_postgresql(url: str) -> bool:
    return url.startswith("postgres")


def postgresql(url: str) -> str:
    """The URL as it is, if it names a database and asyncpg as its driver. Raises ValueError."""
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
    """The file that a URL names. Raises ValueError."""
    return urls.file_path(url, SQLITE)
