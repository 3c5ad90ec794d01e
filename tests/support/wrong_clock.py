"""`python -m app`, but its clocks are off by the seconds in a file: the process's, and the database's as it sees it."""

import json
import os
import runpy
import time
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Literal

import jose.jwt

from tests.support import databases

VARIABLE = "WRONG_CLOCK"
Clock = Literal["process", "database"]

right: Callable[[], float] = time.time


def put(file: Path, **seconds: float) -> None:
    """Set the clocks of the servers that look at this file, `process` and `database`, so far ahead."""
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps(seconds))
    draft.replace(file)


def wrong(clock: Clock) -> float:
    seconds: float = json.loads(Path(os.environ[VARIABLE]).read_text())[clock]
    return right() + seconds


class WrongDatetime(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:
        return datetime.fromtimestamp(wrong("process"), tz)


if __name__ == "__main__":
    time.time = lambda: wrong("process")
    jose.jwt.datetime = WrongDatetime
    with databases.clock(lambda: datetime.fromtimestamp(wrong("database"), UTC)):
        runpy.run_module("app", run_name="__main__", alter_sys=True)
