"""The calls of a worker. Those about a job are repeated until they are answered, or cancelled."""

import asyncio
from typing import Any

import structlog

from app.client.calls import LONGEST_ASKED, LONGEST_PAUSE, NO_ANSWER, Answer, Body, Connection, Request, pause
from app.remote.schemas import ClaimedJob, Held, Input
from app.remote.worker.answers import RenewedLease

log = structlog.get_logger()

_LEAST = 1.0  # seconds that the pauses of heartbeats may grow to, however short the lease


class Service:
    """The service at the other end of a connection. The log tells when it is away, and when it is back."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._is_away = False

    async def answer(self, request: Request) -> Answer:
        """Call once. Raises one of NO_ANSWER, Stopped."""
        try:
            answer = await self.connection.answer(request)
        except NO_ANSWER as error:
            self._away(getattr(error, "strerror", None) or str(error) or type(error).__name__)
            raise
        if answer.status >= 500 and "code" not in answer.content:  # a proxy's
            self._away(str(answer.problem))
        elif self._is_away:
            self._is_away = False
            log.info("remote.back", url=self.connection.url)
        return answer

    def _away(self, reason: str) -> None:
        if not self._is_away:
            self._is_away = True
            log.warning("remote.away", url=self.connection.url, reason=reason)


class Claims:
    """Claims jobs with an API key, in the name of a worker."""

    def __init__(self, service: Service, key: str, worker: str) -> None:
        self.service = service
        self._key = key
        self._worker = worker

    async def next(self, processor: str, version: str, wait: float) -> Answer:
        """Claim a job of a processor, once, within `wait` seconds. Raises one of NO_ANSWER, Stopped."""
        wanted = {"worker": self._worker, "wait": wait, "version": version}
        return await self.service.answer(Request("POST", f"/remote/{processor}/claim", wanted).by(self._key))


class HeldJob:
    """The calls about a job that was claimed. They raise Stopped for what is not this API."""

    def __init__(self, service: Service, job: ClaimedJob) -> None:
        self.job = job
        self.session = service.connection.session
        self.inputs: list[Input] = job.inputs
        self._service = service
        self._path = f"/remote/jobs/{job.job_id}"

    async def beat(self, progress: float) -> Held | None:
        """Renew the lease. None: the job is lost, or was cancelled."""
        longest = max(_LEAST, self.job.lease_seconds / 6)
        request = Request("POST", f"{self._path}/heartbeat", {"progress": progress})
        answer = await self._repeated(request, longest, 3 * longest)  # in time for the lease, whatever is asked for
        if answer.status != 200:
            return None
        held = RenewedLease.model_validate(answer.content)
        if len(held.inputs) == len(self.inputs):
            self.inputs = held.inputs
        return None if held.cancelled else held

    async def result(self, processor: str, max_bytes: int) -> Answer:
        """Read the last good result of another processor."""
        return await self._repeated(Request("GET", f"{self._path}/results/{processor}", max_answer=max_bytes))

    async def send(self, number: int, file: Body, name: str, *, is_document: bool) -> Answer:
        """Send a file that was made."""
        query = {"name": name} | ({"document": "true"} if is_document else {})
        return await self._repeated(Request("PUT", f"{self._path}/outputs/{number}", file, query))

    async def settle(self, how: str, said: dict[str, Any] | bytes | None = None) -> Answer:
        """Complete, fail or release the job."""
        return await self._repeated(Request("POST", f"{self._path}/{how}", said))

    async def _repeated(
        self, request: Request, longest: float = LONGEST_PAUSE, longest_asked: float = LONGEST_ASKED
    ) -> Answer:
        tries = 0
        while True:
            tries += 1
            wait: float | None = None
            try:
                answer = await self._service.answer(request.by(self.job.token))
            except NO_ANSWER:
                pass
            else:
                if not answer.is_temporary:
                    return answer
                wait = answer.retry_after
                log.info("remote.call_repeated", path=request.path, reason=str(answer.problem))
            await asyncio.sleep(pause(wait, tries, longest, longest_asked))
