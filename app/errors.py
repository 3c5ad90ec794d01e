"""Every error that a client can see, and ConfigurationError for what only an operator sees.

A class's name in kebab case is the error's `code`, so renaming a class changes the API. The docstring is the text of
the page at /problems/<code> and the `detail` of an error that has no other, so it speaks to clients. `web/problems.py`
renders the errors as RFC 9457 problems.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class ConfigurationError(Exception):
    """The environment does not allow this process to run. The message is one line that names the variable."""


class AppError(Exception):
    """Base class of the errors in the API's contract: an HTTP status, a stable code and a title.

    A subclass inherits what it does not state, except that its title is then its name in words. `detail` says what
    happened this time and never repeats the input. `headers` are added to those of the class. `extra` becomes members
    of the problem object.
    """

    status: ClassVar[int]
    code: ClassVar[str]
    title: ClassVar[str]
    explanation: ClassVar[str]
    headers: Mapping[str, str] = {}
    by_code: ClassVar[dict[str, type["AppError"]]] = {}

    def __init_subclass__(
        cls, *, status: int | None = None, title: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init_subclass__()
        if cls.__module__ != __name__ or "code" in vars(cls):
            return  # to clients, an adapter's own error is its base
        words = re.findall("[A-Z][^A-Z]*", cls.__name__)
        cls.code, cls.title = "-".join(words).lower(), title or " ".join(words).capitalize()
        cls.explanation = " ".join((cls.__doc__ or cls.title).split())
        cls.status, cls.headers = status or cls.status, headers or cls.headers
        AppError.by_code[cls.code] = cls

    def __init__(self, detail: str | None = None, *, headers: Mapping[str, str] | None = None, **extra: Any) -> None:
        self.detail = detail or self.explanation.replace("`", "")
        super().__init__(self.detail)
        self.headers = {**type(self).headers, **(headers or {})}
        self.extra = extra


_INVALID_TOKEN = {"WWW-Authenticate": 'Bearer error="invalid_token"'}


class BadRequest(AppError, status=400):
    """The request could not be understood as HTTP or as this API uses it."""


class MalformedIdempotencyKey(BadRequest, title="Malformed Idempotency-Key"):
    """`Idempotency-Key` must be sent once and hold 1 to 255 printable ASCII characters, bare or as a quoted string."""


class Unauthorized(AppError, status=401, title="Authentication required", headers={"WWW-Authenticate": "Bearer"}):
    """The request needs a bearer access token, from `POST /auth/login`, or an API key."""


class InvalidCredentials(Unauthorized, title="Wrong email or password"):
    """No active account has this email and password."""


class InvalidToken(Unauthorized, title="Invalid access token or API key", headers=_INVALID_TOKEN):
    """The access token or API key is malformed, expired or revoked, or was not issued here; or two credentials were
    sent. An access token is renewed at `POST /auth/refresh`; an API key is made at `POST /api-keys`."""


class ApiKeyExpired(Unauthorized, title="API key expired", headers=_INVALID_TOKEN):
    """The API key has expired, as its `expires_at` said. Make another at `POST /api-keys`."""


class InvalidJobToken(Unauthorized, headers=_INVALID_TOKEN):
    """The bearer token is none that a claim of this job was answered with, at `POST /remote/{processor}/claim`."""


class InvalidRefreshToken(Unauthorized, headers=_INVALID_TOKEN):
    """The refresh token is unknown, expired, revoked or was used before. Log in again."""


class Forbidden(AppError, status=403):
    """The request is understood and refused."""


class InsufficientScope(Forbidden, headers={"WWW-Authenticate": 'Bearer error="insufficient_scope"'}):
    """The access token or API key is valid and does not allow this; `WWW-Authenticate` names the scope that does. A key
    may do no more than its account, and never manages the account or its keys."""


class LoginRequired(Forbidden):
    """Only somebody who is logged in may do this. An API key changes the role of no account and enables none, whatever
    its scopes: who steals it must not come by a login."""


class RegistrationClosed(Forbidden, title="Registration is closed"):
    """Registration is closed on this service; its operator creates the accounts."""


class StorageQuotaExceeded(Forbidden):
    """The files of this account would have more bytes than it may store; `GET /auth/me` shows how many that are. What
    is in the trash counts: delete documents for good to make room."""


class DocumentQuotaExceeded(Forbidden):
    """This account would have more documents than it may; `GET /auth/me` shows how many that are. What is in the trash
    counts: delete some for good."""


class BreakGlassDisabled(Forbidden):
    """Operators may not read the content of documents and results on this service, whatever the reason, unless its
    setting `OPERATOR_CONTENT` is `true`."""


class BreakGlassRequired(Forbidden):
    """An operator reads what is not theirs only for a reason, which `X-Break-Glass` states in 1 to 200 characters. The
    owner sees it in the document's timeline."""


