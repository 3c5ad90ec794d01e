"""The settings that say who may do what, and the secrets that this rests on."""

import re
from typing import Annotated, Literal

from pydantic import BaseModel, Field, SecretStr

from app.settings.fields import LOWER

MIN_SECRET_BYTES = 32


class Access(BaseModel):
    """Tokens, API keys, registration and the audit trail."""

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
    registration: Annotated[Literal["open", "closed"] | None, LOWER] = Field(
        None,
        description="`open`: anybody can register. `closed`: users are made with `python -m app users create`. "
        "Empty: `open` in development, `closed` in production.",
    )
    audit_key: SecretStr | None = Field(
        None,
        description="Signs events and their seals; at least 32 bytes. Of several, with commas between them, the first "
        "signs and all verify. Empty: derived from JWT_SECRET, or generated into DATA_DIR where that is empty, too.",
    )
    audit_reads: Annotated[Literal["none", "all"], LOWER] = Field(
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

    @property
    def jwt_secrets(self) -> list[str]:
        """The secrets in JWT_SECRET: the first signs, and all verify."""
        return secrets_in(self.jwt_secret)


def secrets_in(setting: SecretStr | None) -> list[str]:
    """The secrets of a setting that may have several. None of them can hold a comma or a line's end."""
    sent = setting.get_secret_value() if setting else ""
    return [secret.strip() for secret in re.split(r"[,\n]", sent) if secret.strip()]


def refuse_short(name: str, setting: SecretStr | None) -> None:
    """Raise ValueError if a secret of a setting is too short to sign with."""
    if setting and any(len(secret.encode()) < MIN_SECRET_BYTES for secret in secrets_in(setting) or [""]):
        each = "and so must each of several, which commas divide"
        raise ValueError(f"{name} must be at least {MIN_SECRET_BYTES} bytes, {each}")
