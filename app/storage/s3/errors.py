"""Translates the SDK's errors into the port's, and limits how long its calls take."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from aiohttp import ClientError as HttpError
from botocore import exceptions as sdk
from botocore.exceptions import ClientError

from app.errors import AlreadyStored, AppError, NotFound, StorageFull, StorageUnavailable
from app.telemetry import metrics

log = structlog.get_logger()

REQUEST_TIMEOUT = 10.0  # seconds for one request, including its retries

# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html, and what MinIO and Ceph answer when they are full
_FULL = {"InsufficientStorage", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded"}
_WRONG = {
    "NoSuchBucket": "the bucket does not exist",
    "InvalidBucketName": "the bucket does not exist",
    "InvalidAccessKeyId": "the access key is unknown",
    "SignatureDoesNotMatch": "the secret key is wrong",
    "AccessDenied": "access is denied",
    "AllAccessDisabled": "access is denied",
    "AccountProblem": "access is denied",
    "ExpiredToken": "the credentials have expired",
    "InvalidToken": "the session token is wrong",
    "PermanentRedirect": "the bucket is in another region",
    "AuthorizationHeaderMalformed": "the bucket is in another region",
    "IllegalLocationConstraintException": "the bucket is in another region",
}
_NO_CREDENTIALS = "no credentials were found in AWS_ACCESS_KEY_ID or elsewhere in the AWS chain"

# STORAGE_URL has been validated before, so these errors come from the SDK's own environment.
_UNUSABLE: dict[type[Exception], str] = {
    sdk.ConfigParseError: "AWS_CONFIG_FILE or AWS_SHARED_CREDENTIALS_FILE cannot be parsed",
    sdk.ProfileNotFound: "AWS_PROFILE names no profile",
    sdk.InvalidRegionError: "AWS_DEFAULT_REGION, or the region of the profile, is invalid",
    TimeoutError: "the credentials of the AWS settings could not be had in time",
    OSError: "a file that the AWS settings name, such as AWS_CA_BUNDLE, cannot be used",
    ValueError: "AWS_ENDPOINT_URL, or another URL of the AWS settings, is invalid",
}


class Unreachable(StorageUnavailable):
    """The storage cannot be used now. `reason` is for the operator; clients only learn that it is unavailable."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason


class Refused(Unreachable):
    """The storage refuses these settings, so that waiting does not help."""


@asynccontextmanager
async def translated(seconds: float = REQUEST_TIMEOUT, *, quiet: bool = False) -> AsyncIterator[None]:
    """Translate the SDK's errors in the block, and limit it to `seconds`.

    Raises NotFound, StorageFull, Unreachable, Refused. Logs the reason of the last two; `quiet` is for callers that
    report it themselves.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except (ClientError, sdk.BotoCoreError, HttpError, OSError) as error:
        known = _known(error)
        if isinstance(known, StorageFull | StorageUnavailable):
            metrics.storage_errors.labels("full" if isinstance(known, StorageFull) else "unavailable").inc()
        if isinstance(known, Unreachable) and not quiet:
            log.warning("storage.failed", reason=known.reason)
        raise known from error


@asynccontextmanager
async def creating_client() -> AsyncIterator[None]:
    """Raise Refused for any error in the block, which creates a client: trying again would not help."""
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT):
            yield
    except Exception as error:
        reasons = (reason for kind, reason in _UNUSABLE.items() if isinstance(error, kind))
        raise Refused(next(reasons, f"the AWS settings cannot be used: {type(error).__name__}")) from error


def _known(error: Exception) -> AppError:
    match error:
        case ClientError():
            return _answered(error)
        case sdk.NoCredentialsError():
            return Refused(_NO_CREDENTIALS)
        case sdk.PartialCredentialsError() | sdk.CredentialRetrievalError():
            return Refused(f"the credentials cannot be used: {type(error).__name__}")
        case sdk.SSLError():
            return Refused("the endpoint's certificate is not trusted")
    return Unreachable("the endpoint cannot be reached")


def _answered(error: ClientError) -> AppError:
    code, status = code_of(error), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if code == "NoSuchKey":
        return NotFound()
    if code == "PreconditionFailed":
        return AlreadyStored()
    if code in _FULL or status == 507:
        return StorageFull()
    if code in _WRONG:
        return Refused(f"{_WRONG[code]} ({error.operation_name})")
    return Unreachable(f"{error.operation_name} was answered {status} {code}")


def code_of(error: ClientError) -> str:
    """Return the error code of S3's answer, such as `NoSuchKey`, or "" if it has none."""
    return str(error.response.get("Error", {}).get("Code", ""))
