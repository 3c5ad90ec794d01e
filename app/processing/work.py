"""What a job of the kind `process` is to do: its args, and the queue that they belong to."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Self

KIND = "process"


@dataclass(frozen=True, slots=True)
class InputFile:
    """The file that a job reads: where it is stored, and what it was when the job was accepted."""

    key: str
    content_type: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Work:
    """A processor's name and version, its complete params, and the file to read."""

    processor: str
    version: str
    params: dict[str, Any]
    file: InputFile

    @property
    def queue(self) -> str:
        """Where jobs for this work wait: a process serves it if it has the processor at this version."""
        return f"{queue_prefix(self.processor)}{self.version}"

    @property
    def args(self) -> dict[str, Any]:
        """As a job holds it."""
        return asdict(self)

    @classmethod
    def of(cls, args: dict[str, Any]) -> Self:
        """The work in the args of a job.

        A newer version may have put more into them, which is passed over; what an older one lacks needs a default.
        """
        known = {each.name: args[each.name] for each in fields(cls) if each.name in args}
        file = {each.name: args["file"][each.name] for each in fields(InputFile) if each.name in args["file"]}
        return cls(**known | {"file": InputFile(**file)})


def queue_prefix(processor: str) -> str:
    """What the queues of all versions of a processor begin with."""
    return f"{KIND}/{processor}@"
