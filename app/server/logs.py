"""The log of a process that serves."""

import os

from app.errors import ConfigurationError
from app.settings import Settings
from app.telemetry import logs
from app.telemetry.streams import open_log


def configure(settings: Settings) -> None:
    """Log as the settings say. Raises ConfigurationError if LOG_FILE cannot be written: later, lines go to stderr."""
    if settings.log_file is not None:
        try:
            os.close(open_log(settings.log_file))
        except OSError as error:
            raise ConfigurationError(f"LOG_FILE: {settings.log_file}: {error.strerror}") from None
    logs.configure(settings.log_level, as_json=settings.logs_as_json, file=settings.log_file)
