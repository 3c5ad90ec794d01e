"""What operators see of documents: everything that is known about them, and what is in them only for a reason."""

from dataclasses import replace
from functools import partial
from uuid import UUID

from sqlalchemy import Connection

from app import events
from app.auth.principal import Principal
from app.database import Database
from app.documents import holds, listing, repository
from app.documents.lifecycle import Status
from app.documents.schemas import Document, DocumentPage
from app.documents.service import DocumentService
from app.errors import BreakGlassDisabled, BreakGlassRequired, NotFound, UploadIncomplete
from app.events import TimelinePage
from app.events.catalogue.operators import OperatorContentRead
from app.files.models import File
from app.operators.schemas import DocumentsFilters
from app.processing.results import StoredResult
from app.processing.service import ProcessingService
from app.settings import Settings


class AllDocuments:
    """Shows the documents of all accounts. Each method but `find` raises NotFound."""

    def __init__(
        self, db: Database, documents: DocumentService, processing: ProcessingService, settings: Settings
    ) -> None:
        self._db = db
        self.service = documents
        self._processing = processing
        self.readable = settings.operator_content

    async def find(
        self, filters: DocumentsFilters, limit: int, cursor: str | None, *, count: bool = False
    ) -> DocumentPage:
        """A page of them, newest first. Raises InvalidCursor, SearchTooBroad, TooBusy."""
        return await listing.find(self._db, filters.owner_id, filters.newest_first, limit, cursor, counted=count)

    async def get(self, document_id: UUID) -> Document:
        """One document."""
        document = await self._db.read(lambda conn: repository.of_any(conn, document_id))
        if document is None:
            raise NotFound("There is no such document.")
        return document

    async def timeline(self, document: Document, limit: int, cursor: str | None) -> TimelinePage:
        """A page of its events, oldest first. Raises InvalidCursor."""
        return await self.service.events_of(document.id, limit, cursor)

    async def hold(self, document_id: UUID, reason: str) -> Document:
        """Put it on hold, or change the reason."""
        await self._db.write(partial(holds.hold, document_id=document_id, reason=reason))
        return await self.get(document_id)

    async def release(self, document_id: UUID) -> Document:
        """End the hold, if there is one."""
        await self._db.write(partial(holds.release, document_id=document_id))
        return await self.get(document_id)

    async def content(self, document_id: UUID, reason: str | None) -> tuple[Document, File]:
        """The document and its stored file, once the owner's timeline says who reads it, and why.

        Raises BreakGlassDisabled, BreakGlassRequired, UploadIncomplete.
        """
        document, reason = await self.get(document_id), self._required(reason)
        if document.status is Status.INITIATED:
            raise UploadIncomplete
        file = await self._db.read(partial(repository.file_of, document_id=document_id))
        await self._record(document, OperatorContentRead(what="content", reason=reason))
        return document, file

    async def result(
        self, principal: Principal, document_id: UUID, reason: str | None
    ) -> tuple[Document, StoredResult]:
        """The document and its current result, as `content` does.

        Raises BreakGlassDisabled, BreakGlassRequired, ResultNotReady, ProcessingFailed.
        """
        owner = await self._owner(principal, document_id)
        reason = self._required(reason)
        found, document = await self._processing.result(owner, document_id), await self.get(document_id)
        await self._record(document, OperatorContentRead(what="result", reason=reason))
        return document, found

    def _required(self, reason: str | None) -> str:
        if not self.readable:
            raise BreakGlassDisabled
        if reason is None:
            raise BreakGlassRequired
        return reason

    async def _owner(self, principal: Principal, document_id: UUID) -> Principal:
        """The operator, to whom the owner's own calls show what is the owner's."""
        return replace(principal, owner_id=(await self.get(document_id)).owner_id)

    async def _record(self, document: Document, event: OperatorContentRead) -> None:
        """Commit the event, before a byte of what it is about is sent."""

        def work(conn: Connection) -> None:
            if repository.of_any(conn, document.id, locked=True) is None:
                raise NotFound
            events.append(conn, event, user_id=document.owner_id, document_id=document.id)

        await self._db.write(work)
