"""DATABASE_URL: where the rows are."""

from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from app.settings.urls import file_path

_POSTGRESQL = ("postgresql+asyncpg", "postgresql", "postgres")
_TLS = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")  # libpq's values of sslmode


def parse(url: str) -> Path | URL:
    """Return SQLite's file, or the URL of PostgreSQL, whose text hides the password. Raises ValueError.

    The schemes without a driver, and `sslmode`, are what hosts of databases hand out.
    """
    if url.startswith("sqlite"):
        return file_path(url, "sqlite:///" if url.startswith("sqlite:") else "sqlite+aiosqlite:///")
    try:
        parsed = make_url(url.strip())
    except (ArgumentError, ValueError):
        parsed = None
    if parsed is None or parsed.drivername not in _POSTGRESQL or not parsed.database:
        raise ValueError("must be postgresql://user:password@host:port/name?ssl=… or sqlite:/// and a path")
    if "@" in (parsed.host or ""):
        raise ValueError("has a password with an @ in it: write %40")
    if {"ssl", "sslmode"} <= parsed.query.keys():
        raise ValueError("has both ssl and sslmode")
    query = {"ssl" if name == "sslmode" else name: value for name, value in parsed.query.items()}
    parsed = parsed.set(drivername=_POSTGRESQL[0], query=query)
    if unknown := parsed.query.keys() - {"ssl", "host"}:
        raise ValueError(f"has an unknown option: {min(unknown)!r:.40}")
    if parsed.query.get("ssl", "prefer") not in _TLS:
        raise ValueError(f"has an ssl other than {', '.join(_TLS)}")
    return parsed
