"""From settings, and the target that a command names, to backups and restores."""

from functools import partial
from pathlib import Path
from typing import NamedTuple

from app.backup.make import Backup
from app.backup.restore import Restore
from app.backup.single import Return
from app.backup.verify import Verification
from app.errors import ConfigurationError
from app.settings import Settings, load
from app.settings.storage import Bucket, contains
from app.wiring import adapters
from app.wiring.encryption import ENCRYPTED
from app.wiring.process import prepare_process


def build_backup(settings: Settings, target: str, *, keep: int) -> Backup:
    """Raises ConfigurationError when the target cannot be one."""
    place = _place(settings, target)
    prepare_process(settings)
    return Backup(
        db=adapters.database(settings),
        source=adapters.source(settings),
        storage=adapters.storage(settings),
        target=adapters.target(settings, place),
        secrets=[each.key.table for each in ENCRYPTED],
        keep=keep,
    )


def build_verification(settings: Settings, target: str) -> Verification:
    """Raises ConfigurationError when there is no such target."""
    place = _place(settings, target, existing=True)
    prepare_process(settings)
    return Verification(adapters.target(settings, place))


def build_restore(settings: Settings, target: str) -> Restore:
    """Raises ConfigurationError when there is no such target."""
    place = _place(settings, target, existing=True)
    prepare_process(settings)
    return Restore(
        target=adapters.target(settings, place),
        source=adapters.source(settings),
        storage=adapters.storage(settings),
        connect=partial(adapters.database, settings),
    )


def build_return(settings: Settings, target: str) -> Return:
    """Raises ConfigurationError when there is no such target."""
    place = _place(settings, target, existing=True)
    prepare_process(settings)
    return Return(
        target=adapters.target(settings, place), storage=adapters.storage(settings), db=adapters.database(settings)
    )


class Secret(NamedTuple):
    """A secret that is in no backup. `where`: the variable that has it, and the file that a server without the variable
    has made; empty if there is neither."""

    variable: str
    file: Path
    where: str


def secrets_beside(settings: Settings) -> list[Secret]:
    """The secrets that a service made of a backup needs."""
    values: dict[str, object] = {
        "JWT_SECRET": settings.jwt_secrets,
        "ENCRYPTION_KEYS": settings.encryption_keys,
        "AUDIT_KEY": settings.audit_key,
    }
    return [_secret(name, value, settings.data_dir / name.lower().replace("_", "-")) for name, value in values.items()]


def _secret(variable: str, value: object, file: Path) -> Secret:
    found = [variable] * bool(value) + [str(file)] * file.exists()
    return Secret(variable, file, " and ".join(found))


def _place(settings: Settings, target: str, *, existing: bool = False) -> Path | Bucket:
    try:
        place = load(storage_url=target).storage if "://" in target else Path(target).absolute()
    except ConfigurationError as error:
        raise ConfigurationError(str(error).replace("STORAGE_URL", "TARGET", 1)) from None
    if any(contains(place, own) or contains(own, place) for own in settings.own_places):
        raise ConfigurationError("TARGET must be apart from DATA_DIR, DATABASE_URL and STORAGE_URL")
    if existing and isinstance(place, Path) and not place.is_dir():
        raise ConfigurationError(f"TARGET: there is no folder {place}")
    return place
