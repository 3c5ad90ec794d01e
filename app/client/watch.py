"""Waits for many jobs with few calls."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from app.client.api import Api
from app.client.calls import Problem
from app.client.outcomes import FileReport

_INTERVAL = 2.0  # seconds between two looks at the list of jobs, at least
_SHARE = 5  # that interval is at least so many times as long as a look takes
_WAIT = 5  # seconds that a call waits for the oldest job
_PAGE = 100  # jobs


class Watch:
    """Follows jobs to their end, and passes each file to `ended` when its job is finished.

    The oldest job is waited for, as it is due first; then the list of jobs, newest first, tells of the others.
    `deleting`: a job that succeeds deletes its document, and itself with it.
    """

    def __init__(self, api: Api, ended: Callable[[FileReport], None], *, deleting: bool) -> None:
        self._api = api
        self._ended = ended
        self._deleting = deleting
        self._pending: dict[str, FileReport] = {}  # by the job's id; oldest first
        self._more = asyncio.Event()
        self._complete = False

    def add(self, file: FileReport) -> None:
        """Follow the job of a file."""
        self._pending[file.job_id] = file
        self._more.set()

    def complete(self) -> None:
        """There will be no more files."""
        self._complete = True
        self._more.set()

    @property
    def pending(self) -> list[FileReport]:
        """The files whose jobs are not finished."""
        return list(self._pending.values())

    async def run(self) -> None:
        """Return when all jobs are finished, and there will be no more. Raises Problem, Stopped."""
        pause = 0.0
        while True:
            if not self._pending:
                if self._complete:
                    return
                self._more.clear()
                await self._more.wait()
                continue
            await asyncio.sleep(pause)
            await self._look_at_oldest()
            began = time.monotonic()
            await self._look_at_all()
            pause = max(_INTERVAL, _SHARE * (time.monotonic() - began)) if self._pending else 0

    async def _look_at_oldest(self) -> None:
        job_id = next(iter(self._pending))
        try:
            self._note(await self._api.get(f"/jobs/{job_id}", wait=_WAIT))
        except Problem as problem:
            if problem.status != 404:
                raise
            self._note_gone(job_id)

    async def _look_at_all(self) -> None:
        unseen, query = set(self._pending), dict[str, str | int](limit=_PAGE)
        while unseen:
            page = await self._api.get("/jobs", **query)
            for job in page["items"]:
                unseen.discard(job["id"])
                self._note(job)
            if not page["next_cursor"]:
                break
            query["cursor"] = page["next_cursor"]
        for job_id in unseen:
            self._note_gone(job_id)

    def _note_gone(self, job_id: str) -> None:
        """The document of a job was deleted meanwhile, and the job with it."""
        file = self._pending.pop(job_id)
        if self._deleting:
            file.job_state = "SUCCEEDED"
        else:
            file.job_state, file.code, file.detail = "DELETED", "not-found", "Its document was deleted."
        self._ended(file)

    def _note(self, job: dict[str, Any]) -> None:
        if (file := self._pending.get(job["id"])) is None:
            return
        file.set_job(job)
        if not file.has_unfinished_job:
            del self._pending[job["id"]]
            self._ended(file)