class ApiKeyQuotaExceeded(Forbidden, title="API key quota exceeded"):
    """This account has as many API keys as it may, those that have expired included. Revoke some."""


class WrongPassword(Forbidden):
    """The current password is not the one that was sent. The access token is valid."""


class InvalidUploadUrl(Forbidden, title="Invalid upload URL"):
    """The upload URL has expired, was altered, or belongs to another document or storage. Announce the upload again to
    get a new one."""


class NotFound(AppError, status=404):
    """There is no such resource, or it belongs to another user."""


class PageNotFound(NotFound, title="No such page"):
    """The document has fewer pages than that."""


class MethodNotAllowed(AppError, status=405):
    """The resource does not support this method; `Allow` lists those it does."""


class NotAcceptable(AppError, status=406):
    """There is no representation in a media type that `Accept` asks for. Only a result with a `text` is plain text."""


class RequestTimeout(AppError, status=408, title="Request timed out", headers={"Connection": "close"}):
    """The body arrived too slowly or stopped arriving. Nothing was kept; send the request again."""


class Conflict(AppError, status=409):
    """The current state of the resource does not allow this."""


class EmailTaken(Conflict, title="Email already registered"):
    """An account with this email already exists."""


class OwnAccount(Conflict, title="Your own account"):
    """Operators can neither disable nor demote themselves, so that one is left. Another operator can."""


class MoreJobsMatch(Conflict):
    """More jobs match the filter than were confirmed. Nothing was changed; look at the count again."""


class RequestInProgress(Conflict, title="First request still running", headers={"Retry-After": "1"}):
    """A request with this Idempotency-Key is still running. Retry after the given seconds to get its answer."""


class UploadIncomplete(Conflict, title="Upload not completed"):
    """The document was announced, but its bytes have not been stored and verified yet."""


class JobInProgress(Conflict, title="Another job is running", headers={"Retry-After": "1"}):
    """The document is being processed with another processor or other params. Wait for that job or cancel it."""


class AlreadyClaimed(Conflict):
    """Somebody else works on the job, or it has finished. There is nothing to do."""


class LeaseLost(Conflict):
    """The job is not yours any more: its lease or its time has run out, it was cancelled, or you have settled it. Stop
    the work; nothing more of it will be published."""


class JobFinished(Conflict, title="Job already finished"):
    """The job has already succeeded, failed or been cancelled."""


class DocumentProcessing(Conflict, title="Document is being processed", headers={"Retry-After": "1"}):
    """The document is being processed: until its job ends, it cannot be deleted, nor its file be replaced. Cancel the
    job to end it now."""


class OnHold(Conflict, title="Document on hold"):
    """An operator has forbidden to remove this document, or anything that belongs to it, until the hold ends."""


class CurrentFile(Conflict, title="Current file"):
    """This is the file that the document has now. Only previous files can be removed; replace it first."""


class ResultNotReady(Conflict):
    """The document has no current result: it was not processed yet, or its job has not finished."""


class ProcessingFailed(Conflict):
    """The last job of the document gave up; `error` says why. Process the document again to retry."""


class NoPictures(Conflict, title="No pictures of pages"):
    """Only a PDF has pictures of its pages. Process a DOCX with `convert` to get a PDF of it."""


class PictureFailed(Conflict, title="Page cannot be drawn"):
    """There is no picture of this page; `error` says why. Another attempt does not help."""


class RotationInProgress(Conflict):
    """The secret before the last rotation is still good, until `previous_valid_until`. Rotate then, or now with a
    `previous_valid_for` of 0, which ends both older secrets at once."""


class TooManyWebhooks(Conflict):
    """The account has as many webhooks as it may. Delete one to add another."""


