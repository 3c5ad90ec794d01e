"""What the processors that make PDFs of pages have in common."""

import os
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, Field

from app.processors.child import ConfinedChild
from app.processors.text.processor import FAILURES

R = TypeVar("R", bound=BaseModel)

AT_ONCE = os.cpu_count() or 1
CONTENT_TYPES = ("application/pdf",)
MAX_FILENAME = 255  # characters

# Names are shown in lists and logs; what is before a slash would be taken for a folder.
NamePart = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f/\\]*$")]

Count = Annotated[int, Field(ge=0, lt=1_000_000_000)]  # a document may have the child say anything


class Told(BaseModel, extra="forbid", strict=True):
    """What the child tells of a file: its pages, counted from 0, and how many files there are."""

    pages: list[Count]
    of: Count


def confined(name: str, result: type[R], memory: int) -> ConfinedChild[R]:
    """Return the child of a processor. It may take long, because files are stored meanwhile."""
    return ConfinedChild(
        name=name,
        module="app.processors.pdf.child",
        result=result,
        failures=FAILURES,
        memory=memory,
        cpu_seconds=300,
        seconds=540,
        readable=(Path("/dev/urandom"),),  # or qpdf opens nothing that is encrypted
    )


def joined(stem: str, *, before: str = "", after: str = "") -> str:
    """Return the name of a PDF: what is not empty, joined by underscores. The stem is cut if it is too long."""
    rest = sum(len(each) + 1 for each in (before, after) if each) + len(".pdf")
    return "_".join(filter(None, (before, stem[: MAX_FILENAME - rest], after))) + ".pdf"
