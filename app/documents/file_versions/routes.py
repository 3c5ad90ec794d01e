"""/documents/{id}/content and /documents/{id}/files: replace a document's file; list, edit, restore, remove previous
ones."""

from typing import Annotated
from uuid import UUID

import orjson
from fastapi import BackgroundTasks, Path, Request, Response
from pydantic import ValidationError

from app import errors, idempotency
from app.auth.dependencies import CurrentPrincipal, authenticated_router
from app.auth.principal import Principal, Scope
from app.documents import describe
from app.documents.dependencies import DocumentId
from app.documents.file_versions.replace import Replaced, ReplaceService
from app.documents.file_versions.schemas import DocumentFile, DocumentFilePage, FileChanges, SentFile
from app.documents.file_versions.service import FileVersions
from app.documents.schemas import Document
from app.documents.uploads import UNSTATED
from app.files.body import WholeBody
from app.files.multipart import Form, boundary_of
from app.files.names import header_name
from app.files.receive import Sent
from app.files.sniffing import DOCX, PDF
from app.idempotency import IdempotencyKey
from app.web.body import declared_length, json_response, media_type
from app.web.conditional import expected_versions
from app.web.dependencies import service
from app.web.describe import accepts, header, raises
from app.web.pagination import Cursor, Limit
from app.web.problems import invalid

reading = authenticated_router(Scope.DOCUMENTS_READ, prefix="/documents", tags=["documents"])
writing = authenticated_router(Scope.DOCUMENTS_WRITE, prefix="/documents", tags=["documents"])
deleting = authenticated_router(Scope.DOCUMENTS_DELETE, prefix="/documents", tags=["documents"])

Replace = Annotated[ReplaceService, service("replace")]
Versions = Annotated[FileVersions, service("file_versions")]
Number = Annotated[int, Path(ge=1, lt=2**31, description="The file's number.")]

_JSON = "application/json"
_BYTES = {"schema": {"type": "string", "format": "binary"}}
_UPLOAD = {"$ref": "#/components/schemas/FileForm"}
_FILE = {
    "required": True,
    "description": "The file, in a form or by itself, also with its own type; or where it was sent by a direct upload.",
    "content": {
        "multipart/form-data": {"schema": _UPLOAD, "encoding": {"file": {"contentType": f"{PDF}, {DOCX}"}}},
        UNSTATED: _BYTES,
        _JSON: {"schema": {"$ref": "#/components/schemas/SentFile"}},
    },
}
_HEADERS = {"ETag": header("The document's version.", '"2"'), **describe.LOCATION}
_IF_MATCH, _DISPOSITION = accepts(
    If_Match='The version that is to be changed, in quotes (`"3"`), or `*`: 428 without, 412 if it is at another one.',
    Content_Disposition="With a file by itself: its `filename`. Left out: the document keeps its own.",
)["parameters"]
_REPLACING = (
    errors.NotFound,
    errors.PreconditionFailed,
    errors.DocumentProcessing,
    errors.UploadIncomplete,
)


@writing.put(
    "/{document_id}/content",
    operation_id="replaceDocumentContent",
    response_model=Document,
    responses={
        200: {"headers": {**_HEADERS, **idempotency.HEADERS}, "links": describe.LINKS},
        **raises(
            *_REPLACING,
            *describe.RECEIVING,
            *describe.REFUSING,
            errors.OnHold,
            errors.PreconditionRequired,
            errors.RequestInProgress,
            errors.UnsafeArchive,
            errors.UnsupportedMediaType,
            keyed=True,
        ),
    },
    openapi_extra={
        "requestBody": _FILE,
        "parameters": [_IF_MATCH | {"required": True}, _DISPOSITION],
    },
)
async def replace_content(
    *,
    request: Request,
    document_id: DocumentId,
    principal: CurrentPrincipal,
    service: Replace,
    key: IdempotencyKey,
    background: BackgroundTasks,
) -> Response:
    """Give the document another file. The one before is kept with its results: see `GET /documents/{id}/files`.

    The document is UPLOADED then: process it again. The very file that it has changes nothing. As JSON, the file is
    that of another document that came by a direct upload and that nothing was done with since; that one goes away.
    """
    done = await _replace(request, document_id, principal, service, key)
    return _response(done, service, background)


