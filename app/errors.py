"""Every error that a client can see, and ConfigurationError for what only an operator sees.

The class name in kebab case is the error's `code`, so renaming a class changes the API. The docstring is the text of
the page at /problems/<code>, so it speaks to clients. `web/problems.py` renders the errors as RFC 9457 problems.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class ConfigurationError(Exception):
    """The environment does not allow this process to run. The message is one line that names the variable."""


class AppError(Exception):
    """Base class of the errors in the API's contract: an HTTP status, a stable code and a title.

    `detail` says what happened this time and never repeats the input. `headers` are added to those of the class.
    `extra` becomes members of the problem object.
    """

    status: ClassVar[int]
    code: ClassVar[str]
    title: ClassVar[str]
    headers: Mapping[str, str] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.__module__ == __name__ and "code" not in vars(cls):  # an adapter's own errors are their base to clients
            cls.code = _kebab_case(cls.__name__)

    def __init__(self, detail: str | None = None, *, headers: Mapping[str, str] | None = None, **extra: Any) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.headers = {**type(self).headers, **(headers or {})}
        self.extra = extra


def _kebab_case(name: str) -> str:
    """`NotFound` becomes `not-found`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()


class BadRequest(AppError):
    """The request could not be understood as HTTP or as this API uses it."""

    status, title = 400, "Bad request"


class MalformedIdempotencyKey(BadRequest):
    """`Idempotency-Key` must be sent once and hold 1 to 255 printable ASCII characters, bare or as a quoted string."""

    title = "Malformed Idempotency-Key"


class Unauthorized(AppError):
    """The request needs a bearer access token: log in at `POST /auth/login`."""

    status, title = 401, "Authentication required"
    headers: Mapping[str, str] = {"WWW-Authenticate": "Bearer"}


class InvalidCredentials(Unauthorized):
    """No active account has this email and password."""

    title = "Wrong email or password"


class InvalidToken(Unauthorized):
    """The access token is malformed, expired, or was not issued here. Obtain a new one at `POST /auth/refresh`."""

    title = "Invalid access token"
    headers: Mapping[str, str] = {"WWW-Authenticate": 'Bearer error="invalid_token"'}


class InvalidRefreshToken(Unauthorized):
    """The refresh token is unknown, expired, revoked or was used before. Log in again."""

    title = "Invalid refresh token"
    headers: Mapping[str, str] = {"WWW-Authenticate": 'Bearer error="invalid_token"'}


class Forbidden(AppError):
    """The request is understood and refused."""

    status, title = 403, "Forbidden"


class InsufficientScope(Forbidden):
    """The access token is valid and does not allow this; `WWW-Authenticate` names the scope that does."""

    title = "Insufficient scope"
    headers: Mapping[str, str] = {"WWW-Authenticate": 'Bearer error="insufficient_scope"'}


class RegistrationClosed(Forbidden):
    """Registration is closed on this service; its operator creates the accounts."""

    title = "Registration is closed"


class InvalidUploadUrl(Forbidden):
    """The upload URL has expired, was altered, or belongs to another document or storage. Announce the upload again to
    get a new one."""

    title = "Invalid upload URL"


class NotFound(AppError):
    """There is no such resource, or it belongs to another user."""

    status, title = 404, "Not found"


class MethodNotAllowed(AppError):
    """The resource does not support this method; `Allow` lists those it does."""

    status, title = 405, "Method not allowed"


class RequestTimeout(AppError):
    """The body arrived too slowly or stopped arriving. Nothing was kept; send the request again."""

    status, title = 408, "Request timed out"
    headers: Mapping[str, str] = {"Connection": "close"}


class Conflict(AppError):
    """The current state of the resource does not allow this."""

    status, title = 409, "Conflict"


class EmailTaken(Conflict):
    """An account with this email already exists."""

    title = "Email already registered"


class RequestInProgress(Conflict):
    """A request with this Idempotency-Key is still running. Retry after the given seconds to get its answer."""

    title = "First request still running"
    headers: Mapping[str, str] = {"Retry-After": "1"}


class UploadIncomplete(Conflict):
    """The document was announced, but its bytes have not been stored and verified yet."""

    title = "Upload not completed"


class JobInProgress(Conflict):
    """The document is being processed with another processor or other params. Wait for that job or cancel it."""

    title = "Another job is running"
    headers: Mapping[str, str] = {"Retry-After": "1"}


class JobFinished(Conflict):
    """The job has already succeeded, failed or been cancelled."""

    title = "Job already finished"


class DocumentProcessing(Conflict):
    """The document is being processed and cannot be deleted until its job ends. Cancel the job to end it now."""

    title = "Document is being processed"
    headers: Mapping[str, str] = {"Retry-After": "1"}


class ResultNotReady(Conflict):
    """The document has no current result: it was not processed yet, or its job has not finished."""

    title = "Result not ready"


class ProcessingFailed(Conflict):
    """The last job of the document gave up; `error` says why. Process the document again to retry."""

    title = "Processing failed"


class LengthRequired(AppError):
    """The request must say in `Content-Length` how long its body is."""

    status, title = 411, "Length required"


