"""The processor port: heavy work on a document. Your own pipeline is one more adapter."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

Report = Callable[[float], None]  # takes the progress, a fraction from 0 to 1


class Params(BaseModel):
    """Base of every processor's params. Refuses unknown ones, NaN and infinities."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


P_contra = TypeVar("P_contra", bound=Params, contravariant=True)


class ProcessingError(Exception):
    """A failure that the client sees: a stable code, and a detail that repeats nothing from the file."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class Permanent(ProcessingError):
    """Trying again cannot help: the job fails at once."""


class Transient(ProcessingError):
    """Trying again may help: the job is retried with backoff while it has tries left."""


@dataclass(frozen=True, slots=True)
class Source:
    """The document to work on.

    `path` is a readable file on this machine, `size` is in bytes, `sha256` in hex, and `attempt` counts from 1.
    """

    path: Path
    content_type: str
    size: int
    sha256: str
    attempt: int


class Processor(Protocol[P_contra]):
    """What the service needs from a processor.

    `run` must not block the event loop. When it is cancelled it ends promptly and leaves nothing running. It may run
    more than once for one document, so its effects elsewhere must be idempotent. `version` changes whenever the format
    or the meaning of the output changes.
    """

    name: str
    version: str

    @property
    def at_once(self) -> int | None:
        """How many attempts one process runs at the same time. None means JOB_CONCURRENCY."""

    @property
    def params(self) -> type[Any]:
        """The model of the params, all of which have defaults."""

    async def run(self, source: Source, params: P_contra, report: Report) -> dict[str, Any]:
        """Do the work and return the result's `data`, which JSON can represent.

        Raises Permanent or Transient. Any other exception counts as transient.
        """
