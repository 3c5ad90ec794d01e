"""What a job of the kind `process` is to do: its args, and the queue that they belong to."""

from typing import Any

from pydantic import BaseModel, ConfigDict

KIND = "process"


class InputFile(BaseModel):
    """The file that a job reads: where it is stored, and what it was when the job was accepted."""

    model_config = ConfigDict(from_attributes=True)

    key: str
    content_type: str
    size: int
    sha256: str


class Work(BaseModel):
    """The args of a job: a processor's name and version, its complete params, and the file to read.

    A newer version may have put more into them, which is passed over; what an older one lacks needs a default.
    """

    processor: str
    version: str
    params: dict[str, Any]
    file: InputFile

    @property
    def queue(self) -> str:
        """Where jobs for this work wait: a process serves it if it has the processor at this version."""
        return f"{queue_prefix(self.processor)}{self.version}"


def queue_prefix(processor: str) -> str:
    """What the queues of all versions of a processor begin with."""
    return f"{KIND}/{processor}@"
