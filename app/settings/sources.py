"""Where settings come from beside the environment: files, and a secret of AWS."""

import json
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

from app.errors import ConfigurationError

_SECRETS_DIR = Path("/run/secrets")


class SecretFiles(PydanticBaseSettingsSource):
    """Reads settings from files in SECRETS_DIR.

    The library's own source ignores a file that it cannot read; the service would then start without the secret.
    """

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[str | None, str, bool]:
        """Return the stripped text of a setting's file, or None if there is no file. Raises ConfigurationError."""
        path = Path(self.current_state.get("secrets_dir") or _SECRETS_DIR) / field_name
        try:
            return path.read_text("utf-8").strip(), field_name, False
        except (FileNotFoundError, NotADirectoryError):  # SECRETS_DIR's own validation reports these
            return None, field_name, False
        except OSError as error:
            raise ConfigurationError(f"{field_name.upper()}: {path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ConfigurationError(f"{field_name.upper()}: {path} is not UTF-8") from None

    def __call__(self) -> dict[str, Any]:
        values = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in values.items() if value}


class SecretOfAws(PydanticBaseSettingsSource):
    """Reads settings from the secret that SECRETS_MANAGER_ID names."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[str | None, str, bool]:
        """Return what the secret has for a setting, or None, as a variable would have it: `8000`, `true`. Raises
        ConfigurationError."""
        value = secret_of_aws(self.current_state.get("secrets_manager_id")).get(field_name)
        if value is None:
            return None, field_name, False
        text = value if isinstance(value, str) else json.dumps(value)
        if isinstance(value, list | dict) or not _fits_a_variable(text):
            reason = "in SECRETS_MANAGER_ID it must be text without NUL, a number, true or false"
            raise ConfigurationError(f"{field_name.upper()}: {reason}")
        return text, field_name, False

    def __call__(self) -> dict[str, Any]:
        values = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in values.items() if value}


def _fits_a_variable(text: str) -> bool:
    """Whether it has neither a NUL nor a lone surrogate."""
    return "\0" not in text and text.encode(errors="ignore").decode() == text


def secret_of_aws(secret_id: str | None) -> dict[str, Any]:
    """What a secret says, by names in lower case; nothing without one. Raises ConfigurationError."""
    if not secret_id:
        return {}
    from app.settings.secrets_manager import read  # noqa: PLC0415 - the SDK takes half a second to import

    return read(secret_id)
