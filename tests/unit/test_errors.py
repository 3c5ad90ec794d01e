"""The error codes are part of the API's contract, and derived from class names: a rename must not go unnoticed."""

from collections import defaultdict

import orjson
import pytest

from app.errors import AppError, DatabaseUnavailable, NotReady, OutcomeUnknown, RateLimited, UploadRejected
from app.web import problems
from app.web.describe import raises
from app.web.problems import Problem

PROBLEM = "application/problem+json"
CODES = {
    400: "bad-request malformed-idempotency-key",
    401: "api-key-expired invalid-credentials invalid-job-token invalid-refresh-token invalid-token unauthorized",
    403: "api-key-quota-exceeded break-glass-disabled break-glass-required document-quota-exceeded forbidden "
    "insufficient-scope invalid-upload-url login-required registration-closed storage-quota-exceeded wrong-password",
    404: "not-found page-not-found",
    405: "method-not-allowed",
    406: "not-acceptable",
    408: "request-timeout",
    409: "already-claimed conflict current-file document-processing email-taken job-finished job-in-progress "
    "lease-lost more-jobs-match no-pictures on-hold own-account picture-failed processing-failed request-in-progress "
    "result-not-ready rotation-in-progress too-many-webhooks upload-incomplete webhook-inactive",
    410: "document-purged gone result-expired",
    411: "length-required",
    412: "already-stored precondition-failed",
    413: "output-too-large payload-too-large",
    415: "active-content external-reference macros-not-allowed polyglot-file unsupported-document "
    "unsupported-media-type",
    416: "range-not-satisfiable",
    422: "content-type-mismatch idempotency-key-reused invalid-cursor malformed-multipart output-rejected "
    "result-invalid sha256-mismatch search-too-broad size-mismatch unknown-processor unsafe-archive "
    "unsupported-content-type upload-missing upload-rejected url-not-allowed validation-failed weak-password",
    428: "precondition-required",
    429: "login-throttled rate-limited too-many-jobs too-many-requests too-many-uploads",
    431: "headers-too-large",
    500: "file-damaged file-missing internal-error",
    503: "database-unavailable encryption-key-missing not-ready shutting-down storage-unavailable too-busy unavailable",
    507: "storage-full",
}


def test_the_published_codes_by_status() -> None:
    codes = defaultdict(set)
    for code, error in AppError.by_code.items():
        codes[error.status].add(code)
    assert codes == {status: set(names.split()) for status, names in CODES.items()}


@pytest.mark.parametrize("error", AppError.by_code.values(), ids=AppError.by_code)
def test_an_error_is_a_subclass_of_the_error_with_its_status(error: type[AppError]) -> None:
    """The framework's errors are known by their status alone, and become the general error of that status."""
    (general,) = (each for each in error.mro() if AppError in each.__bases__)
    assert general.status == error.status


def test_clients_do_not_see_the_special_case_of_an_unavailable_database() -> None:
    assert OutcomeUnknown.code == DatabaseUnavailable.code


def test_every_member_of_a_problem_is_sent_and_nothing_else() -> None:
    checks, alarms = {"database": "failed"}, {"broker": "away"}
    not_ready = orjson.loads(problems.response(NotReady("Not in order: database", checks=checks, alarms=alarms)).body)
    rejected = orjson.loads(
        problems.response(UploadRejected(error={"code": "size-mismatch", "detail": "Too long."})).body
    )
    assert (not_ready["checks"], not_ready["alarms"]) == (checks, alarms)
    assert rejected["error"] == {"code": "size-mismatch", "detail": "Too long."}
    assert rejected["errors"] == [{"detail": UploadRejected.explanation.replace("`", ""), "pointer": ""}]
    limited = orjson.loads(problems.response(RateLimited(violated_policies=["account"])).body)
    assert limited["violated-policies"] == ["account"]
    sent = {name.replace("-", "_") for name in not_ready.keys() | rejected.keys() | limited.keys()}
    assert sent == Problem.model_fields.keys()


@pytest.mark.parametrize("error", AppError.by_code.values(), ids=AppError.by_code)
def test_the_example_in_the_description_is_what_is_sent(error: type[AppError]) -> None:
    described = raises(error)[error.status]["content"][PROBLEM]["examples"][error.code]["value"]
    sent = orjson.loads(problems.response(error()).body)
    of_the_request = {"request_id": described["request_id"], "instance": described["instance"]}
    assert sent | of_the_request == described


def test_a_route_with_an_idempotency_key_describes_how_one_is_refused() -> None:
    codes = {code for each in raises(keyed=True).values() for code in each["content"][PROBLEM]["examples"]}
    assert {"malformed-idempotency-key", "idempotency-key-reused"} <= codes
