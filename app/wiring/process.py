"""What a process sets for itself before it builds anything."""

import os
import sys

from app.processors import sandbox
from app.settings import Settings
from app.telemetry import faults


def prepare_process(settings: Settings) -> None:
    """Set what holds for the whole process."""
    os.umask(0o077)  # what users store is no other account's to read
    # A thread that commits gives way at each statement. While others keep the event loop busy, it would then wait for
    # Python's default of 5 ms each time: a log-in took 2.5 times as long, an upload twice.
    sys.setswitchinterval(0.0005)
    sandbox.hide_process()
    if settings.fault:
        point, _, nth = settings.fault.partition(":")
        faults.arm(point, int(nth))
