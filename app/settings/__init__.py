"""The settings: every environment variable, read once. Unsafe or impossible combinations are refused at start.

A setting may come from a file instead, named like its variable in lower case. Docker, Podman and Kubernetes mount
secrets as files, so that neither a process listing nor a container's description shows them. What neither has may come
from a secret of AWS.
"""

import hashlib
import os
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import DirectoryPath, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict
from sqlalchemy import URL

from app.errors import ConfigurationError
from app.settings import broker, database, storage
from app.settings.access import Access, refuse_short
from app.settings.broker import BrokerConfig, SqsQueue
from app.settings.fields import LOWER, UPPER, parsed
from app.settings.inbox import Inbox, refuse_own
from app.settings.keeping import Keeping
from app.settings.limits import Limits
from app.settings.outbound import LOOPBACK, Networks
from app.settings.processing import Processing
from app.settings.sources import SecretFiles, SecretOfAws, secret_of_aws
from app.settings.storage import MAX_FILE, MAX_PUT, Bucket
from app.settings.webhooks import Webhooks
from app.telemetry import faults


class Settings(Access, Limits, Processing, Webhooks, Inbox, Keeping, BaseSettings):
    """All settings of a process. Durations are seconds and may be fractions; sizes are bytes."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )

    environment: Annotated[Literal["development", "production"], LOWER] = Field(
        "development", description="`production` requires a JWT_SECRET, and logs JSON."
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on.")
    public_url: str = Field(
        "",
        pattern=r"^(https?://[^/?#@\s]+(/[^?#\s]*)?)?$",
        description="Where clients reach the service, with the path that a proxy takes off; empty: see each request.",
    )
    console: Annotated[Literal["on", "off"] | None, LOWER] = Field(
        None,
        description="`on`: there is a console for browsers at `/console`. "
        "Empty: `on` in development, `off` in production.",
    )
    cors_origins: str = Field(
        "",
        pattern=r"^(\*|https?://[^/?#\s,*]+(,https?://[^/?#\s,*]+)*)?$",
        description="Origins whose pages may call the API from a browser, with commas; `*`: any; empty: none.",
    )
    keep_alive_seconds: float = Field(
        75, gt=0, description="An idle connection is closed after this long; longer than a load balancer keeps one."
    )
    max_connections: int = Field(
        10_000, ge=1, description="Most client connections of one process; fewer if its open files do not allow them."
    )
    workers: int = Field(1, ge=1, description="Server processes.")
    data_dir: Path = Field(Path("var"), description="Database file, uploaded files, development secret.")
    secrets_dir: DirectoryPath | None = Field(
        None, description="Folder of settings that are secret (below); empty: `/run/secrets`, if there is one."
    )
    secrets_manager_id: str = Field(
        "",
        description="Name or ARN of a secret of AWS Secrets Manager that holds settings, as JSON (below); empty: none.",
    )
    database_url: Annotated[Path | URL | None, NoDecode, parsed(database.parse)] = Field(
        None,
        description="`postgresql://user:password@host:port/name` or `sqlite:///path` (four slashes: from the root); "
        "empty: `app.db` in DATA_DIR.",
    )
    database_pool_size: int = Field(
        10,
        ge=2,
        description="PostgreSQL connections of one process, one for the leases of jobs; searches have two more.",
    )
    database_statement_timeout: float = Field(
        5, ge=0.1, le=300, description="PostgreSQL ends a statement after this long; 0.1 to 300."
    )
    storage_url: Annotated[Path | Bucket | None, NoDecode, parsed(storage.parse)] = Field(
        None, description="`file:///path` or `s3://bucket/prefix?endpoint=…` (below); empty: `files` in DATA_DIR."
    )
    broker_url: Annotated[BrokerConfig | None, NoDecode, parsed(broker.parse)] = Field(
        None,
        description="`sqs://queue`, `redis://host` or `amqp://host` (below): jobs run in workers. "
        "Empty: in the server processes.",
    )
    fault: str = Field(
        "",
        pattern=rf"^(({'|'.join(faults.POINTS)}):[1-9]\d*)?$",
        description="For tests: `point:n` kills the process at the n-th hit of a fault point. Refused in production.",
    )
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], UPPER] = Field(
        "INFO", description="Least severe level logged."
    )
    log_format: Annotated[Literal["console", "json"] | None, LOWER] = Field(
        None, description="Empty: `json` in production, else `console`."
    )
    log_file: Annotated[Path | None, parsed(Path)] = Field(
        None,
        description="File that servers and workers append their log lines to, and which may be moved away (below). "
        "Empty: standard output.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - replaced by SecretFiles
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (
            init_settings,
            env_settings,
            dotenv_settings,
            SecretFiles(settings_cls),
            SecretOfAws(settings_cls),
        )

    @model_validator(mode="after")
    def _refuse_unsafe(self) -> Self:
        if self.jwt_secret is None and self.environment == "production":
            raise ValueError("JWT_SECRET is required when ENVIRONMENT=production")
        refuse_short("JWT_SECRET", self.jwt_secret)
        refuse_short("AUDIT_KEY", self.audit_key)
        if self.limits_url and not re.match(r"rediss?://[^/\s]", self.limits_url.get_secret_value()):
            raise ValueError("LIMITS_URL must be redis://… or rediss://…")
        if self.webhook_proxy_url and not re.match(r"https?://[^/\s]", self.webhook_proxy_url.get_secret_value()):
            raise ValueError("WEBHOOK_PROXY_URL must be http://… or https://…")
        if self.fault and self.environment == "production":
            raise ValueError("FAULT must not be set when ENVIRONMENT=production")
        if self.broker_url is not None and isinstance(self.database, Path):
            raise ValueError("BROKER_URL needs a DATABASE_URL of PostgreSQL: SQLite's file cannot be shared by hosts")
        buckets = [place for place in (self.storage, self.inbox_url) if isinstance(place, Bucket)]
        if buckets or isinstance(self.broker_url, SqsQueue):
            _refuse_half_a_key()
        if isinstance(self.storage, Bucket) and self.max_upload_bytes > MAX_FILE:
            raise ValueError(f"MAX_UPLOAD_BYTES must be at most {MAX_FILE} when STORAGE_URL is a bucket")
        self._refuse_unusable_inbox()
        return self

    def _refuse_unusable_inbox(self) -> None:
        if self.inbox_url is None:
            if self.inbox_owner or self.inbox_processor or self.inbox_params:
                raise ValueError("INBOX_URL is required when another setting of the inbox is set")
            return
        if not self.inbox_owner:
            raise ValueError("INBOX_OWNER is required when INBOX_URL is set")
        if self.inbox_params is not None and not self.inbox_processor:
            raise ValueError("INBOX_PROCESSOR is required when INBOX_PARAMS is set")
        if isinstance(self.inbox_url, Bucket) and self.max_upload_bytes > MAX_PUT:
            raise ValueError(f"MAX_UPLOAD_BYTES must be at most {MAX_PUT} when INBOX_URL is a bucket")
        refuse_own(self.inbox_url, self.own_places)

    @property
    def prefix(self) -> str:
        """The path of PUBLIC_URL, before all paths that clients see."""
        return urlsplit(self.public_url).path.rstrip("/")

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of all settings but the secrets, in which passwords do not show either."""
        return hashlib.sha256(repr(self).encode()).hexdigest()

    @property
    def database(self) -> Path | URL:
        """The file of SQLite, or the URL of PostgreSQL."""
        return self.database_url or self.data_dir / "app.db"

    @property
    def storage(self) -> Path | Bucket:
        """Where the files are: a folder or a bucket."""
        return self.storage_url or self.data_dir / "files"

    @property
    def own_places(self) -> list[Path | Bucket]:
        """Where the service keeps its own: nothing else may be put there, or be read from there."""
        database = [self.database] if isinstance(self.database, Path) else []
        return [self.data_dir, self.storage, *database]

    @property
    def registration_open(self) -> bool:
        """Whether anybody can register."""
        return (self.registration or ("closed" if self.environment == "production" else "open")) == "open"

    @property
    def has_console(self) -> bool:
        """Whether there is a console."""
        return (self.console or ("off" if self.environment == "production" else "on")) == "on"

    @property
    def webhook_requires_https(self) -> bool:
        """Whether webhooks go to `https://` only."""
        chosen = self.webhook_https_only
        return self.environment == "production" if chosen is None else chosen

    @property
    def webhook_networks(self) -> Networks:
        """The networks that webhooks may go to though they are not public."""
        return self.webhook_allow_nets or (() if self.environment == "production" else LOOPBACK)

    @property
    def logs_as_json(self) -> bool:
        """Whether log lines are JSON."""
        return (self.log_format or ("json" if self.environment == "production" else "console")) == "json"


