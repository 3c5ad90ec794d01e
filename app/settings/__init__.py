"""The settings: every environment variable, read once. Unsafe or impossible combinations are refused at start.

A setting may come from a file instead, named like its variable in lower case. Docker, Podman and Kubernetes mount
secrets as files, so that neither a process listing nor a container's description shows them. What neither has may come
from a secret of AWS.
"""

import hashlib
import os
import re
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import BeforeValidator, DirectoryPath, Field, PlainValidator, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict
from sqlalchemy import URL

from app.errors import ConfigurationError
from app.settings import broker, conversion, database, inbox, storage
from app.settings.broker import BrokerConfig, SqsQueue
from app.settings.conversion import ConversionService
from app.settings.keeping import Keeping
from app.settings.outbound import LOOPBACK, Networks, networks
from app.settings.sources import SecretFiles, SecretOfAws, secret_of_aws
from app.settings.storage import MAX_FILE, MAX_PUT, Bucket
from app.telemetry import faults

MIN_SECRET_BYTES = 32
_RATE = r"^(0|[1-9]\d{0,8}/(second|minute|hour|day))$"
_PROCESSOR = r"([a-z0-9-]+|[\w.]+:\w+)"
_PIPELINE = r"[a-z0-9-]{1,50}\s*=\s*[a-z0-9-]+\??(\s*,\s*[a-z0-9-]+\??)*"


def _in_case(case: Callable[[str], str]) -> BeforeValidator:
    """Return the validator of a setting that may be written in any case."""
    return BeforeValidator(lambda text: case(text) if isinstance(text, str) else text)


_LOWER, _UPPER = _in_case(str.lower), _in_case(str.upper)


def _parsed(parse: Callable[[str], object]) -> PlainValidator:
    """Return the validator of a setting that is a URL. An empty one is none."""
    return PlainValidator(lambda url: parse(url) if url else None)


