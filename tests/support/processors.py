"""The processors of the service, as far as they can work on this machine."""

from app.settings import Settings
from app.wiring import adapters

NAMES = [each.name for each in adapters.available(Settings(_env_file=None))]
LISTED = ", ".join(NAMES)
