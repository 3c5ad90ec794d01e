"""`python -m app` with less patience for clients that do not read than a test has."""

import runpy

from app.documents import service
from app.server import protocol

if __name__ == "__main__":
    protocol.SEND_TIMEOUT = 1.5
    service.DOWNLOAD_TIMEOUT = 0.5
    runpy.run_module("app", run_name="__main__", alter_sys=True)
