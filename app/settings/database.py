"""DATABASE_URL: where the rows are."""

from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from app.settings.urls import file_path

_TLS = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")  # libpq's values of sslmode


def parse(url: str) -> Path | URL:
    """Return SQLite's file, or the URL of PostgreSQL, whose text hides the password. Raises ValueError."""
    if not url.startswith("postgres"):
        return file_path(url, "sqlite+aiosqlite:///")
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        parsed = None
    if parsed is None or parsed.drivername != "postgresql+asyncpg" or not parsed.database:
        raise ValueError("must be postgresql+asyncpg://user:password@host:port/name?ssl=…")
    if unknown := parsed.query.keys() - {"ssl", "host"}:
        raise ValueError(f"has an unknown option: {min(unknown)!r:.40}")
    if parsed.query.get("ssl", "prefer") not in _TLS:
        raise ValueError(f"has an ssl other than {', '.join(_TLS)}")
    return parsed
