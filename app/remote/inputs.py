"""Where workers elsewhere get what a job reads: from the storage, if they can reach it, and else from the service."""

import math
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from app.errors import StorageUnavailable
from app.processing.work import Work
from app.remote.schemas import Input
from app.remote.tokens import Claim, ClaimTokens
from app.storage.base import Sharer, Storage

_MARGIN = 300  # seconds for which a URL outlasts the lease: a heartbeat may be late, and a clock may be wrong


class _Place(NamedTuple):
    url: str
    headers: dict[str, str]
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class InputUrls:
    """Makes URLs of inputs: each is good for longer than the lease, which a heartbeat renews with new ones."""

    tokens: ClaimTokens
    storage: Storage

    async def of(self, work: Work, claim: Claim, base_url: str) -> list[Input]:
        """Where each file of the work is found by the worker that has this claim."""
        here, headers = f"{base_url.rstrip('/')}/remote/jobs/{claim.job_id}/inputs", self._authorization(claim)
        found = []
        for number, file in enumerate(work.files):
            place = await self._in_storage(file.key, claim.lease)
            place = place or _Place(f"{here}/{number}", headers, claim.expires_at)
            found.append(Input(**place._asdict(), **file.model_dump(include={"content_type", "size", "sha256"})))
        return found

    def _authorization(self, claim: Claim) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens.issue(claim)}"}

    async def _in_storage(self, key: str, lease: float) -> _Place | None:
        """None: the worker cannot get it from there."""
        if not isinstance(self.storage, Sharer):
            return None
        seconds, at = math.ceil(lease) + _MARGIN, datetime.now(UTC)
        with suppress(StorageUnavailable):
            if url := await self.storage.presign_get(key, seconds):
                return _Place(url, {}, at + timedelta(seconds=seconds))
        return None
