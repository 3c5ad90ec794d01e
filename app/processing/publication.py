"""Publishing what an attempt has made: in one transaction its result, the files of that, and documents."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self
from uuid import UUID

from sqlalchemy import Connection

from app import events
from app.documents import repository as documents
from app.documents.repository import Child
from app.documents.schemas import Document, ProcessorChoice
from app.errors import AppError, Forbidden, NotFound, OnHold, UnsupportedContentType
from app.events.catalogue.documents import DocumentChildrenPublished
from app.events.failure import Failure
from app.files import repository as files
from app.jobs.kinds import Failed, Refused, Retryable
from app.jobs.models import Job
from app.processing import result_files, results
from app.processing.acceptance import Acceptance
from app.processing.results import Made
from app.processing.sink import OutputFile
from app.processors.base import MakingParams, Params, Then
from app.quotas import Quotas
from app.telemetry import faults

_OVERDUE = Failure(code="output-overdue", detail="What was made waited for so long that it may have been removed.")


@dataclass(frozen=True, slots=True)
class Product:
    """All that an attempt has made: results, and files. `then`: what is to be done with each of its documents.

    `deleted`: the keys of files that are to be removed once it is published.
    """

    results: Sequence[Made]
    files: Sequence[OutputFile] = ()
    then: Then | None = None
    delete_original: bool = False
    deleted: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, made: Sequence[Made], stored: Sequence[OutputFile], params: Params) -> Self:
        """What an attempt with these params has made."""
        making = params if isinstance(params, MakingParams) else MakingParams()
        return cls(made, stored, making.then, making.delete_original)


Delete = Callable[[Connection, UUID, UUID], list[str]]
"""Deletes an owner's document, and returns the keys of what is to be removed. Raises OnHold."""


class Publication:
    """Publishes products.

    `grace`: seconds after which a file that nothing refers to may be swept.
    """

    def __init__(self, acceptance: Acceptance, quotas: Quotas, delete: Delete, *, grace: float) -> None:
        self._acceptance = acceptance
        self._quotas = quotas
        self._delete = delete
        self._grace = grace

    def publish(self, conn: Connection, job: Job, product: Product) -> None:
        """Put a product in the place of its processor's last one. Raises Refused."""
        faults.hit("outputs.before_publish")
        try:
            for each in product.results:
                results.publish(conn, each, self._grace)
            files.publish(conn, [each.file for each in product.files])
        except files.Overdue:
            raise Refused(Retryable(_OVERDUE)) from None
        except OnHold as error:
            raise Refused(Failed(_failure(error))) from None
        result_files.add(conn, job, [each for each in product.files if each.metadata is None])
        made = [Child(each.name, each.metadata, each.file) for each in product.files if each.metadata is not None]
        try:
            if made:
                children = documents.add_children(conn, job.owner_id, job.document_id, job.id, made)
                self._follow(conn, job, children, product)
            if product.files:
                self._quotas.check(conn, job.owner_id)
        except (Forbidden, UnsupportedContentType) as error:  # another attempt would make the same
            raise Refused(Failed(_failure(error))) from None
        except AppError as error:
            raise Refused(Retryable(_failure(error))) from None

    def delete_original(self, conn: Connection, job: Job, product: Product) -> None:
        """Delete the document that others were made of, if that is wanted. It is no longer PROCESSING."""
        assert job.document_id is not None
        if product.delete_original and any(each.metadata is not None for each in product.files):
            with suppress(OnHold, NotFound):  # or a process of the release before works on what is in the trash
                product.deleted[:] = self._delete(conn, job.owner_id, job.document_id)

    def _follow(self, conn: Connection, job: Job, children: list[Document], product: Product) -> None:
        """Tell of documents that were made, and accept what is to be done with them. Raises as `accept` does."""
        event = DocumentChildrenPublished(processor=job.processor, children=len(children))
        events.append(conn, event, user_id=job.owner_id, document_id=job.document_id, job_id=job.id)
        if then := product.then:
            wanted = self._acceptance.requested(ProcessorChoice(processor=then.processor, params=then.params))
            stored = {each.file.id: each.file for each in product.files}
            added = [(child, stored[child.id]) for child in children]
            self._acceptance.accept_new(conn, job.owner_id, added, wanted)


def _failure(error: AppError) -> Failure:
    return Failure(code=error.code, detail=error.detail)
