"""What an error means for the attempt that it ends."""

from app.errors import AppError, NotFound
from app.events.failure import Failure
from app.jobs.kinds import Failed, Retryable
from app.processors.base import Permanent, ProcessingError, Transient

FAILURES = (ProcessingError, AppError)
"""What a processor may raise, and what the service may while it gives and takes what a processor works on."""

_MAX_CODE, _MAX_DETAIL = 100, 2000  # characters of a failure
_FILE_MISSING = Failure(code="file-missing", detail="The stored file is missing.")
INVALID_PARAMS = Permanent("invalid-params", "The params exceed what the service allows now.")


def outcome_of(error: ProcessingError | AppError) -> Failed | Retryable:
    """The outcome of an attempt that ended with one of FAILURES."""
    match error:
        case NotFound():
            return Failed(_FILE_MISSING)
        case Transient() | AppError():
            return Retryable(_failure(error))
        case _:
            return Failed(_failure(error))


def _failure(error: ProcessingError | AppError) -> Failure:
    """The recorded form of an error: truncated, with NUL and surrogates replaced."""

    def clean(text: str, length: int) -> str:
        return text[:length].encode("utf-8", "replace").decode().replace("\0", "?")

    return Failure(code=clean(error.code, _MAX_CODE), detail=clean(error.detail, _MAX_DETAIL))
