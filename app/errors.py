"""The error tree. Every error that a client can see is here; its docstring is the page at /problems/<code>.

AppError
├── BadRequest 400          MalformedIdempotencyKey
├── Unauthorized 401        InvalidCredentials · InvalidToken · InvalidRefreshToken
├── Forbidden 403           RegistrationClosed · InvalidUploadUrl
├── NotFound 404
├── MethodNotAllowed 405
├── RequestTimeout 408
├── Conflict 409            EmailTaken · RequestInProgress · UploadIncomplete · JobInProgress · JobFinished
│                           DocumentProcessing · ResultNotReady · ProcessingFailed
├── LengthRequired 411
├── PreconditionFailed 412  AlreadyStored
├── PayloadTooLarge 413
├── UnsupportedMediaType 415  UnsupportedDocument · MacrosNotAllowed · PolyglotFile
├── RangeNotSatisfiable 416
├── ValidationFailed 422    MalformedMultipart · UnsafeArchive · UnknownProcessor · InvalidCursor · IdempotencyKeyReused
│                           SizeMismatch · ContentTypeMismatch · Sha256Mismatch · UploadMissing · UploadRejected
├── HeadersTooLarge 431
├── InternalError 500
├── Unavailable 503         DatabaseUnavailable (OutcomeUnknown) · StorageUnavailable · TooBusy · NotReady
└── StorageFull 507

`problems.py` puts them on the wire.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class ConfigurationError(Exception):
    """The environment does not allow this process to run. The message is one line that names the variable."""


class AppError(Exception):
    """An error with a place in the contract: a status, a stable code and a title.

    `detail` says what happened this time and never repeats the input; `extra` becomes members of the problem object.
    """

    status: ClassVar[int]
    code: ClassVar[str]
    title: ClassVar[str]
    headers: Mapping[str, str] = {}

    def __init__(self, detail: str | None = None, *, headers: Mapping[str, str] | None = None, **extra: Any) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.headers = {**type(self).headers, **(headers or {})}
        self.extra = extra


class BadRequest(AppError):
    """The request could not be understood as HTTP or as this API uses it."""

    status, code, title = 400, "bad-request", "Bad request"


class MalformedIdempotencyKey(BadRequest):
    """`Idempotency-Key` must be sent once and hold 1 to 255 printable ASCII characters, bare or as a quoted string."""

    code, title = "malformed-idempotency-key", "Malformed Idempotency-Key"


class Unauthorized(AppError):
    """The request needs a bearer access token: log in at `POST /auth/login`."""

    status, code, title = 401, "unauthorized", "Authentication required"
    headers: Mapping[str, str] = {"WWW-Authenticate": "Bearer"}


class InvalidCredentials(Unauthorized):
    """No active account has this email and password."""

    code, title = "invalid-credentials", "Wrong email or password"


class InvalidToken(Unauthorized):
    """The access token is malformed, expired, or not ours. Obtain a new one at `POST /auth/refresh`."""

    code, title = "invalid-token", "Invalid access token"
    headers: Mapping[str, str] = {"WWW-Authenticate": 'Bearer error="invalid_token"'}


class InvalidRefreshToken(Unauthorized):
    """The refresh token is unknown, expired, revoked or was used before. Log in again."""

    code, title = "invalid-refresh-token", "Invalid refresh token"
    headers: Mapping[str, str] = {"WWW-Authenticate": 'Bearer error="invalid_token"'}


class Forbidden(AppError):
    """The request is understood and refused."""

    status, code, title = 403, "forbidden", "Forbidden"


class RegistrationClosed(Forbidden):
    """This service does not let strangers register; its operator makes the accounts."""

    code, title = "registration-closed", "Registration is closed"


class InvalidUploadUrl(Forbidden):
    """The upload URL has expired, was changed, or is another document's or another storage's. Announce the upload again
    to get a new one."""

    code, title = "invalid-upload-url", "Invalid upload URL"


class NotFound(AppError):
    """There is no such resource, or it belongs to somebody else."""

    status, code, title = 404, "not-found", "Not found"


class MethodNotAllowed(AppError):
    """The resource does not answer this method; `Allow` lists the ones it does."""

    status, code, title = 405, "method-not-allowed", "Method not allowed"


class RequestTimeout(AppError):
    """The body arrived too slowly or stopped arriving. Nothing was kept; send it again."""

    status, code, title = 408, "request-timeout", "Request timed out"
    headers: Mapping[str, str] = {"Connection": "close"}


class Conflict(AppError):
    """The state of the resource does not allow this now."""

    status, code, title = 409, "conflict", "Conflict"


class EmailTaken(Conflict):
    """An account with this email exists."""

    code, title = "email-taken", "Email already registered"


class RequestInProgress(Conflict):
    """A request with this Idempotency-Key is still running. Retry after the given seconds to get its answer."""

    code, title = "request-in-progress", "First request still running"
    headers: Mapping[str, str] = {"Retry-After": "1"}


class UploadIncomplete(Conflict):
    """The document was announced, but its bytes have not been stored and verified yet."""

    code, title = "upload-incomplete", "Upload not completed"


class JobInProgress(Conflict):
    """The document is being processed with another processor or other params. Wait for that job or cancel it."""

    code, title = "job-in-progress", "Another job is running"
    headers: Mapping[str, str] = {"Retry-After": "1"}


class JobFinished(Conflict):
    """The job has already succeeded, failed or been cancelled."""

    code, title = "job-finished", "Job already finished"


class DocumentProcessing(Conflict):
    """The document is being processed and cannot be deleted until its job ends. Cancel the job to end it now."""

    code, title = "document-processing", "Document is being processed"
    headers: Mapping[str, str] = {"Retry-After": "1"}


class ResultNotReady(Conflict):
    """The document has no current result: it was not processed yet, or its job has not finished."""

    code, title = "result-not-ready", "Result not ready"


class ProcessingFailed(Conflict):
    """The last job of the document gave up; `error` says why. Process the document again to retry."""

    code, title = "processing-failed", "Processing failed"


class LengthRequired(AppError):
    """The request must say in `Content-Length` how long its body is."""

    status, code, title = 411, "length-required", "Length required"


class PreconditionFailed(AppError):
    """`If-Match` names another version of the document. Read it again and repeat the change on what is there now."""

    status, code, title = 412, "precondition-failed", "The document has changed"


class AlreadyStored(PreconditionFailed):
    """The document's bytes are here already: an upload URL is good for one upload."""

    code, title = "already-stored", "Already uploaded"


