"""What a job that processes a document is to do."""

from typing import Any

from pydantic import Field

from app.processing.input import InputDocument, InputFile
from app.processing.schemas import Force


class Work(InputDocument):
    """The args of a job: a processor's name and version, its complete params, and the document to read.

    `file_number` says which of the document's files that is, and `others` are files of more documents. Of a pipeline
    also its `stages`, as requests spell them, and `force`.

    A newer version may have put more into them, which is passed over; what an older one lacks needs a default.
    """

    processor: str
    version: str
    params: dict[str, Any]
    file_number: int | None = None
    others: list[InputFile] = Field([])
    stages: list[str] = Field([])
    force: Force = False

    @property
    def files(self) -> list[InputFile]:
        """All that is to be read, the document's own first."""
        return [self.file, *self.others]
