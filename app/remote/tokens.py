"""Tokens of claims: what a worker proves itself with that holds a job.

A token says which job, under which fence, until when, and who holds it by which credential. It is signed, so to refuse
one costs no look into the database. When it ends is for the database to say: the clocks of hosts do not matter.
"""

import hmac
import struct
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from app.errors import InvalidToken

PREFIX = "jt_"
_PURPOSE = b"document-api claim of a job"  # keeps these signatures apart from others made with the same secret
_FIXED = struct.Struct(
    ">16sIQI16s16s"
)  # job, fence, deadline and lease in milliseconds, account, credential; then a name
_NONE = UUID(int=0)
_SIGNATURE = 32  # bytes
_LONGEST = 600  # characters


class Claim(NamedTuple):
    """A claim of a job, made by a worker of this name: until `deadline` it may be renewed for `lease` seconds.

    It was made by an account, and ends with the API key or session, `credential_id`, that the account made it with.
    """

    job_id: UUID
    fence: int
    deadline: datetime
    lease: float
    worker: str
    account_id: UUID
    credential_id: UUID | None

    @property
    def expires_at(self) -> datetime:
        """From when on nothing may be done in its name."""
        return self.deadline + timedelta(seconds=self.lease)


class ClaimTokens:
    """Issues and verifies tokens: the first secret signs, and all verify."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._keys = [hmac.digest(secret.encode(), _PURPOSE, "sha256") for secret in secrets]

    def issue(self, claim: Claim) -> str:
        """A token of the claim."""
        deadline = round(claim.deadline.timestamp() * 1000)
        credential = (claim.account_id.bytes, (claim.credential_id or _NONE).bytes)
        said = _FIXED.pack(claim.job_id.bytes, claim.fence, deadline, round(claim.lease * 1000), *credential)
        said += claim.worker.encode()
        return PREFIX + urlsafe_b64encode(hmac.digest(self._keys[0], said, "sha256") + said).rstrip(b"=").decode()

    def verify(self, token: str) -> Claim:
        """The claim that a token was issued for, however long ago. Raises InvalidToken."""
        try:
            return self._verify(token)
        except ValueError as error:  # no base64, no ASCII, no UTF-8
            raise InvalidToken from error

    def _verify(self, token: str) -> Claim:
        encoded = token.removeprefix(PREFIX)
        if not token.startswith(PREFIX) or len(token) > _LONGEST:
            raise InvalidToken
        whole = b64decode(encoded + "=" * (-len(encoded) % 4), b"-_", validate=True)
        signature, said = whole[:_SIGNATURE], whole[_SIGNATURE:]
        if not any(hmac.compare_digest(hmac.digest(key, said, "sha256"), signature) for key in self._keys):
            raise InvalidToken
        job, fence, deadline, lease, account, credential = _FIXED.unpack_from(said)
        at, name = datetime.fromtimestamp(deadline / 1000, UTC), said[_FIXED.size :].decode()
        credential_id = UUID(bytes=credential) if credential != _NONE.bytes else None
        return Claim(UUID(bytes=job), fence, at, lease / 1000, name, UUID(bytes=account), credential_id)
