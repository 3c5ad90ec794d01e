"""What a worker has sent, and what it was answered."""

import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

JSON = {"Content-Type": "application/json"}

_CLAIM = re.compile(r"/remote/[^/]+/claim")
_ABOUT_JOB = re.compile(r"/remote/jobs/([^/]+)/(claim|heartbeat|complete|fail|input|output|result)s?(?:/[^/]+)?")
_INPUT = re.compile(r"/inputs/([^/]+)/\d+/\d+")


class Answer(NamedTuple):
    """An answer of the service, or one in its place."""

    status: int
    headers: Mapping[str, str] = JSON
    body: bytes = b""

    @classmethod
    def of(cls, status: int, said: Mapping[str, Any], **headers: str) -> "Answer":
        """An answer in JSON."""
        return cls(status, {**JSON, **headers}, json.dumps(said).encode())

    @property
    def said(self) -> dict[str, Any]:
        """Its JSON; empty if there is none."""
        return _object(self.body)

    def __str__(self) -> str:
        return " ".join(str(each) for each in (self.status, self.said.get("code")) if each)


@dataclass
class Call:
    """A call of the worker. `kind` is claim, heartbeat, complete, fail, input, output, result, or empty for any other.

    A claim has the id of the job that it was answered. Times are those of the monotonic clock. `answer` is None while
    there is none, and for good if it was lost. `disturbed`: it was not simply passed on.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    kind: str = ""
    job_id: str = ""
    at: float = field(default_factory=time.monotonic)
    answer: Answer | None = None
    ended_at: float = math.inf
    disturbed: bool = False

    def __post_init__(self) -> None:
        if _CLAIM.fullmatch(self.path):
            self.kind = "claim"
        elif found := _ABOUT_JOB.fullmatch(self.path):
            self.job_id, self.kind = found.groups()
        elif found := _INPUT.fullmatch(self.path):
            self.job_id, self.kind = found[1], "input"

    @property
    def said(self) -> dict[str, Any]:
        """The JSON in it; empty if there is none."""
        return _object(self.body)

    @property
    def processor(self) -> str:
        """The processor that a claim names; empty if it names a job."""
        return self.path.split("/")[2] if _CLAIM.fullmatch(self.path) else ""

    @property
    def ended(self) -> bool:
        """Whether it was answered, or ended without an answer."""
        return self.ended_at < math.inf

    @property
    def status(self) -> int:
        """The status of the answer; 0 without one."""
        return self.answer.status if self.answer else 0

    @property
    def bearer(self) -> str:
        """The token or key in its Authorization."""
        return self.headers.get("Authorization", "").rpartition(" ")[2]


def _object(body: bytes) -> dict[str, Any]:
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}
