"""What does the heavy work on a document, behind one small port. A pipeline of your own is one more of these."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

Report = Callable[[float], None]


class Params(BaseModel):
    """Base of every processor's params: unknown ones are refused, and so are NaN and infinities."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


P_contra = TypeVar("P_contra", bound=Params, contravariant=True)


class ProcessingError(Exception):
    """A typed failure that the client sees: a stable code, and a detail that repeats nothing from the file."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class Permanent(ProcessingError):
    """Trying again cannot help: the job fails now."""


class Transient(ProcessingError):
    """Trying again may help: the job is retried with backoff while it has tries left."""


@dataclass(frozen=True, slots=True)
class Source:
    """The document to work on. `path` is a readable file on this machine; `attempt` counts from 1."""

    path: Path
    content_type: str
    size: int
    sha256: str
    attempt: int


class Processor(Protocol[P_contra]):
    """Obligations: `run` does not block the event loop, ends promptly when cancelled and then leaves nothing running,
    reports progress as a fraction from 0 to 1, and returns what JSON can hold. It may be run more than once for one
    document, so whatever it does elsewhere must be idempotent. Raises Permanent or Transient; anything else it raises
    is taken for transient. A changed output format or meaning is a new `version`."""

    name: str
    version: str

    @property
    def at_once(self) -> int | None:
        """How many attempts one process makes at once; None: JOB_CONCURRENCY of them."""

    @property
    def params(self) -> type[Any]:
        """The model of its params, all of which have defaults."""

    async def run(self, source: Source, params: P_contra, report: Report) -> dict[str, Any]:
        """Do the work and return the result's `data`."""
