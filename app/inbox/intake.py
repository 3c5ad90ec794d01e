"""From a file of the inbox to a document, by the same way as an upload."""

import json
from contextlib import aclosing
from functools import partial
from typing import Any
from uuid import UUID

import structlog

from app.auth.principal import SCOPES_OF, Principal, Role, Scope
from app.client.files import filename_of, folder_of
from app.client.keys import key_of
from app.documents.service import DocumentService
from app.errors import PayloadTooLarge, UnsupportedMediaType, ValidationFailed
from app.files.body import FileBody, too_large
from app.files.names import display_name
from app.inbox import names
from app.inbox.base import Found, Inbox
from app.telemetry import context, metrics

log = structlog.get_logger()

FINAL = (PayloadTooLarge, UnsupportedMediaType, ValidationFailed)
"""Refusals that the same file would meet again."""


class Dropped(FileBody):
    """A file of the inbox, with its metadata. Raises ValidationFailed for a name without a printable character."""

    def __init__(self, file: Found, metadata: dict[str, Any], max_file: int) -> None:
        super().__init__(max_file)
        if file.size > max_file:
            raise too_large(max_file)
        name = display_name(filename_of(file.name))
        if name is None:
            raise ValidationFailed("The file has no usable name.", pointer="/file")
        self.filename = name
        self._metadata = metadata

    def finish(self) -> dict[str, bytes]:
        """Return the metadata, JSON, as an upload form has it. Raises UnsupportedDocument."""
        self.confirm()
        return {"metadata": json.dumps(self._metadata).encode()}


class Intake:
    """Takes in one file at a time. `process`: a processor and its params, as in the metadata of an upload; or None."""

    def __init__(self, inbox: Inbox, documents: DocumentService, process: dict[str, Any] | None) -> None:
        self._inbox = inbox
        self._documents = documents
        self._process = process

    async def take(self, owner_id: UUID, file: Found) -> None:
        """Make the file a document of the owner, unless it is one, and move it: to `done/`, or to `refused/`.

        Raises Changed, and Unusable or an AppError that another attempt may not meet. The file then stays.
        """
        structlog.contextvars.clear_contextvars()
        with context.acting(context.INBOX):
            try:
                document_id = await self._upload(owner_id, file)
            except FINAL as refusal:
                await self._inbox.move(file, names.refused(file), f"{refusal.code}: {refusal.detail}")
                metrics.inbox_files.labels("refused").inc()
                log.info("inbox.refused", file=file.name, code=refusal.code)
            else:
                await self._inbox.move(file, names.done(file, document_id))

    async def _upload(self, owner_id: UUID, file: Found) -> str:
        """Return the id of its document."""
        principal = Principal(owner_id, context.INBOX, SCOPES_OF[Role.USER], via="inbox", needed=Scope.DOCUMENTS_WRITE)
        # As `python -m app client upload` makes them: what came by that is not uploaded twice.
        given = {"folder": folder_of(file.name), "process": self._process}
        metadata = {name: value for name, value in given.items() if value}
        dropped = Dropped(file, metadata, self._documents.max_upload_bytes)
        keyed = partial(_key, file.name, metadata)
        async with aclosing(self._inbox.read(file)) as stream:  # type: ignore[type-var]
            answer, job = await self._documents.take_in(principal, dropped, stream, keyed, file.size)
        metrics.inbox_files.labels("already_there" if answer.replayed else "accepted").inc()
        if job:
            await job.wake()
        return answer.location.rpartition("/")[2]


def _key(name: str, metadata: dict[str, Any], sha256: str) -> str:
    return key_of("upload", sha256, name, metadata)
