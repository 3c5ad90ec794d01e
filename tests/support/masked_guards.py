"""`python -m app` with processors whose child a document has taken over, and which each lack some guards.

The variable WITHOUT names the guards that the kernel seems to lack.
"""

import os
import runpy
from typing import Any

from app.processors import confined, sandbox
from app.processors.base import Report, Source
from app.processors.confined import PROGRAM
from app.processors.text.processor import TextParams, TextProcessor
from app.wiring import adapters


class TakenOver(TextProcessor):
    """Is named after the guards that its child lacks."""

    def __init__(self, *guards: str) -> None:
        self.name = "-".join(["without", *guards])
        masks = "".join(f"sandbox.{guard}_missing = lambda: 'masked'; " for guard in guards)
        self._program = PROGRAM.replace("sandbox.main()", f"{masks}sandbox.main()")
        super().__init__(module="tests.support.taken_over")

    async def run(self, source: Source, params: TextParams, report: Report) -> dict[str, Any]:
        confined.PROGRAM = self._program
        return await super().run(source, params, report)


if __name__ == "__main__":
    for guard in os.environ.get("WITHOUT", "").split():
        setattr(sandbox, f"{guard}_missing", lambda: "masked")
    lacking = ((), ("landlock",), ("seccomp",), ("landlock", "seccomp"))
    adapters.available = lambda _: tuple(TakenOver(*each) for each in lacking)
    runpy.run_module("app", run_name="__main__", alter_sys=True)
