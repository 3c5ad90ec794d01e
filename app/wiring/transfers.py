"""From the settings of two services to a transfer between them."""

from pathlib import Path

from sqlalchemy import URL

from app.errors import ConfigurationError
from app.settings import Settings
from app.settings.storage import Bucket
from app.transfer import Transfer
from app.wiring import adapters
from app.wiring.process import prepare_process

_STATEMENT_TIMEOUT = 600.0  # seconds: nobody waits for an answer


def build_transfer(source: Settings, target: Settings, *, rows: bool, files: bool) -> Transfer:
    """Connect a transfer into what `target` names. Raises ConfigurationError when there is nothing to bring, or when it
    would be brought to where it is."""
    prepare_process(target)
    if rows:
        _refuse_pointless("DATABASE_URL", source.database, target.database)
    if files:
        _refuse_pointless("STORAGE_URL", source.storage, target.storage)
    return Transfer(
        target_db=adapters.database(target, statement_timeout=_STATEMENT_TIMEOUT),
        source_db=adapters.database(source, statement_timeout=_STATEMENT_TIMEOUT) if rows else None,
        source_storage=adapters.storage(source) if files else None,
        target_storage=adapters.storage(target) if files else None,
    )


def _refuse_pointless(variable: str, source: Path | Bucket | URL, target: Path | Bucket | URL) -> None:
    source, target = (place.resolve() if isinstance(place, Path) else place for place in (source, target))
    if source == target:
        raise ConfigurationError(f"{variable} names what is to be transferred: set it to where that shall go")
    if isinstance(source, Path) and not source.exists():
        raise ConfigurationError(f"there is nothing to transfer at {source}")
