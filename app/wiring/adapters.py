"""The adapters and processors that the settings ask for. No other module names one."""

import hmac
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from secrets import token_urlsafe

from app.backup.snapshots import Source
from app.backup.sqlite import SqliteSource
from app.backup.target import FolderTarget, Target
from app.database import Database
from app.database.sqlite import SqliteDatabase
from app.errors import ConfigurationError
from app.inbox.base import Inbox
from app.inbox.folder import FolderInbox
from app.jobs.dispatch.base import Dispatcher, Puller
from app.jobs.dispatch.broker import BrokerDispatcher
from app.jobs.dispatch.in_process import InProcessDispatcher
from app.outbound.resolver import Resolver
from app.processing.queues import queue_of
from app.processing.stages.pipeline import AD_HOC, Pipeline, named_pipelines
from app.processors.base import Processor
from app.processors.convert import ConvertProcessor
from app.processors.ocr import tesseract
from app.processors.ocr.processor import OcrProcessor
from app.processors.ocr.tesseract import TesseractMissing
from app.processors.pdf.merge import MergeProcessor
from app.processors.pdf.split import SplitProcessor
from app.processors.simulated import SimulatedProcessor
from app.processors.text.processor import TextProcessor
from app.processors.words.keywords import KeywordsProcessor
from app.processors.words.language import LanguageProcessor
from app.quotas.reserve import Reserve
from app.remote.hints import Sender, hint
from app.remote.processors import RemoteProcessor, with_remote
from app.settings import Settings
from app.settings.access import secrets_in
from app.settings.generated import generated
from app.settings.storage import Bucket
from app.storage.base import Storage
from app.storage.local import LocalStorage
from app.web.rates import Rates
from app.wiring import plugins
from app.wiring.plugins import Offer


def available(settings: Settings) -> tuple[Processor, ...]:
    """The processors that are part of the service, and can work here."""
    characters, seconds = settings.text_max_characters, settings.job_timeout
    text = TextProcessor(max_characters=characters)
    own: list[Processor] = [
        SimulatedProcessor(),
        text,
        LanguageProcessor(),
        KeywordsProcessor(),
        SplitProcessor(),
        MergeProcessor(),
    ]
    with suppress(TesseractMissing):
        own.append(OcrProcessor(tesseract.found(), max_characters=characters, seconds=seconds))
    if settings.conversion_url:
        own.append(ConvertProcessor(settings.conversion_url.url, resolver=Resolver, seconds=seconds))
    return tuple(own)


def lacking(settings: Settings) -> dict[str, str]:
    """What the processors of the service need that cannot work here."""
    found = {} if settings.conversion_url else {ConvertProcessor.name: "it needs CONVERSION_URL"}
    try:
        tesseract.found()
    except TesseractMissing as error:
        found[OcrProcessor.name] = str(error)
    return found


def chosen(settings: Settings, *names: str) -> list[Offer]:
    """The processors of these names, as PROCESSORS takes them; without any, those that it names, the default one first.

    Raises ConfigurationError.
    """
    built_in = available(settings)
    named = names or tuple(name.strip() for name in settings.processors.split(",") if name)
    return (
        plugins.choose(built_in, named, lacking(settings))
        if named
        else [Offer(each, plugins.BUILT_IN) for each in built_in]
    )


def offered(settings: Settings) -> dict[str, Processor]:
    """The processors that PROCESSORS names, by name, the default one first, and those of REMOTE_PROCESSORS. Raises
    ConfigurationError."""
    found = {each.processor.name: each.processor for each in chosen(settings)}
    found = with_remote(found, settings.remote_processors, lacking(settings))
    if AD_HOC in found:
        raise ConfigurationError(f"PROCESSORS or REMOTE_PROCESSORS: {AD_HOC}: the name is taken")
    return found


def pipelines(settings: Settings, processors: Mapping[str, Processor]) -> dict[str, Pipeline]:
    """The pipelines of PIPELINES by name, made of these processors. Raises ConfigurationError."""
    try:
        return named_pipelines(settings.pipelines, processors)
    except ValueError as error:
        raise ConfigurationError(f"PIPELINES: {error}") from None


def simulated(settings: Settings) -> str | None:
    """The alarm of a production server whose operator has chosen no processor."""
    if settings.environment == "production" and not settings.processors:
        return "PROCESSORS is not set: the default processor only simulates work, and so are its results"
    return None


def dispatcher(settings: Settings, puller: Puller) -> Dispatcher:
    return BrokerDispatcher(settings.broker_url, puller) if settings.broker_url else InProcessDispatcher(puller)


