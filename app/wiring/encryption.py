"""The keys of the secrets that must be read again, and where those are stored."""

from app.encryption import Encrypted, Encryption, development_keys
from app.settings import Settings
from app.settings.access import secrets_in
from app.webhooks import models as webhooks

ENCRYPTED: tuple[Encrypted, ...] = (webhooks.ENCRYPTED,)  # `python -m app rotate-secrets` goes through these


def encryption(settings: Settings) -> Encryption:
    """In production there may be no key: it is needed by the first secret only. Raises ConfigurationError."""
    keys = secrets_in(settings.encryption_keys)
    if not keys and settings.environment == "development":
        keys = development_keys(settings.data_dir)
    return Encryption(keys)


def key_missing(settings: Settings) -> str | None:
    """The alarm of a production server whose operator has set no key."""
    if settings.environment == "production" and not secrets_in(settings.encryption_keys):
        return "ENCRYPTION_KEYS is not set: nobody can add a webhook"
    return None