class PreconditionFailed(AppError):
    """`If-Match` names another version of the document. Fetch the current version and repeat the change on it."""

    status, title = 412, "The document has changed"


class AlreadyStored(PreconditionFailed):
    """The document's bytes are already stored: an upload URL is good for one upload."""

    title = "Already uploaded"


class PayloadTooLarge(AppError):
    """The body, or the file in it, is larger than this service accepts."""

    status, title = 413, "Payload too large"


class UnsupportedMediaType(AppError):
    """The body is not in a format that this operation accepts; the API description lists its content types."""

    status, title = 415, "Unsupported media type"


class UnsupportedDocument(UnsupportedMediaType):
    """The file's content is neither a complete PDF nor a DOCX. Its name and declared type are not considered."""

    title = "Not a PDF or DOCX"


class MacrosNotAllowed(UnsupportedMediaType):
    """The Word file contains macros."""

    title = "Macros are not accepted"


class PolyglotFile(UnsupportedMediaType):
    """The file can be read as more than one format."""

    title = "Ambiguous file"


class RangeNotSatisfiable(AppError):
    """The requested range lies beyond the end of the file; `Content-Range` gives its size."""

    status, title = 416, "Range not satisfiable"


class ValidationFailed(AppError):
    """Part of the request is missing or invalid. `errors` says what and where; it lists at most 20 errors."""

    status, title = 422, "Validation failed"
    pointer: ClassVar[str] = ""

    def __init__(self, detail: str | None = None, *, errors: Sequence[Mapping[str, str]] = (), **extra: Any) -> None:
        super().__init__(detail, **extra)
        self.extra["errors"] = errors or [{"detail": self.detail, "pointer": self.pointer}]


class MalformedMultipart(ValidationFailed):
    """The multipart body is broken, truncated, or lacks the one `file` part."""

    title = "Malformed multipart body"


class UnsafeArchive(ValidationFailed):
    """The DOCX inflates beyond the limits, or has unsafe or duplicate entry names, or a document type definition."""

    title, pointer = "Unsafe DOCX archive", "/file"


class UnknownProcessor(ValidationFailed):
    """No processor has this name."""

    title, pointer = "Unknown processor", "/processor"


class InvalidCursor(ValidationFailed):
    """The cursor does not belong to this list with this sort order. Start again without one."""

    title, pointer = "Invalid cursor", "/query/cursor"


class IdempotencyKeyReused(ValidationFailed):
    """The Idempotency-Key was used before for a different request. Use a new key for every new request."""

    title, pointer = "Idempotency-Key reused", "/header/Idempotency-Key"


class SizeMismatch(ValidationFailed):
    """The file does not have the announced size."""

    title, pointer = "Size not as announced", "/header/Content-Length"


class ContentTypeMismatch(ValidationFailed):
    """The file does not have the announced content type."""

    title, pointer = "Content type not as announced", "/header/Content-Type"


class Sha256Mismatch(ValidationFailed):
    """The file does not have the announced SHA-256."""

    title = "SHA-256 not as announced"


class UploadMissing(ValidationFailed):
    """The file has not been uploaded. Send it to the upload URL, then complete the upload again."""

    title = "File not uploaded"


class UploadRejected(ValidationFailed):
    """The uploaded file differs from its announcement or is not acceptable; `error` says why. It was removed: announce
    another."""

    title = "Upload rejected"


class HeadersTooLarge(AppError):
    """The request's headers are larger than this service accepts."""

    status, title = 431, "Request headers too large"
    headers: Mapping[str, str] = {"Connection": "close"}


class InternalError(AppError):
    """An unexpected error occurred in the service. Quote `request_id` when reporting it."""

    status, title = 500, "Internal error"


class Unavailable(AppError):
    """The service cannot do this right now. Nothing was done; retry after the given seconds."""

    status, title = 503, "Temporarily unavailable"
    headers: Mapping[str, str] = {"Retry-After": "5"}


class DatabaseUnavailable(Unavailable):
    """The database is locked or cannot be reached. Nothing was done, unless `detail` says that the outcome is unknown;
    retry after the given seconds, with the same Idempotency-Key."""

    title = "Database unavailable"


class OutcomeUnknown(DatabaseUnavailable):
    """The commit got no answer: it may or may not have happened, so nothing may be undone."""

    code = DatabaseUnavailable.code  # to a client it is the same: retry

    def __init__(self) -> None:
        super().__init__("The database did not answer whether this was done.")


class StorageUnavailable(Unavailable):
    """The file storage cannot be reached or written. Nothing was done; retry after the given seconds."""

    title = "Storage unavailable"


class TooBusy(Unavailable):
    """The service is at capacity for this kind of work. Nothing was done; retry after the given seconds."""

    title = "Too busy"


class NotReady(Unavailable):
    """This process should receive no traffic; `checks` says why."""

    title = "Not ready"


class StorageFull(AppError):
    """The disk is full. Nothing was kept or changed; retry after the given seconds."""

    status, title = 507, "Storage full"
    headers: Mapping[str, str] = {"Retry-After": "60"}