class PayloadTooLarge(AppError):
    """The body, or the file in it, is larger than this service accepts."""

    status, code, title = 413, "payload-too-large", "Payload too large"


class UnsupportedMediaType(AppError):
    """The body is not in a format this call understands; see its content types in the API description."""

    status, code, title = 415, "unsupported-media-type", "Unsupported media type"


class UnsupportedDocument(UnsupportedMediaType):
    """By its content the file is neither a complete PDF nor a DOCX. Its name and declared type are not considered."""

    code, title = "unsupported-document", "Not a PDF or DOCX"


class MacrosNotAllowed(UnsupportedMediaType):
    """The Word file carries macros."""

    code, title = "macros-not-allowed", "Macros are not accepted"


class PolyglotFile(UnsupportedMediaType):
    """The file can be read as more than one format."""

    code, title = "polyglot-file", "Ambiguous file"


class RangeNotSatisfiable(AppError):
    """The requested range lies beyond the end of the file; `Content-Range` gives its size."""

    status, code, title = 416, "range-not-satisfiable", "Range not satisfiable"


class ValidationFailed(AppError):
    """Part of the request is missing or not as described; `errors` points at each place."""

    status, code, title = 422, "validation-failed", "Validation failed"
    pointer: ClassVar[str] = ""

    def __init__(self, detail: str | None = None, *, errors: Sequence[Mapping[str, str]] = (), **extra: Any) -> None:
        super().__init__(detail, **extra)
        self.extra["errors"] = errors or [{"detail": self.detail, "pointer": self.pointer}]


