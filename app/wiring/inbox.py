"""The inbox that the settings ask for."""

from typing import Any

from app.auth.schemas import canonical_address
from app.database import Database
from app.documents.schemas import ProcessorChoice
from app.documents.service import DocumentService
from app.errors import ConfigurationError, ValidationFailed
from app.inbox.intake import Intake
from app.inbox.watcher import Watcher
from app.processing.acceptance import Acceptance
from app.settings import Settings
from app.wiring import adapters


def watcher(db: Database, documents: DocumentService, acceptance: Acceptance, settings: Settings) -> Watcher | None:
    """What watches the inbox; None if there is none. Raises ConfigurationError."""
    if settings.inbox_url is None:
        return None
    try:
        owner = canonical_address(settings.inbox_owner)
    except ValueError as error:
        raise ConfigurationError(f"INBOX_OWNER: {error}") from None
    inbox = adapters.inbox(settings.inbox_url)
    intake = Intake(inbox, documents, _process(acceptance, settings))
    return Watcher(db, inbox, intake, owner, settle=settings.inbox_settle_seconds)


def _process(acceptance: Acceptance, settings: Settings) -> dict[str, Any] | None:
    """What each file is processed with, as in the metadata of an upload."""
    if not settings.inbox_processor:
        return None
    choice = ProcessorChoice(processor=settings.inbox_processor, params=settings.inbox_params or {})
    try:
        acceptance.requested(choice)
    except ValidationFailed as error:
        first = error.extra["errors"][0]
        variable = "INBOX_PROCESSOR" if first["pointer"].startswith("/processor") else f"INBOX_PARAMS{first['pointer']}"
        raise ConfigurationError(f"{variable}: {first['detail']}") from None
    return choice.model_dump()