def _refuse_half_a_key() -> None:
    """Raise ValueError if only one half of an AWS key is set: the SDK would silently use other credentials or none."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    for one, other in (names, names[::-1]):
        if os.environ.get(one) and not os.environ.get(other):
            raise ValueError(f"{other} is required when {one} is set")


def misspelt(secret_id: str = "") -> list[tuple[str, str, str]]:
    """Names in `.env` and in the secret that are no settings, though nearly: where each is, its name, and what it
    probably means."""
    known = [name.upper() for name in Settings.model_fields]
    sources = {".env": [*dotenv_values(".env")], "SECRETS_MANAGER_ID": [*secret_of_aws(secret_id)]}
    named = [(source, name) for source, found in sources.items() for name in found if name.upper() not in known]
    close = [(source, name, get_close_matches(name.upper(), known, 1, 0.75)) for source, name in named]
    return [(source, name, meant[0]) for source, name, meant in close if meant]


def load(**overrides: Any) -> Settings:
    """Read the settings; `overrides` win over the environment. Raises ConfigurationError, which names the variable."""
    try:
        return Settings(**overrides)
    except UnicodeDecodeError:
        raise ConfigurationError(".env is not UTF-8") from None
    except PermissionError as error:
        raise ConfigurationError(f"SECRETS_DIR: {error.filename} cannot be read") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        variable = [str(part).upper() for part in first["loc"][:1]]
        option = [f"{part!r:.40}" for part in first["loc"][1:]]
        raise ConfigurationError(": ".join([*variable, *option, first["msg"].removeprefix("Value error, ")])) from None
