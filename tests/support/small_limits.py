"""`python -m app` with limits on reading text and on drawing that a test does not have to wait for."""

import runpy
from functools import partial

from app import wiring
from app.documents.pictures import Pictures
from app.processors.text.processor import TextProcessor
from app.wiring import adapters

if __name__ == "__main__":
    adapters.available = lambda _: (TextProcessor(memory=128 * 1024**2, cpu_seconds=1),)
    wiring.Pictures = partial(Pictures, memory=128 * 1024**2, cpu_seconds=1)
    runpy.run_module("app", run_name="__main__", alter_sys=True)
