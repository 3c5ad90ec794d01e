"""Every environment variable, read once. Unsafe or impossible combinations are refused at start."""

from pathlib import Path
from typing import Literal, Self
from urllib.parse import unquote

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from app import faults

MIN_SECRET_BYTES = 32
SQLITE = "sqlite+aiosqlite:///"


class ConfigurationError(Exception):
    """The environment cannot be run with; the message is one line that names the variable."""


class Settings(BaseSettings):
    """Durations are seconds and may be fractions; sizes are bytes."""

    model_config = SettingsConfigDict(
        env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True, allow_inf_nan=False
    )

    environment: Literal["development", "production"] = Field(
        "development", description="`production` requires a JWT_SECRET and logs JSON."
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on.")
    workers: int = Field(1, ge=1, description="Server processes.")
    data_dir: Path = Field(Path("var"), description="Database file, uploaded files, development secret.")
    database_url: SecretStr | None = Field(
        None,
        description="`postgresql+asyncpg://user:password@host:port/name` or `sqlite+aiosqlite:///path`; "
        "empty: `app.db` in DATA_DIR.",
    )
    database_pool_size: int = Field(10, ge=1, description="PostgreSQL connections of one process at the most.")
    database_statement_timeout: float = Field(5, gt=0, description="PostgreSQL ends a statement after this long.")
    storage_url: str = Field("", description="`file:///path`; empty: `files` in DATA_DIR.")
    broker_url: str = Field("", description="Empty: jobs run in the server processes.")

    jwt_secret: SecretStr | None = Field(
        None, description="Signs access tokens; at least 32 bytes. Empty in development: generated into DATA_DIR."
    )
    jwt_issuer: str = Field("document-api", description="`iss` of access tokens.")
    jwt_audience: str = Field("document-api", description="`aud` of access tokens.")
    access_token_ttl: float = Field(900, gt=0, description="Life of an access token.")
    refresh_token_ttl: float = Field(14 * 86400, gt=0, description="A refresh token unused for this long expires.")
    refresh_family_ttl: float = Field(90 * 86400, gt=0, description="A login cannot be refreshed beyond this age.")
    refresh_grace_seconds: float = Field(10, ge=0, description="A rotated refresh token may be retried for this long.")
    registration: Literal["open", "closed"] = Field(
        "open", description="`closed`: users are made with `python -m app users create`."
    )

    max_upload_bytes: int = Field(100 * 1024**2, ge=1, description="Largest file accepted.")
    upload_slots: int = Field(16, ge=1, description="Uploads received at once by one process; others wait.")
    upload_idle_seconds: float = Field(15, gt=0, description="An upload that sends nothing for this long is cut off.")
    upload_min_rate: float = Field(1024, ge=0, description="Bytes a second an upload must average over 10 s.")

    lease_seconds: float = Field(30, gt=0, description="A job whose worker is silent for this long is taken over.")
    job_max_tries: int = Field(5, ge=1, le=100, description="Attempts before a job is a dead letter.")
    job_timeout: float = Field(600, gt=0, description="Hard limit of one attempt.")
    job_concurrency: int = Field(4, ge=1, description="Jobs run at once by one process.")
    drain_seconds: float = Field(20, ge=0, description="On SIGTERM, running jobs get this long to finish.")
    orphan_grace_seconds: float = Field(
        3600, gt=0, description="Files that belong to no document are removed after this long."
    )
    idempotency_ttl: float = Field(86400, gt=0, description="How long an Idempotency-Key is remembered.")

    fault: str = Field(
        "",
        pattern=rf"^(({'|'.join(faults.POINTS)}):[1-9]\d*)?$",
        description="For tests: `point:n` kills the process at the n-th hit of a fault point. Refused in production.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least severe level logged.")
    log_format: Literal["console", "json"] | None = Field(
        None, description="Empty: `json` in production, else `console`."
    )

    @model_validator(mode="after")
    def _refuse_unsafe(self) -> Self:
        if self.jwt_secret is None and self.environment == "production":
            raise ValueError("JWT_SECRET is required when ENVIRONMENT=production")
        if self.jwt_secret is not None and len(self.jwt_secret.get_secret_value().encode()) < MIN_SECRET_BYTES:
            raise ValueError(f"JWT_SECRET must be at least {MIN_SECRET_BYTES} bytes")
        if self.fault and self.environment == "production":
            raise ValueError("FAULT must not be set when ENVIRONMENT=production")
        if self.postgresql_url is None:
            _path("DATABASE_URL", self._database_url, SQLITE)
        _path("STORAGE_URL", self.storage_url, "file://")
        if self.broker_url:
            raise ValueError("BROKER_URL must be empty: jobs run in the server processes")
        return self

    @property
    def postgresql_url(self) -> str | None:
        """None when the database is SQLite."""
        return _postgresql(self._database_url) if self._database_url.startswith("postgres") else None

    @property
    def database_file(self) -> Path:
        return _path("DATABASE_URL", self._database_url, SQLITE) or self.data_dir / "app.db"

    @property
    def _database_url(self) -> str:
        return self.database_url.get_secret_value() if self.database_url else ""

    @property
    def storage_dir(self) -> Path:
        return _path("STORAGE_URL", self.storage_url, "file://") or self.data_dir / "files"

    @property
    def logs_as_json(self) -> bool:
        return (self.log_format or ("json" if self.environment == "production" else "console")) == "json"


def _postgresql(url: str) -> str:
    """The URL as it is. Raises ValueError, which does not repeat it, for another driver or without a database."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        parsed = None
    if parsed is None or parsed.drivername != "postgresql+asyncpg" or not parsed.database:
        raise ValueError("DATABASE_URL must be postgresql+asyncpg://user:password@host:port/name")
    return url


def _path(variable: str, url: str, prefix: str) -> Path | None:
    """The path of a URL; None without one. Raises ValueError for a URL that names no file or folder of its own."""
    if not url:
        return None
    path = Path(unquote(url.removeprefix(prefix)))
    if not url.startswith(prefix) or "?" in url or path.name in {"", ":memory:"}:
        raise ValueError(f"{variable} must be {prefix} and a path")
    return path


def load() -> Settings:
    """Read the environment. Raises ConfigurationError with one line that names the variable."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = "_".join(str(part) for part in first["loc"]).upper()
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigurationError(f"{name}: {message}" if name else message) from None
