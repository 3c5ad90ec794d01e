"""The error codes are part of the API's contract, and derived from class names: a rename must not go unnoticed."""

from collections import defaultdict

import pytest

from app.errors import AppError, DatabaseUnavailable, OutcomeUnknown
from app.web import problems

CODES = {
    400: "bad-request malformed-idempotency-key",
    401: "invalid-credentials invalid-refresh-token invalid-token unauthorized",
    403: "forbidden invalid-upload-url registration-closed",
    404: "not-found",
    405: "method-not-allowed",
    408: "request-timeout",
    409: "conflict document-processing email-taken job-finished job-in-progress processing-failed request-in-progress "
    "result-not-ready upload-incomplete",
    411: "length-required",
    412: "already-stored precondition-failed",
    413: "payload-too-large",
    415: "macros-not-allowed polyglot-file unsupported-document unsupported-media-type",
    416: "range-not-satisfiable",
    422: "content-type-mismatch idempotency-key-reused invalid-cursor malformed-multipart sha256-mismatch "
    "size-mismatch unknown-processor unsafe-archive upload-missing upload-rejected validation-failed",
    431: "headers-too-large",
    500: "internal-error",
    503: "database-unavailable not-ready storage-unavailable too-busy unavailable",
    507: "storage-full",
}


def test_the_published_codes_by_status() -> None:
    codes = defaultdict(set)
    for code, error in problems.tree().items():
        codes[error.status].add(code)
    assert codes == {status: set(names.split()) for status, names in CODES.items()}


@pytest.mark.parametrize("error", problems.tree().values(), ids=problems.tree())
def test_an_error_is_a_subclass_of_the_error_with_its_status(error: type[AppError]) -> None:
    """The framework's errors are known by their status alone, and become the general error of that status."""
    (general,) = (each for each in error.mro() if AppError in each.__bases__)
    assert general.status == error.status


def test_clients_do_not_see_the_special_case_of_an_unavailable_database() -> None:
    assert OutcomeUnknown.code == DatabaseUnavailable.code