class MalformedMultipart(ValidationFailed):
    """The multipart body is broken, truncated, or lacks the one `file` part."""

    code, title = "malformed-multipart", "Malformed multipart body"


class UnsafeArchive(ValidationFailed):
    """The DOCX inflates beyond the limits, or has unsafe or duplicate entry names, or a document type definition."""

    code, title, pointer = "unsafe-archive", "Unsafe DOCX archive", "/file"


class UnknownProcessor(ValidationFailed):
    """No processor has this name."""

    code, title, pointer = "unknown-processor", "Unknown processor", "/processor"


class InvalidCursor(ValidationFailed):
    """The cursor was not made by this list with this sort order. Start again without one."""

    code, title, pointer = "invalid-cursor", "Invalid cursor", "/query/cursor"


class IdempotencyKeyReused(ValidationFailed):
    """The Idempotency-Key was used before for a different request. Use a new key for every new request."""

    code, title, pointer = "idempotency-key-reused", "Idempotency-Key reused", "/header/Idempotency-Key"


class SizeMismatch(ValidationFailed):
    """The file is not of the size that was announced."""

    code, title, pointer = "size-mismatch", "Size not as announced", "/header/Content-Length"


class ContentTypeMismatch(ValidationFailed):
    """The file is not of the content type that was announced."""

    code, title, pointer = "content-type-mismatch", "Content type not as announced", "/header/Content-Type"


class Sha256Mismatch(ValidationFailed):
    """The file does not have the SHA-256 that was announced."""

    code, title = "sha256-mismatch", "SHA-256 not as announced"


class UploadMissing(ValidationFailed):
    """The file has not been uploaded. Send it to the upload URL, then complete the upload again."""

    code, title = "upload-missing", "File not uploaded"


class UploadRejected(ValidationFailed):
    """The uploaded file was not as announced, or not acceptable; `error` says why. It was removed: announce another."""

    code, title = "upload-rejected", "Upload rejected"


class HeadersTooLarge(AppError):
    """The request's headers are larger than this service accepts."""

    status, code, title = 431, "headers-too-large", "Request headers too large"
    headers: Mapping[str, str] = {"Connection": "close"}


class InternalError(AppError):
    """Something unexpected went wrong on our side. Quote `request_id` when reporting it."""

    status, code, title = 500, "internal-error", "Internal error"


class Unavailable(AppError):
    """The service cannot do this right now. Nothing was done; retry after the given seconds."""

    status, code, title = 503, "unavailable", "Temporarily unavailable"
    headers: Mapping[str, str] = {"Retry-After": "5"}


class DatabaseUnavailable(Unavailable):
    """The database is locked or cannot be reached. Nothing was done, unless `detail` says that it is not known; retry
    after the given seconds, with the same Idempotency-Key."""

    code, title = "database-unavailable", "Database unavailable"


class OutcomeUnknown(DatabaseUnavailable):
    """The commit got no answer: what was asked for has happened or not, so nothing may be undone."""

    def __init__(self) -> None:
        super().__init__("The database did not answer whether this was done.")


class StorageUnavailable(Unavailable):
    """The file storage cannot be reached or written. Nothing was done; retry after the given seconds."""

    code, title = "storage-unavailable", "Storage unavailable"


class TooBusy(Unavailable):
    """All places for this kind of work are taken. Nothing was done; retry after the given seconds."""

    code, title = "too-busy", "Too busy"


class NotReady(Unavailable):
    """This process should receive no traffic; `checks` names what is not in order."""

    code, title = "not-ready", "Not ready"


class StorageFull(AppError):
    """No space is left. Nothing was kept or changed; retry after the given seconds."""

    status, code, title = 507, "storage-full", "Storage full"
    headers: Mapping[str, str] = {"Retry-After": "60"}
