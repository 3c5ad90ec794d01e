"""Pictures of the pages of PDFs, drawn by confined children: no PDF is parsed in this process, nor in a browser.

They are derived, and never stored: nobody has to count, back up or erase them. A browser keeps what it was sent, and
asks whether that is still good by an ETag that is known without drawing anything. For others, each process keeps the
latest in its memory, by the id of their file. Who may see that is decided before, so what was deleted, or belongs to
others, cannot be reached there.
"""

import os
import time
from collections import OrderedDict
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from fastapi import Request, Response
from pydantic import Base64Bytes, BaseModel, Field

from app.auth.principal import Principal
from app.documents.schemas import Document
from app.documents.service import DocumentService
from app.errors import NoPictures, PageNotFound, PictureFailed, TooBusy
from app.events.catalogue.documents import DocumentContentRead
from app.files.models import ContentType, File
from app.files.stored import StoredFiles
from app.limiter import Limiter, Usage
from app.processors.base import Permanent, Transient
from app.processors.child import ConfinedChild
from app.processors.text.processor import FAILURES
from app.web.body import is_head
from app.web.conditional import unchanged

AT_ONCE = max(2, os.cpu_count() or 1)
TIMEOUT = 10.0  # seconds that a picture waits while its owner is granted none
FAILED_FOR = 60.0  # seconds for which a failure is kept: a busy machine may have been the reason
KEPT = 16 * 1024**2  # bytes; some hundred pictures of usual pages
MAX_DRAWN = 16 * 1024**2  # bytes of JSON, in which there can be 4 million pixels of noise, as Base64
DRAWER = f"1+{version('pypdfium2')}"  # the first number is of what `app/processors/pdf/picture.py` makes

_ENTRY = 1024  # bytes that anything takes that is kept, beside a picture
_HEADERS = {"Cache-Control": "private, no-cache", "Content-Security-Policy": "default-src 'none'; sandbox"}


class Drawn(BaseModel, extra="forbid", strict=True):
    """What the child has found: how many pages there are and, unless there is no such page, a picture."""

    page_count: int = Field(ge=0, lt=1_000_000_000)
    png: Base64Bytes | None


class Wanted(NamedTuple):
    """Which picture: of which page, counted from 1, and how many pixels wide, unless it would be too tall then."""

    number: int
    width: int


class Failed(NamedTuple):
    """Why a picture could not be drawn, and until when (`time.monotonic`) that holds."""

    code: str
    detail: str
    until: float


_COUNT = Wanted(0, 1)  # there is no such page


class Pictures:
    """Sends pictures of documents. A limited number is drawn at once; each child has the limits of a ConfinedChild.

    Each method raises NotFound, UploadIncomplete, NoPictures, PageNotFound, PictureFailed, TooBusy, FileMissing,
    StorageUnavailable, StorageFull.
    """

    def __init__(
        self,
        documents: DocumentService,
        stored: StoredFiles,
        *,
        at_once: int = AT_ONCE,
        memory: int = 512 * 1024**2,
        cpu_seconds: int = 8,
        seconds: float = 12,
    ) -> None:
        self._documents = documents
        self._stored = stored
        self._limiter = Limiter(at_once, TIMEOUT)
        self._kept = Kept(KEPT)
        self._child = ConfinedChild(
            name="picture",
            module="app.processors.pdf.picture",
            result=Drawn,
            failures=FAILURES,
            memory=memory,
            cpu_seconds=cpu_seconds,
            seconds=seconds,
        )

    @property
    def usage(self) -> Usage:
        """How many are being drawn, and how many can be."""
        return self._limiter.usage

    async def page_count(self, principal: Principal, document_id: UUID, number: int) -> tuple[Document, int]:
        """Return a document that has a page of this number, and how many it has."""
        document, file = await self._pdf(principal, document_id)
        count = (await self._drawn(principal.owner_id, file, _COUNT)).page_count
        if number > count:
            raise _beyond(count)
        return document, count

    async def respond(self, request: Request, principal: Principal, document_id: UUID, wanted: Wanted) -> Response:
        """The response to a request for a picture, or 304."""
        document, file = await self._pdf(principal, document_id)
        headers = _HEADERS | {"ETag": f'"{file.sha256}-{wanted.number}-{wanted.width}-{DRAWER}"'}
        if unchanged(request, headers["ETag"]):
            return Response(status_code=304, headers=headers)
        drawn = await self._drawn(principal.owner_id, file, wanted)
        if drawn.png is None:
            raise _beyond(drawn.page_count)
        if not is_head(request):
            read = DocumentContentRead(start=0, length=len(drawn.png), page=wanted.number)
            await self._documents.note_read(document, read)
        return Response(drawn.png, 200, headers, "image/png")

    async def _pdf(self, principal: Principal, document_id: UUID) -> tuple[Document, File]:
        document, file = await self._documents.stored(principal, document_id)
        if file.content_type != ContentType.PDF:
            raise NoPictures
        return document, file

    async def _drawn(self, owner_id: UUID, file: File, wanted: Wanted) -> Drawn:
        if kept := self._kept.get(file, wanted):
            return _made(kept)
        async with self._limiter.acquire(owner_id):
            if kept := self._kept.get(file, wanted):  # another request for it was served first
                return _made(kept)
            async with self._stored.copy(file) as path:
                came_of_it = await self._attempt(path, wanted)
            self._kept.add(file, wanted, came_of_it)
            return _made(came_of_it)

    async def _attempt(self, path: Path, wanted: Wanted) -> "Drawn | Failed":
        """What came of drawing a picture. A failure is kept, too: whoever asks again would keep others waiting."""
        try:
            return await self._child.run(path, wanted._asdict(), _ignore, max_line=MAX_DRAWN)
        except Permanent as error:
            return Failed(error.code, error.detail, time.monotonic() + FAILED_FOR)
        except Transient as error:
            raise TooBusy(error.detail) from None


class Kept:
    """What was asked for last, of so many bytes in all."""

    def __init__(self, most: int) -> None:
        self._left = most
        self._drawn: OrderedDict[tuple[UUID, Wanted], Drawn | Failed] = OrderedDict()

    def get(self, file: File, wanted: Wanted) -> Drawn | Failed | None:
        if not (kept := self._drawn.get((file.id, wanted))):
            return None
        self._drawn.move_to_end((file.id, wanted))
        return None if isinstance(kept, Failed) and kept.until <= time.monotonic() else kept

    def add(self, file: File, wanted: Wanted, came_of_it: Drawn | Failed) -> None:
        before = self._drawn.pop((file.id, wanted), None)
        self._drawn[file.id, wanted] = came_of_it
        self._left += (_size(before) if before else 0) - _size(came_of_it)
        while self._left < 0:
            _, oldest = self._drawn.popitem(last=False)
            self._left += _size(oldest)


def _size(came_of_it: Drawn | Failed) -> int:
    """Bytes of memory, roughly."""
    return _ENTRY + (len(came_of_it.png or b"") if isinstance(came_of_it, Drawn) else 0)


def _made(came_of_it: Drawn | Failed) -> Drawn:
    """Raises PictureFailed."""
    if isinstance(came_of_it, Drawn):
        return came_of_it
    failure = {"code": came_of_it.code, "detail": came_of_it.detail}
    raise PictureFailed(came_of_it.detail, error=failure)


def _beyond(count: int) -> PageNotFound:
    return PageNotFound(f"The document has {count} page{'' if count == 1 else 's'}.")


def _ignore(progress: float) -> None:
    """One page is drawn at once."""