def hint_dispatchers(settings: Settings, processors: Mapping[str, Processor]) -> dict[str, Dispatcher]:
    """What sends hints to workers elsewhere, by the queues of their jobs. Raises ConfigurationError."""
    found: dict[str, Dispatcher] = {}
    for each in processors.values():
        if not isinstance(each, RemoteProcessor) or each.hinted is None:
            continue
        setting, api = f"REMOTE_PROCESSORS: {each.name!r}: its queue", settings.public_url
        if not api:
            raise ConfigurationError(f"{setting} needs PUBLIC_URL, where workers find the service")
        message = partial(hint, processor=each.name, api=api)
        found[queue_of(each.name, each.version)] = BrokerDispatcher(
            each.hinted, Sender(), setting=setting, message=message
        )
    return found


def reserve(settings: Settings) -> Reserve:
    """For the disks of SQLite and of the files; servers of databases and buckets have their own."""
    database, storage = settings.database, settings.storage
    folders = [database.parent] if isinstance(database, Path) else []
    return Reserve(folders + ([storage] if isinstance(storage, Path) else []), settings.reserve_bytes)


def folders(settings: Settings) -> dict[str, Path]:
    """Where the service keeps data on disks, by what it is."""
    storage = settings.storage
    return {"data": settings.data_dir} | ({"files": storage} if isinstance(storage, Path) else {})


def storage(settings: Settings) -> Storage:
    if isinstance(settings.storage, Path):
        with _writable("STORAGE_URL" if settings.storage_url else "DATA_DIR"):
            return LocalStorage(settings.storage)
    from app.storage.s3 import S3Storage  # noqa: PLC0415 - the SDK takes half a second to import

    return S3Storage(settings.storage, copies=settings.data_dir / "copies", longest=settings.upload_max_seconds)


def target(settings: Settings, place: Path | Bucket) -> Target:
    """Where backups are kept."""
    if isinstance(place, Path):
        with _writable("TARGET"):
            return FolderTarget(place, LocalStorage(place))
    from app.backup.bucket import BucketTarget  # noqa: PLC0415 - as above
    from app.storage.s3 import S3Storage  # noqa: PLC0415

    copies = settings.data_dir / "copies"
    return BucketTarget(place, S3Storage(place, copies=copies, longest=float("inf"), setting="TARGET"))


def source(settings: Settings) -> Source:
    """What backups are made of, and restored into."""
    if isinstance(settings.database, Path):
        return SqliteSource(settings.database, settings.data_dir / "backup")
    from app.backup.postgresql import PostgresqlSource  # noqa: PLC0415 - as above

    return PostgresqlSource(settings.database)


def inbox(place: Path | Bucket) -> Inbox:
    if isinstance(place, Path):
        return FolderInbox(place)
    from app.inbox.bucket import BucketInbox  # noqa: PLC0415 - as above

    return BucketInbox(place)


def database(settings: Settings, *, statement_timeout: float | None = None) -> Database:
    database = _database(settings, statement_timeout)
    database.audit_keys += audit_keys(settings)
    return database


def audit_keys(settings: Settings) -> list[bytes]:
    """The keys of AUDIT_KEY; without it, those that are derived from JWT_SECRET, and the one that is, or was, generated
    without that."""
    if settings.audit_key:
        return [key.encode() for key in secrets_in(settings.audit_key)]
    derived = [hmac.digest(secret.encode(), b"AUDIT_KEY", "sha256") for secret in settings.jwt_secrets]
    file = settings.data_dir / "audit-key"
    if derived and not file.exists():
        return derived
    return [*derived, generated(file, partial(token_urlsafe, 48)).encode()]


def audit_key_derived(settings: Settings) -> str | None:
    """The alarm of a production server whose operator has chosen no key for the audit trail."""
    if settings.environment == "production" and not settings.audit_key:
        return "AUDIT_KEY is not set: once JWT_SECRET is replaced, events signed before cannot be verified"
    return None


def _database(settings: Settings, statement_timeout: float | None) -> Database:
    if isinstance(settings.database, Path):
        with _writable("DATABASE_URL" if settings.database_url else "DATA_DIR"):
            database = SqliteDatabase(settings.database)
            if settings.database.exists():
                settings.database.open("r+b").close()  # another user's, perhaps: SQLite would not say which file
            return database
    from app.database.postgresql import PostgresqlDatabase  # noqa: PLC0415 - its driver takes 50 ms to import

    return PostgresqlDatabase(
        settings.database.render_as_string(hide_password=False),
        pool_size=settings.database_pool_size,
        statement_timeout=statement_timeout or settings.database_statement_timeout,
    )


@contextmanager
def _writable(variable: str) -> Iterator[None]:
    """Turn an OSError into a ConfigurationError that names the variable."""
    try:
        yield
    except OSError as error:
        raise ConfigurationError(f"{variable}: {error.filename}: {error.strerror}") from None


def rates(settings: Settings) -> Rates:
    url = settings.limits_url.get_secret_value() if settings.limits_url else None
    return Rates(account=settings.rate_limit, address=settings.rate_limit_anonymous, url=url)