class WebhookInactive(Conflict, title="Webhook is disabled"):
    """The webhook is disabled, and is told nothing until its state is set to `ACTIVE`."""


class Gone(AppError, status=410):
    """What was here is gone for good."""


class DocumentPurged(Gone):
    """The document was deleted for good. It cannot be restored."""


class ResultExpired(Gone):
    """The results of this document were deleted for their age. Process the document again."""


class LengthRequired(AppError, status=411):
    """The request must say in `Content-Length` how long its body is."""


class PreconditionFailed(AppError, status=412, title="The document has changed"):
    """`If-Match` names another version of what is to be changed; a version is in quotes (`"3"`), as in `ETag`. Fetch
    the current version and repeat the change on it."""


class AlreadyStored(PreconditionFailed, title="Already uploaded"):
    """The document's bytes are already stored: an upload URL is good for one upload."""


class PayloadTooLarge(AppError, status=413):
    """The body, or the file in it, is larger than this service accepts."""


class OutputTooLarge(PayloadTooLarge):
    """The result of the job, or a file that was made, is larger than this service accepts. The job is still yours."""


class UnsupportedMediaType(AppError, status=415):
    """The body is not in a format that this operation accepts; the API description lists its content types."""


class UnsupportedDocument(UnsupportedMediaType, title="Not a PDF or DOCX"):
    """The file's content is neither a complete PDF nor a DOCX. Its name and declared type are not considered."""


class MacrosNotAllowed(UnsupportedMediaType, title="Macros are not accepted"):
    """The Word file contains macros."""


class ActiveContent(UnsupportedMediaType, title="Active content is not accepted"):
    """The Word file holds an OLE object, a control, or a field that runs a program (DDE)."""


class ExternalReference(UnsupportedMediaType, title="Remote parts are not accepted"):
    """The Word file includes a part, such as its template, from elsewhere. Links and linked pictures are accepted."""


class PolyglotFile(UnsupportedMediaType, title="Ambiguous file"):
    """The file can be read as more than one format."""


class RangeNotSatisfiable(AppError, status=416):
    """The requested range lies beyond the end of the file; `Content-Range` gives its size."""


