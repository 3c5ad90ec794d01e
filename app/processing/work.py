"""What a job that processes a document is to do."""

from typing import Any

from pydantic import BaseModel

from app.processing.input import InputFile
from app.processing.schemas import Force


class Work(BaseModel):
    """The args of a job: a processor's name and version, its complete params, and the file to read.

    Of a pipeline also its `stages`, as requests spell them, and `force`.

    A newer version may have put more into them, which is passed over; what an older one lacks needs a default.
    """

    processor: str
    version: str
    params: dict[str, Any]
    file: InputFile
    stages: list[str] = []
    force: Force = False
