"""SECRETS_MANAGER_ID: settings in a secret of AWS Secrets Manager."""

import json
from contextlib import closing
from functools import cache
from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError, PartialCredentialsError
from botocore.session import get_session

from app.errors import ConfigurationError

# The start waits for at most 2 x (3 + 5) seconds.
_BOUNDED = Config(connect_timeout=3, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 2})
_REFUSALS = {
    "ResourceNotFoundException": "there is no such secret, or it has no value",
    "AccessDeniedException": "it may not be read: that needs secretsmanager:GetSecretValue, and kms:Decrypt of its key",
    "DecryptionFailure": "its key cannot be used",
    "UnrecognizedClientException": "the AWS credentials are not accepted",
}


@cache
def read(secret_id: str) -> dict[str, Any]:
    """Return what a secret says of settings, by their names in lower case.

    A process reads it once. Raises ConfigurationError, which never repeats a value.
    """
    try:
        with closing(get_session().create_client("secretsmanager", config=_BOUNDED)) as client:
            answer = client.get_secret_value(SecretId=secret_id)
    except ClientError as error:
        code = error.response["Error"]["Code"]
        raise _refusal(_REFUSALS.get(code, f"Secrets Manager refused it: {code}")) from None
    except NoRegionError:
        raise _refusal("it needs a region: AWS_DEFAULT_REGION") from None
    except (NoCredentialsError, PartialCredentialsError):
        raise _refusal("no AWS credentials were found") from None
    except BotoCoreError as error:
        raise _refusal(f"Secrets Manager cannot be asked: {type(error).__name__}") from None
    if "SecretString" not in answer:
        raise _refusal("it is binary, and must be text")
    return _settings(answer["SecretString"])


def _settings(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise _refusal('it must be a JSON object of settings, such as {"JWT_SECRET": "…"}')
    return {name.lower(): value for name, value in found.items()}


def _refusal(reason: str) -> ConfigurationError:
    return ConfigurationError(f"SECRETS_MANAGER_ID: {reason}")