class ValidationFailed(AppError, status=422):
    """Part of the request is missing or invalid. `errors` says what and where; it lists at most 20 errors."""

    pointer: ClassVar[str] = ""

    def __init_subclass__(cls, *, pointer: str = "", **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.pointer = pointer

    def __init__(
        self,
        detail: str | None = None,
        *,
        errors: Sequence[Mapping[str, str]] = (),
        pointer: str | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(detail, **extra)
        self.extra["errors"] = errors or [{"detail": self.detail, "pointer": pointer or self.pointer}]


class WeakPassword(ValidationFailed, title="Password too easy to guess"):
    """The password is one of the most common, or little more than the email address or the name of the service."""


class MalformedMultipart(ValidationFailed, title="Malformed multipart body"):
    """The multipart body is broken, truncated, or lacks the one `file` part."""


class UnsafeArchive(ValidationFailed, title="Unsafe DOCX archive", pointer="/file"):
    """The DOCX inflates beyond the limits, or has unsafe or duplicate entry names, or a document type definition."""


class UrlNotAllowed(ValidationFailed, title="URL not allowed", pointer="/url"):
    """The URL is not one that this service sends requests to: `https` (or `http`, where the operator allows it), a host
    on the public Internet, port 80, 443 or above 1023, no user name, password or fragment."""


class UnknownProcessor(ValidationFailed, pointer="/processor"):
    """No processor has this name."""


class UnsupportedContentType(ValidationFailed, pointer="/processor"):
    """The processor does not read documents of this content type; `GET /processors` lists what each of them reads."""


class ResultInvalid(ValidationFailed, pointer="/data"):
    """The data of the result does not fit the processor's own description. The job is still yours: mend it, or say that
    the work has failed."""


class OutputRejected(ValidationFailed):
    """A file that was made cannot be published; `error` says why. The job is still yours."""


class InvalidCursor(ValidationFailed, pointer="/query/cursor"):
    """The cursor does not belong to this list with this sort order. Start again without one."""


class SearchTooBroad(ValidationFailed, pointer="/query"):
    """The search took longer than a search may. Narrow it by a folder, a tag, a status, a range of time or a longer
    `q`."""


class IdempotencyKeyReused(ValidationFailed, title="Idempotency-Key reused", pointer="/header/Idempotency-Key"):
    """The Idempotency-Key was used before for a different request. Use a new key for every new request."""


class SizeMismatch(ValidationFailed, title="Size not as announced", pointer="/header/Content-Length"):
    """The file does not have the announced size."""


class ContentTypeMismatch(ValidationFailed, title="Content type not as announced", pointer="/header/Content-Type"):
    """The file does not have the announced content type."""


class Sha256Mismatch(ValidationFailed, title="SHA-256 not as announced"):
    """The file does not have the announced SHA-256."""


class UploadMissing(ValidationFailed, title="File not uploaded"):
    """The file has not been uploaded. Send it to the upload URL, then complete the upload again."""


class UploadRejected(ValidationFailed):
    """The uploaded file differs from its announcement or is not acceptable; `error` says why. It was removed: announce
    another."""


class PreconditionRequired(AppError, status=428):
    """`If-Match` must name the version that is to be changed, so that no change of somebody else is overwritten."""


class TooManyRequests(AppError, status=429, headers={"Retry-After": "5"}):
    """The account has too much under way. Nothing was done; retry after the given seconds."""


class RateLimited(TooManyRequests, title="Too many requests"):
    """The account, or without one the client's address, has made as many requests as it may for now. The `RateLimit`
    field says when there are more; `violated-policies` names the policy."""


class LoginThrottled(TooManyRequests, title="Too many failed logins"):
    """There were too many failed logins, for this account from this address or from this address in all. Wait for the
    given seconds, whether or not the password is right; sessions go on."""


class TooManyUploads(TooManyRequests, headers={"Retry-After": "60"}):
    """The account has announced as many uploads as it may. Complete or delete some, or wait until their URLs have
    expired."""


class TooManyJobs(TooManyRequests, title="Too many unfinished jobs"):
    """The account has as many unfinished jobs as it may. Retry when some of them have finished."""


class HeadersTooLarge(AppError, status=431, title="Request headers too large", headers={"Connection": "close"}):
    """The request's headers are larger than this service accepts."""


class InternalError(AppError, status=500):
    """An unexpected error occurred in the service. Quote `request_id` when reporting it."""


class FileMissing(InternalError, title="Stored file is missing"):
    """The document is there, and the file that was stored of it is missing. Another attempt does not help: the operator
    of the service has to bring it back. Quote `request_id`, by which the log says more."""


class FileDamaged(InternalError, title="Stored file is damaged"):
    """The document is there, and the file that was stored of it is not as it was. Another attempt does not help: the
    operator of the service has to bring it back. Quote `request_id`, by which the log says more."""


class Unavailable(AppError, status=503, title="Temporarily unavailable", headers={"Retry-After": "5"}):
    """The service cannot do this right now. Nothing was done; retry after the given seconds."""


class DatabaseUnavailable(Unavailable):
    """The database is locked or cannot be reached. Retry after the given seconds, with the same Idempotency-Key."""


class OutcomeUnknown(DatabaseUnavailable):
    """The commit got no answer: it may or may not have happened, so nothing may be undone."""

    code = DatabaseUnavailable.code  # to a client it is the same: retry

    def __init__(self) -> None:
        super().__init__("The database did not answer whether this was done.")


class StorageUnavailable(Unavailable):
    """The file storage cannot be reached or written. Nothing was done; retry after the given seconds."""


class EncryptionKeyMissing(Unavailable):
    """The service has no key to encrypt a secret with, or lacks the one that has encrypted it. Its operator has to add
    one to `ENCRYPTION_KEYS`."""


class TooBusy(Unavailable):
    """The service is at capacity for this kind of work. Nothing was done; retry after the given seconds."""


class ShuttingDown(Unavailable):
    """This process stopped before the request was done, and may have done a part of it. Retry after the given seconds,
    with the same Idempotency-Key."""


class NotReady(Unavailable):
    """This process should receive no traffic now. Operators see why, in `checks`."""


class StorageFull(AppError, status=507, headers={"Retry-After": "60"}):
    """The disk is full. Nothing was kept or changed; retry after the given seconds."""