@writing.post(
    "/{document_id}/files/{number}/restore",
    operation_id="restoreDocumentFile",
    response_model=Document,
    responses={
        200: {"headers": _HEADERS, "links": describe.LINKS},
        **raises(
            *_REPLACING,
            errors.TooBusy,
            *describe.READING,
            errors.StorageFull,
            errors.StorageQuotaExceeded,
            errors.RequestTimeout,
        ),
    },
    openapi_extra=accepts(If_Match="Versions that may be changed: 412 if the document is at another one."),
)
async def restore_file(
    *,
    request: Request,
    document_id: DocumentId,
    number: Number,
    principal: CurrentPrincipal,
    service: Replace,
    background: BackgroundTasks,
) -> Response:
    """Give the document a copy of a file that it had before, under a new number. Nothing that came since is lost.

    The document is UPLOADED then. A copy of what it has already changes nothing.
    """
    done = await service.restore(principal, document_id, expected_versions(request), number)
    return _response(done, service, background)


@reading.get(
    "/{document_id}/files",
    operation_id="listDocumentFiles",
    response_model=DocumentFilePage,
    responses=raises(errors.ValidationFailed, errors.NotFound, errors.InvalidCursor),
)
async def list_files(
    document_id: DocumentId, principal: CurrentPrincipal, service: Versions, limit: Limit = 20, cursor: Cursor = None
) -> Response:
    """The files that the document has and had, the newest first.

    `GET /documents/{id}/content?file=` and `GET /documents/{id}/result?file=` take their numbers.
    """
    return json_response(await service.find(principal, document_id, limit, cursor))


@writing.patch(
    "/{document_id}/files/{number}",
    operation_id="editDocumentFile",
    response_model=DocumentFile,
    responses=raises(errors.ValidationFailed, errors.NotFound, body=True),
)
async def edit_file(
    document_id: DocumentId, number: Number, body: FileChanges, principal: CurrentPrincipal, service: Versions
) -> Response:
    """Change what is stated about one of the document's files, by a merge patch (RFC 7396)."""
    changes = body.model_dump(exclude_unset=True)
    return json_response(await service.edit(principal, document_id, number, changes))


@deleting.delete(
    "/{document_id}/files/{number}",
    operation_id="deleteDocumentFile",
    status_code=204,
    responses=raises(
        errors.ValidationFailed,
        errors.NotFound,
        errors.CurrentFile,
        errors.OnHold,
        errors.TooBusy,
        errors.StorageFull,
    ),
)
async def delete_file(
    document_id: DocumentId,
    number: Number,
    principal: CurrentPrincipal,
    service: Versions,
    background: BackgroundTasks,
) -> Response:
    """Delete a file that the document had before, and its results."""
    keys = await service.remove(principal, document_id, number)
    background.add_task(service.removal.discarded, keys)
    return Response(status_code=204)


async def _replace(
    request: Request, document_id: UUID, principal: Principal, service: ReplaceService, key: str | None
) -> Replaced:
    """Replace a document's file by what is in the body. Raises PreconditionRequired, and what the service raises."""
    if "if-match" not in request.headers:
        raise errors.PreconditionRequired
    versions = expected_versions(request)
    if media_type(request) == _JSON:
        return await service.adopt(principal, document_id, versions, await _sent_id(request), key=key)
    sent, declared = _body_of(request, service.max_upload_bytes), declared_length(request)
    stream = request.stream()
    return await service.receive(principal, document_id, versions, sent, stream, key=key, declared=declared)


async def _sent_id(request: Request) -> UUID:
    """The id in a SentFile. Raises ValidationFailed, PayloadTooLarge, RequestTimeout."""
    try:
        return SentFile.model_validate_json(await request.body()).document_id
    except ValidationError as error:
        raise invalid(error) from None


def _body_of(request: Request, max_file: int) -> Sent:
    """What the body is fed to. Raises UnsupportedMediaType, MalformedMultipart, PayloadTooLarge."""
    if media_type(request) not in (PDF, DOCX, UNSTATED):
        return Form(boundary_of(request, max_file), max_file)
    filename = header_name(request.headers.get("content-disposition", ""))
    return WholeBody(filename, declared_length(request), max_file)


def _response(done: Replaced, service: ReplaceService, background: BackgroundTasks) -> Response:
    if done.keys:
        background.add_task(service.removal.discarded, done.keys)
    return done.answer.response({"ETag": f'"{orjson.loads(done.answer.body)["version"]}"'})
