"""`python -m app` with limits on reading text that a test does not have to wait for."""

import runpy

from app.processors.text.processor import TextProcessor
from app.wiring import adapters

if __name__ == "__main__":
    adapters.available = lambda _: (TextProcessor(memory=128 * 1024**2, cpu_seconds=1),)
    runpy.run_module("app", run_name="__main__", alter_sys=True)
