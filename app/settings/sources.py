"""Where settings come from beside the environment: files, and a secret of AWS."""

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
        """Return what the secret has for a setting, or None. Raises ConfigurationError."""
        return self._found.get(field_name), field_name, False

    @property
    def _found(self) -> dict[str, str]:
        return secret_of_aws(self.current_state.get("secrets_manager_id"))

    def __call__(self) -> dict[str, Any]:
        found = self._found
        return {name: found[name] for name in self.settings_cls.model_fields if found.get(name)}


def secret_of_aws(secret_id: str | None) -> dict[str, str]:
    """What a secret says, by names in lower case; nothing without one. Raises ConfigurationError."""
    if not secret_id:
        return {}
    from app.settings.secrets_manager import read  # noqa: PLC0415 - the SDK takes half a second to import

    return read(secret_id)
