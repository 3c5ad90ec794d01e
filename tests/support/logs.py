"""What a module logs in this process."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any
from unittest.mock import patch

import structlog
from structlog.testing import LogCapture


@contextmanager
def captured(module: ModuleType) -> Iterator[list[Any]]:
    """The log lines of a module, whatever level an application in this process has set for its own."""
    capture = LogCapture()
    everything = structlog.make_filtering_bound_logger(0)
    logger = structlog.wrap_logger(structlog.PrintLogger(), processors=[capture], wrapper_class=everything)
    with patch.object(module, "log", logger):
        yield capture.entries