class Settings(Keeping, BaseSettings):
    """All settings of a process. Durations are seconds and may be fractions; sizes are bytes."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )

    environment: Annotated[Literal["development", "production"], _LOWER] = Field(
        "development", description="`production` requires a JWT_SECRET, and logs JSON."
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on.")
    public_url: str = Field(
        "",
        pattern=r"^(https?://[^/?#@\s]+(/[^?#\s]*)?)?$",
        description="Where clients reach the service, with the path that a proxy takes off; empty: see each request.",
    )
    console: Annotated[Literal["on", "off"] | None, _LOWER] = Field(
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
    database_url: Annotated[Path | URL | None, NoDecode, _parsed(database.parse)] = Field(
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
    storage_url: Annotated[Path | Bucket | None, NoDecode, _parsed(storage.parse)] = Field(
        None, description="`file:///path` or `s3://bucket/prefix?endpoint=…` (below); empty: `files` in DATA_DIR."
    )
    broker_url: Annotated[BrokerConfig | None, NoDecode, _parsed(broker.parse)] = Field(
        None,
        description="`sqs://queue`, `redis://host` or `amqp://host` (below): jobs run in workers. "
        "Empty: in the server processes.",
    )

    jwt_secret: SecretStr | None = Field(
        None,
        description="Signs access tokens and upload URLs; at least 32 bytes. Of several, with commas between them, the "
        "first signs and all verify. Empty in development: generated into DATA_DIR.",
    )
    jwt_issuer: str = Field("document-api", description="`iss` of access tokens.")
    jwt_audience: str = Field("document-api", description="`aud` of access tokens.")
    access_token_ttl: float = Field(900, gt=0, description="Life of an access token.")
    refresh_token_ttl: float = Field(14 * 86400, gt=0, description="A refresh token unused for this long expires.")
    refresh_family_ttl: float = Field(90 * 86400, gt=0, description="A login cannot be refreshed beyond this age.")
    refresh_grace_seconds: float = Field(10, ge=0, description="A rotated refresh token may be retried for this long.")
    registration: Annotated[Literal["open", "closed"] | None, _LOWER] = Field(
        None,
        description="`open`: anybody can register. `closed`: users are made with `python -m app users create`. "
        "Empty: `open` in development, `closed` in production.",
    )
    audit_key: SecretStr | None = Field(
        None,
        description="Signs events and their seals; at least 32 bytes. Of several, with commas between them, the first "
        "signs and all verify. Empty: derived from JWT_SECRET, or generated into DATA_DIR where that is empty, too.",
    )
    audit_reads: Annotated[Literal["none", "all"], _LOWER] = Field(
        "none", description="`all`: an event for each time that a document's file, or a picture of a page, is sent."
    )

    operator_content: bool = Field(
        False, description="`true`: operators may read files and results of others, with a reason that the owner sees."
    )
    api_key_max_ttl: float = Field(
        0, ge=0, description="Longest life of an API key, also of one for which none was asked for; 0: unlimited."
    )
    encryption_keys: SecretStr | None = Field(
        None,
        description="Encrypt the secrets of webhooks: 32 bytes as base64url each. Of several, with commas between "
        "them, the first encrypts and all decrypt. Empty in development: generated into DATA_DIR.",
    )
    metrics_token: SecretStr | None = Field(
        None,
        min_length=MIN_SECRET_BYTES,
        description="Bearer token for `/metrics` and the details of `/readyz`; at least 32 characters. "
        "Empty: they are for this host only.",
    )

    rate_limit: str = Field(
        "12000/minute", pattern=_RATE, description="Requests of an account, such as `100/second`; `0`: any number."
    )
    rate_limit_anonymous: str = Field(
        "6000/minute", pattern=_RATE, description="Requests of a client's address that come without an account."
    )
    limits_url: SecretStr | None = Field(
        None,
        description="`redis://host`: requests are counted there, for all processes. Empty: each counts for itself.",
    )

    max_upload_bytes: int = Field(100 * 1024**2, ge=1, description="Largest file accepted.")
    upload_slots: int = Field(
        16, ge=1, description="Uploads received at once by one process; one account has at most three quarters."
    )
    upload_idle_seconds: float = Field(15, gt=0, description="An upload that sends nothing for this long is cut off.")
    upload_min_rate: float = Field(1024, ge=0, description="Bytes a second an upload must average over 10 s.")
    upload_max_seconds: float = Field(3600, gt=0, description="An upload that takes longer than this is cut off.")

    upload_url_ttl: int = Field(
        900, ge=1, le=604800, description="Life of the URL of a direct upload, in whole seconds; at most a week."
    )
    download_slots: int = Field(
        64,
        ge=1,
        description="Files and large results sent at once by one process; one account has at most three quarters.",
    )

    event_streams: int = Field(
        256, ge=1, description="Streams of events sent at once by one process; one account has at most three quarters."
    )

    processors: str = Field(
        "",
        pattern=rf"^({_PROCESSOR}(\s*,\s*{_PROCESSOR})*)?$",
        description="Names of the processors to offer, the default one first: of the service, of an installed package, "
        "or `module:Class`. Empty: all of the service, and `simulated` is the default. `python -m app processors list` "
        "shows them.",
    )
    pipelines: str = Field(
        "",
        pattern=rf"^({_PIPELINE}(\s*;\s*{_PIPELINE})*)?$",
        description="Pipelines to offer by names of their own: `scan=ocr?,text,keywords;quick=text,keywords`. A stage "
        "with a `?` runs only on documents that need it.",
    )
    remote_processors: Annotated[Path | None, _parsed(Path)] = Field(
        None,
        description="A JSON file of the processors that are run by workers elsewhere, which claim their jobs over HTTP "
        "(below). Empty: there are none.",
    )
    lease_seconds: float = Field(30, gt=0, description="A job whose worker is silent for this long is taken over.")
    job_max_tries: int = Field(5, ge=1, le=100, description="Attempts before a job is a dead letter.")
    job_timeout: float = Field(600, gt=0, description="Hard limit of one attempt.")
    # A short job mostly waits for its commits, which jobs share: with 64 at once 1.2 times as many are done as with 16.
    job_concurrency: int = Field(
        64, ge=0, description="Jobs run at once by one process; 0: a server that only accepts them, for workers to run."
    )
    max_result_bytes: int = Field(50 * 1024**2, ge=1, description="Largest result of a processor, as JSON.")
    text_max_characters: int = Field(
        1_000_000, ge=1, description="Most characters that the processors `text` and `ocr` can be asked for."
    )
    conversion_url: Annotated[ConversionService | None, NoDecode, _parsed(conversion.parse)] = Field(
        None,
        description="`http://host:port` of a Gotenberg, with which the processor `convert` makes PDF of DOCX (below). "
        "Empty: there is none.",
    )
    drain_seconds: float = Field(20, ge=0, description="On SIGTERM, running jobs get this long to finish.")
    shutdown_delay_seconds: float = Field(
        0, ge=0, description="On SIGTERM, requests are served for at least this long: a load balancer has to notice."
    )

    quota_bytes: int = Field(
        10 * 1024**3, ge=0, description="Bytes that the files of one account may have; 0: no limit."
    )
    quota_documents: int = Field(100_000, ge=0, description="Documents that one account may have; 0: no limit.")
    quota_announced: int = Field(
        10_000, ge=0, description="Direct uploads under way that one account may have; 0: no limit."
    )
    quota_jobs: int = Field(10_000, ge=0, description="Unfinished jobs that one account may have; 0: no limit.")

    quota_api_keys: int = Field(50, ge=0, description="API keys that one account may have; 0: no limit.")
    quota_webhooks: int = Field(10, ge=0, description="Webhooks that one account may have; 0: no limit.")
    webhook_concurrency: int = Field(
        32, ge=0, description="Deliveries made at once by one process, beside its jobs; 0: others make them."
    )
    webhook_endpoint_concurrency: int = Field(
        4, ge=1, description="Deliveries made at once to one webhook by one process; while it fails, one by all."
    )
    webhook_retry_schedule: str = Field(
        "0,5,300,1800,7200,18000,36000,50400,72000,86400",
        pattern=r"^\d{1,7}(\.\d{1,3})?(,\d{1,7}(\.\d{1,3})?){0,99}$",
        description="Seconds before each attempt to make a delivery, the first of which is made at once, with commas.",
    )
    webhook_disable_after: float = Field(
        5 * 86400, gt=0, description="A webhook that fails for this long, without one success, is disabled."
    )
    webhook_timeout: float = Field(
        15, ge=0.1, le=30, description="A webhook must be answered within this, from its name's look-up on; 0.1 to 30."
    )
    webhook_https_only: bool | None = Field(
        None, description="Webhooks go to `https://` URLs only. Empty: `true` in production, else `false`."
    )
    webhook_allow_nets: Annotated[Networks | None, NoDecode, _parsed(networks)] = Field(
        None,
        description="Networks that are not public, with commas, to which webhooks may go nevertheless: `10.1.0.0/16`. "
        "Empty: loopback in development, none in production.",
    )
    webhook_proxy_url: SecretStr | None = Field(
        None,
        description="`http://host:port` of a proxy through which all webhooks go; it must check the addresses itself.",
    )
    webhook_user_agent: str = Field(
        "document-api", pattern=r"^[!-~]([ -~]{0,198}[!-~])?$", description="`User-Agent` of webhooks."
    )

    inbox_url: Annotated[Path | Bucket | None, NoDecode, _parsed(inbox.parse)] = Field(
        None,
        description="A folder, or `s3://bucket/prefix?endpoint=…`, whose files become documents (below). Empty: none.",
    )
    inbox_owner: str = Field("", description="Email address of the account whose documents these are.")
    inbox_processor: str = Field("", description="The processor that they are processed with; empty: only uploaded.")
    inbox_params: Annotated[dict[str, Any] | None, NoDecode, _parsed(inbox.parse_params)] = Field(
        None, description="Params of that processor, as JSON; those left out take its defaults."
    )
    inbox_settle_seconds: float = Field(
        5,
        ge=0.1,
        le=3600,
        description="A file in a folder is taken when it has not changed for this long; 0.1 to 3600.",
    )

    reserve_bytes: int | None = Field(
        None,
        ge=0,
        description="While less is free on the disk of the database or the files, nothing can be added; 0: off. "
        "Empty: 5 % of the disk, at most 1 GiB.",
    )

    fault: str = Field(
        "",
        pattern=rf"^(({'|'.join(faults.POINTS)}):[1-9]\d*)?$",
        description="For tests: `point:n` kills the process at the n-th hit of a fault point. Refused in production.",
    )
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], _UPPER] = Field(
        "INFO", description="Least severe level logged."
    )
    log_format: Annotated[Literal["console", "json"] | None, _LOWER] = Field(
        None, description="Empty: `json` in production, else `console`."
    )
    log_file: Annotated[Path | None, _parsed(Path)] = Field(
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
        _refuse_short_secrets("JWT_SECRET", self.jwt_secret)
        _refuse_short_secrets("AUDIT_KEY", self.audit_key)
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
        inbox.refuse_own(self.inbox_url, self.own_places)

    @property
    def prefix(self) -> str:
        """The path of PUBLIC_URL, before all paths that clients see."""
        return urlsplit(self.public_url).path.rstrip("/")

    @property
    def jwt_secrets(self) -> list[str]:
        """The secrets in JWT_SECRET: the first signs, and all verify."""
        return secrets_in(self.jwt_secret)

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
    def webhook_delays(self) -> list[float]:
        """Seconds before each attempt to make a delivery."""
        return [float(seconds) for seconds in self.webhook_retry_schedule.split(",")]

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


def _refuse_short_secrets(name: str, setting: SecretStr | None) -> None:
    if setting and any(len(secret.encode()) < MIN_SECRET_BYTES for secret in secrets_in(setting) or [""]):
        each = "and so must each of several, which commas divide"
        raise ValueError(f"{name} must be at least {MIN_SECRET_BYTES} bytes, {each}")


def secrets_in(setting: SecretStr | None) -> list[str]:
    """The secrets of a setting that may have several. None of them can hold a comma or a line's end."""
    sent = setting.get_secret_value() if setting else ""
    return [secret.strip() for secret in re.split(r"[,\n]", sent) if secret.strip()]


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
