"""Claims jobs of a service for the processors that are here, and works on as many at once as there is capacity for."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from typing import Any

import structlog
from pydantic import ValidationError

from app.client.calls import LONGEST_PAUSE, NO_ANSWER, Answer, Stopped, pause
from app.jobs import containment
from app.jobs.outcome import CANCEL_TIMEOUT
from app.processing.output import Limits
from app.processors.base import Processor
from app.remote.schemas import ClaimedJob
from app.remote.worker.answers import TakenJob
from app.remote.worker.api import Claims, HeldJob
from app.remote.worker.attempt import Attempt
from app.remote.worker.making import JsonWriter
from app.settings import Settings

log = structlog.get_logger()

WAIT = 5.0  # seconds that a claim waits for a job, and holds up a shutdown at the most
_BRIEF = 1.0  # the same while processors take turns, because there is not enough capacity for all
_IDLE = 0.1  # seconds after a claim in vain
_GIVING_BACK = max(WAIT, CANCEL_TIMEOUT) + 2  # seconds that it takes at the most
_NOT_OFFERED = 60.0  # seconds until the service is asked again for what it does not have run elsewhere


class RemoteWorker:
    """The capacity of one process to run jobs of these processors."""

    def __init__(self, claims: Claims, processors: Sequence[Processor], settings: Settings) -> None:
        self._claims = claims
        self._processors = processors
        self._settings = settings
        self._size = settings.job_concurrency
        self._free = asyncio.Semaphore(self._size)
        self._writer = JsonWriter()
        self._limits = Limits(settings.max_result_bytes, settings.orphan_grace_seconds)
        self._attempts: dict[asyncio.Task[None], Attempt] = {}
        self._claiming = 0
        self._quiet = asyncio.Event()
        self._unoffered: set[str] = set()
        self._draining = False
        self._stopping = False

    def describe(self, task: asyncio.Task[Any] | None) -> Mapping[str, Any]:
        """The log keys of the job that the task works on; for another task, the queues of all jobs under way."""
        attempts = list(self._attempts.values())
        for attempt in attempts:
            if task and attempt.work is task:
                return {"queue": attempt.queue}
        return {"queues": sorted({attempt.queue for attempt in attempts})}

    async def run(self) -> None:
        """Claim and work until drained. Raises Stopped if the service will not have it, or has nothing for it."""
        containment.install(asyncio.get_running_loop())
        serving = [asyncio.create_task(self._serve(each)) for each in self._processors]
        try:
            done, _ = await asyncio.wait(serving, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            for task in serving:
                task.cancel()

    async def drain(self, seconds: float) -> None:
        """Claim no more; give running jobs this long to finish, then stop them and give them back."""
        self._draining = True
        self._count()
        await self._until_quiet(seconds)
        self._stopping = True
        for attempt in self._attempts.values():
            attempt.stop()
        await self._until_quiet(_GIVING_BACK)  # a claim may still bring a job, which is given back, too

    async def _until_quiet(self, seconds: float) -> None:
        """Return when nothing is claimed or worked on, or after so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._quiet.wait()

    async def _serve(self, processor: Processor) -> None:
        """Claim jobs of a processor, one after the other, and begin to work on them. Raises Stopped."""
        at_once, tries = asyncio.Semaphore(processor.at_once or self._size), 0
        while not self._draining:
            async with AsyncExitStack() as permits:
                await permits.enter_async_context(at_once)
                await permits.enter_async_context(self._free)
                with self._counted():
                    answer = await self._answer(processor)
                    if answer and answer.status == 200:
                        if job := _taken(answer):
                            self._begin(job, processor, permits.pop_all())
                        else:
                            answer = None
            tries = 0 if answer and answer.status < 400 else tries + 1
            await asyncio.sleep(self._pause(processor, answer, tries))

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Have a drain wait for the claim."""
        self._count(claims=1)
        try:
            yield
        finally:
            self._count(claims=-1)

    def _count(self, *, claims: int = 0) -> None:
        """Note that a claim begins or ends, or an attempt does."""
        self._claiming += claims
        if self._claiming or self._attempts:
            self._quiet.clear()
        else:
            self._quiet.set()

    async def _answer(self, processor: Processor) -> Answer | None:
        """The answer to a claim; None if there was none. Raises Stopped."""
        if self._draining:
            return None
        enough = self._size - len(self._attempts) >= len(self._processors)
        try:
            return await self._claims.next(processor.name, processor.version, WAIT if enough else _BRIEF)
        except NO_ANSWER:
            return None

    def _pause(self, processor: Processor, answer: Answer | None, tries: int) -> float:
        """Seconds until the next claim. Raises Stopped for an answer to which nobody can claim anything more."""
        if answer is None or answer.is_temporary:
            if answer and tries == 1:
                log.warning("remote.refused", processor=processor.name, reason=str(answer.problem))
            return pause(answer and answer.retry_after, tries, LONGEST_PAUSE)
        if answer.status == 404:
            self._miss(processor, answer)
            return _NOT_OFFERED
        if answer.status >= 400:
            key = " Is the key in DOCUMENT_API_KEY or --key-file a worker's?" if answer.status in {401, 403} else ""
            raise Stopped(f"{answer.status} {answer.problem}{key}")
        self._unoffered.discard(processor.name)
        return 0.0 if answer.status == 200 else _IDLE

    def _miss(self, processor: Processor, answer: Answer) -> None:
        """Note that the service does not have this processor run elsewhere, or has another version of it."""
        detail = answer.problem.detail
        log.info("remote.not_offered", processor=processor.name, version=processor.version, reason=detail)
        self._unoffered.add(processor.name)
        if len(self._unoffered) == len(self._processors):
            raise Stopped(f"there is nothing to do for {', '.join(sorted(self._unoffered))}: {detail}")

    def _begin(self, job: ClaimedJob, processor: Processor, permits: AsyncExitStack) -> None:
        settings = self._settings
        attempt = Attempt(
            HeldJob(self._claims.service, job),
            processor,
            self._writer,
            self._limits,
            seconds=settings.job_timeout,
            max_file_bytes=settings.max_upload_bytes,
        )
        if self._stopping:  # claimed at the last moment
            attempt.stop()

        async def run() -> None:
            async with permits:
                await attempt.run()

        task = asyncio.create_task(run())
        self._attempts[task] = attempt
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        del self._attempts[task]
        self._count()


def _taken(answer: Answer) -> TakenJob | None:
    """The job that was claimed; None if the worker cannot work on what the answer says."""
    try:
        return TakenJob.model_validate(answer.content)
    except ValidationError as error:
        [first, *_] = error.errors(include_url=False, include_input=False, include_context=False)
        log.warning("remote.claim_not_read", member=".".join(map(str, first["loc"])), reason=first["msg"])
        return None
