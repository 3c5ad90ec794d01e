"""`python -m app` that waits less than usual: for clients that send or read nothing, and to try a failed job again."""

import runpy

from app.database import postgresql, readers
from app.files import downloads, pace
from app.processing import kind
from app.server import lifespan, protocol

HEADER_TIMEOUT = 3.0  # seconds
WORK_TIMEOUT = 6.0  # seconds
QUEUE_SECONDS = 1.0
RATE_WINDOW = 3.0  # seconds

if __name__ == "__main__":
    protocol.HEADER_TIMEOUT = HEADER_TIMEOUT
    protocol.WORK_TIMEOUT = WORK_TIMEOUT
    protocol.SEND_TIMEOUT = 1.5
    lifespan.QUEUE_SECONDS = QUEUE_SECONDS
    pace.RATE_WINDOW = RATE_WINDOW
    downloads.DOWNLOAD_TIMEOUT = 0.5
    readers.SEARCH_TIMEOUT = postgresql.SEARCH_TIMEOUT = 0.05
    kind.uniform = lambda low, _high: low / 5
    runpy.run_module("app", run_name="__main__", alter_sys=True)
