"""Signed, expiring upload URLs of the service itself, for a storage that cannot presign any."""

import hashlib
import hmac
import time
from collections.abc import Sequence
from uuid import UUID

from app.errors import InvalidUploadUrl
from app.files.models import key_of
from app.storage.base import Announced, Presigned

_PURPOSE = b"document-api upload URL"  # keeps these signatures apart from others made with the same secret


class OwnUrls:
    """A Presigner whose URLs lead to `PUT /uploads/{document_id}`: an announced file is named after its document.

    A URL signs only the key and its expiry. Size, type and hash are checked against the document's row, which is
    immutable until the upload completes. The first secret signs, and all verify.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        self._keys = [hmac.digest(secret.encode(), _PURPOSE, "sha256") for secret in secrets]

    async def presign(self, key: str, file: Announced, seconds: int) -> Presigned:
        expires = int(time.time()) + seconds
        url = f"uploads/{key.rpartition('/')[2]}?expires={expires}&signature={_signature(self._keys[0], key, expires)}"
        return Presigned(key, url, {"Content-Type": file.content_type})

    def verify(self, file_id: UUID, expires: int, signature: str) -> None:
        """Raise InvalidUploadUrl unless the signature is valid. `expires` is in seconds since the epoch."""
        sent, name = signature.encode(), key_of(file_id)
        if not any(hmac.compare_digest(_signature(key, name, expires).encode(), sent) for key in self._keys):
            raise InvalidUploadUrl
        if time.time() >= expires:
            raise InvalidUploadUrl("The upload URL has expired.")


def _signature(key: bytes, name: str, expires: int) -> str:
    return hmac.new(key, f"PUT {name} {expires}".encode(), hashlib.sha256).hexdigest()
